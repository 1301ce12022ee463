"""Meters that understand tokens, a wire between them and the command table, and a vault with keys to change to."""

import secrets
from dataclasses import dataclass, replace

from psycopg.types.json import Jsonb

from billing import identity_store, key_change_store
from firmware_sim.meter import enter_token, run_command
from firmware_sim.meter_state import MeterState
from meter_gateway.command import apply_event
from meter_gateway.command_state import CommandEvent
from portal import change_keys
from tests.billing.world import NOW, SGC, make_house
from token_engine.acceptance import MeterCapabilities, MeterTokenState
from token_engine.decoder_key import VendingKey
from token_engine.identifiers import BaseDate, KeyType
from token_engine.key_material import VendingKeyMaterial
from token_engine.software_vault import SoftwareVault

OTHER_SGC = "201999"
MISSING_KRN = 9  # no vending key of this revision


def rich_vault() -> SoftwareVault:
    """Revisions 1 to 3 of each supply group, for meters in stock (DDTK) and for working ones (DUTK)."""
    keys = {}
    for sgc in (*SGC.values(), OTHER_SGC):
        for krn in (1, 2, 3, 4):
            for kt in (KeyType.DDTK, KeyType.DUTK):
                base = BaseDate.Y1993 if krn == 4 else BaseDate.Y2014
                keys[sgc, krn, kt] = VendingKey(VendingKeyMaterial(secrets.token_bytes(20)), kt, base)
    return SoftwareVault(keys)


@dataclass
class Wired:
    """One house with its simulated meter; `state` is all that the meter knows."""

    house: object
    state: MeterState
    vault: SoftwareVault

    @property
    def meter_id(self):
        return self.house.meter_id

    def type_in(self, digits, now):
        self.state, answer, events = enter_token(self.state, digits, "keypad", ms(now))
        return answer.result.name, events


def ms(now):
    return int(now.timestamp() * 1000)


async def make_wired(pool, vault, number=1, *, now=NOW, **key):
    """A house whose meter holds the key that the database says; `key` overrides what the database begins with."""
    house_args = {name: key.pop(name) for name in ("link", "commodity", "language") if name in key}
    ea = key.pop("ea", "07")
    async with pool.connection() as conn:
        house = await make_house(conn, number, **house_args)
        for name, value in {**key, "ea": ea}.items():
            await conn.execute(
                f"UPDATE billing.sts_identity SET {name} = %s WHERE meter_id = %s", (value, house.meter_id)
            )
        identity = await identity_store.get_identity(conn, house.meter_id)
    meter = identity.key_identity()
    capabilities = MeterCapabilities(
        credit_subclasses=frozenset({0 if house.commodity == "electricity" else 1})
    )
    token = MeterTokenState(meter, vault.decoder_key_for(meter), capabilities)
    state = MeterState(drn=house.drn, commodity=house.commodity, token=token, credit=50_000, counter=0)
    return Wired(house, state, vault)


async def tell(pool, wired, events, now):
    """What the meter reports reaches the database."""
    async with pool.connection() as conn:
        for event in events:
            await conn.execute(
                "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, recorded_at, detail)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                (wired.meter_id, wired.house.drn, event.code, now, now, Jsonb(event.detail)),
            )


async def type_in(pool, wired, digits, now):
    result, events = wired.type_in(digits, now)
    await tell(pool, wired, events, now)
    return result


async def run_wire(pool, wired, now, *, limit=50):
    """Bring every command in its order to the meter, and the meter's answer back; gives what it answered."""
    said = []
    for _ in range(limit):
        async with pool.connection() as conn:
            row = await (
                await conn.execute(
                    "SELECT id, kind, argument FROM meter_gateway.meter_command WHERE meter_id = %s"
                    " AND state IN ('CREATED', 'SENT', 'ACCEPTED', 'WRITTEN') ORDER BY id LIMIT 1",
                    (wired.meter_id,),
                )
            ).fetchone()
            if row is None:
                return said
            wired.state, answer, events = run_command(wired.state, row[0], row[1], row[2], ms(now))
            event = CommandEvent.EDGE_VERIFIED if answer.done else CommandEvent.EDGE_REJECTED
            await apply_event(
                conn, row[0], event, at=now, detail={"result": answer.result, "tid": answer.tid}
            )
        await tell(pool, wired, events, now)
        said.append(answer.result)
    return said


async def plan_change(pool, wired, target, *, now=NOW):
    """A change of one meter without a campaign around it."""
    async with pool.connection() as conn:
        identity = await identity_store.lock_identity(conn, wired.meter_id)
        new = replace(identity.current, **target)
        return await key_change_store.insert_change(
            conn,
            meter_id=wired.meter_id,
            plan_id=None,
            old=identity.current,
            new=new,
            begun_by="salma",
            now=now,
        )


async def follow(pool, change, now):
    async with pool.connection() as conn:
        return await change_keys.follow_change(conn, change.id, now)


async def identity_of(pool, wired):
    async with pool.connection() as conn:
        return await identity_store.get_identity(conn, wired.meter_id)


def holds_issuing_key(wired, identity) -> bool:
    """Whether the meter can read what would be made for it now."""
    return wired.state.token.decoder_key == wired.vault.decoder_key_for(identity.key_identity())
