"""A house whose meter is taken down or replaced, meters in stock that understand tokens, and their keys."""

from dataclasses import dataclass, replace
from datetime import timedelta

from billing import identity_store
from firmware_sim.meter_state import MeterState
from portal.field import remove_meter, replace_meter, take_stock
from portal.field.remove_meter import FinalReading
from portal.field.take_stock import StsPlate
from portal.key_sweep import KeySweep
from tests.billing.world import NOW, SGC, make_tariffs
from tests.portal.key_world import make_wired, rich_vault, run_wire
from token_engine.acceptance import MeterCapabilities, MeterTokenState
from token_engine.identifiers import luhn_digit

VAULT = rich_vault()
FINAL = FinalReading(counter=1_234_560, credit=4_250, source="display")


@dataclass
class Spare:
    meter_id: int
    drn: str
    state: MeterState
    house: object


async def make_old(pool):
    """A house with tariffs and a meter that told 100 kWh of credit an hour ago; its link is down."""
    async with pool.connection() as conn:
        await make_tariffs(conn)
    old = await make_wired(pool, VAULT)
    await tell_state(pool, old.meter_id, credit=100_000, counter=1_000_000, state_at=NOW - timedelta(hours=1))
    return old


async def tell_state(pool, meter_id, **fields):
    names = ", ".join(fields)
    async with pool.connection() as conn:
        await conn.execute(
            f"INSERT INTO meter_gateway.meter_state (meter_id, {names}) VALUES (%s{', %s' * len(fields)})"
            f" ON CONFLICT (meter_id) DO UPDATE SET ({names}) = ROW ({', '.join(f'EXCLUDED.{name}' for name in fields)})",
            (meter_id, *fields.values()),
        )


async def make_spare(pool, old, number=77, **plate):
    body = f"04{number:08d}"
    drn = body + luhn_digit(body)
    async with pool.connection() as conn:
        meter = await take_stock.add_meter(
            conn,
            drn=drn,
            commodity="electricity",
            model="E1",
            link="mqtt",
            profile=None,
            sts=StsPlate(**{"sgc": SGC["electricity"], **plate}),
        )
        identity = await identity_store.get_identity(conn, meter.id)
    key = identity.key_identity()
    token = MeterTokenState(
        key, VAULT.decoder_key_for(key), MeterCapabilities(credit_subclasses=frozenset({0}))
    )
    state = MeterState(drn=drn, commodity="electricity", token=token, credit=0, counter=0)
    return Spare(meter.id, drn, state, replace(old.house, drn=drn, meter_id=meter.id))


async def swap(pool, old, spare, key="swap-0001", final=FINAL, now=NOW):
    async with pool.connection() as conn:
        return await replace_meter.replace(
            conn,
            old_id=old.meter_id,
            new_id=spare.meter_id,
            final=final,
            key=key,
            actor="salma",
            note="",
            now=now,
        )


async def settle_keys(pool, spare, clock, rounds=4):
    sweep = KeySweep(pool, VAULT, clock)
    for _ in range(rounds):
        await sweep.round()
        await run_wire(pool, spare, clock())
        clock.now += timedelta(seconds=5)


async def take_down(pool, meter_id, final=FINAL, key="gone-0001", settle="keep", now=NOW):
    async with pool.connection() as conn:
        return await remove_meter.remove(
            conn, meter_id=meter_id, final=final, settle=settle, key=key, actor="salma", note="", now=now
        )
