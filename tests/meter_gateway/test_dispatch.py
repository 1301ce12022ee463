"""The dispatcher's housekeeping; what it says and to whom is shown with a real broker in test_headend."""

from datetime import timedelta

from meter_gateway import dispatch
from meter_gateway.dispatch import Dispatch
from tests.meter_gateway.places import NOW, make_modbus_meter, make_site


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


class Heard:
    """A link that keeps what it is given."""

    connected = True

    def __init__(self):
        self.said = []

    def publish(self, topic, payload, *, expiry_s):
        self.said.append(topic)
        return True


async def test_a_site_with_too_many_devices_does_not_hold_up_the_others(pool, monkeypatch, caplog):
    monkeypatch.setattr(dispatch, "MAX_DEVICES", 1)
    async with pool.connection() as conn:
        _, large = await make_site(conn, "large")
        await make_modbus_meter(conn, large, "06000000029", 1)
        await make_modbus_meter(conn, large, "06000000037", 2)
        _, small = await make_site(conn, "small")
        await make_modbus_meter(conn, small, "06000000045", 1)
    link = Heard()
    one = Dispatch(pool, link, clock=lambda: NOW)
    for _ in range(3):
        await one._send_configs()
    assert link.said == ["rsd/1/down/small/config"]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "large gets no new list of devices: 2 devices at one site, 1 are the most"
    ]
