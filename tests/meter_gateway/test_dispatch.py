"""The dispatcher's housekeeping; what it says and to whom is shown with a real broker in test_headend."""

from datetime import timedelta

from meter_gateway import dispatch
from meter_gateway.dispatch import Dispatch
from tests.meter_gateway.places import NOW


class NoLink:
    connected = False


async def ledger(pool):
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT count(*) FROM meter_gateway.edge_message")
        return (await cursor.fetchone())[0]


async def test_an_old_ledger_goes_slice_after_slice_until_nothing_old_is_left(pool, monkeypatch):
    monkeypatch.setattr(dispatch, "LEDGER_SLICE", 4)
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO meter_gateway.edge_message (edge, boot, seq, received_at)"
            " SELECT 'site-1', 1, n, CASE WHEN n <= 10 THEN %s ELSE %s END FROM generate_series(1, 12) n",
            (NOW - timedelta(days=41), NOW),
        )
    one = Dispatch(pool, NoLink(), clock=lambda: NOW)
    left = []
    for _ in range(4):
        await one._keep_house()
        left.append(await ledger(pool))
    assert left == [8, 4, 2, 2]
