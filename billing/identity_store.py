"""The STS identity of each meter in the database, and the one place where token identifiers are given out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from billing.errors import InvalidVend, NotFound
from token_engine.errors import InvalidIdentity, InvalidTid
from token_engine.identifiers import (
    BaseDate,
    EncryptionAlgorithm,
    KeyGeneration,
    KeyType,
    MeterKeyIdentity,
    MeterPan,
    key_expired,
    next_tid,
)

# The table keeps the year, the token engine its two-digit code.
BASE_DATES = {1993: BaseDate.Y1993, 2014: BaseDate.Y2014, 2035: BaseDate.Y2035}


@dataclass(frozen=True, slots=True)
class StsIdentity:
    """What decides a meter's decoder key, and the last TID given out (-1: none); `base_date` is the year."""

    meter_id: int
    drn: str
    iin: str
    sgc: str
    ti: str
    krn: int
    kt: int
    ken: int
    ea: str
    dkga: str
    base_date: int
    last_tid: int
    pending: dict[str, Any] | None

    def key_identity(self, base_date: int | None = None) -> MeterKeyIdentity:
        """The same for the vault. Raises token_engine.errors.InvalidIdentity."""
        return MeterKeyIdentity(
            pan=MeterPan.of(self.iin, self.drn),
            sgc=self.sgc,
            ti=int(self.ti),
            krn=self.krn,
            kt=KeyType(self.kt),
            ken=self.ken,
            ea=EncryptionAlgorithm(int(self.ea)),
            dkga=KeyGeneration(int(self.dkga)),
            base_date=BASE_DATES[base_date or self.base_date],
        )


@dataclass(frozen=True, slots=True)
class AllocatedTid:
    """A TID that is this caller's for good; `base_date` is the year it counts from."""

    base_date: int
    tid: int


_IDENTITY = (
    "SELECT i.meter_id, m.drn, i.iin, i.sgc, i.ti, i.krn, i.kt, i.ken, i.ea, i.dkga, i.base_date, i.last_tid,"
    " i.pending FROM billing.sts_identity i JOIN meter_gateway.v_meter m ON m.meter_id = i.meter_id"
    " WHERE i.meter_id = %s"
)


async def find_identity(conn: psycopg.AsyncConnection, meter_id: int) -> StsIdentity | None:
    """A meter's identity, None when it was never given one."""
    cursor = conn.cursor(row_factory=class_row(StsIdentity))
    return await (await cursor.execute(_IDENTITY, (meter_id,))).fetchone()


async def get_identity(conn: psycopg.AsyncConnection, meter_id: int) -> StsIdentity:
    """A meter's identity. Raises NotFound."""
    found = await find_identity(conn, meter_id)
    if found is None:
        raise NotFound("identity_not_found", "this meter has no STS identity")
    return found


async def lock_identity(conn: psycopg.AsyncConnection, meter_id: int) -> StsIdentity:
    """A meter's identity, held until this transaction ends: the meter's TIDs are given out in turn.

    Raises NotFound.
    """
    await conn.execute("SELECT 1 FROM billing.sts_identity WHERE meter_id = %s FOR UPDATE", (meter_id,))
    # Read after the lock is held, so that it is the newest.
    return await get_identity(conn, meter_id)


async def insert_identity(
    conn: psycopg.AsyncConnection,
    *,
    meter_id: int,
    iin: str,
    sgc: str,
    ti: str,
    krn: int,
    kt: int,
    ken: int,
    ea: str,
    dkga: str,
    base_date: int,
) -> StsIdentity:
    """Store a meter's identity; one that is there already is kept as it is."""
    await conn.execute(
        "INSERT INTO billing.sts_identity (meter_id, iin, sgc, ti, krn, kt, ken, ea, dkga, base_date)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (meter_id) DO NOTHING",
        (meter_id, iin, sgc, ti, krn, kt, ken, ea, dkga, base_date),
    )
    return await get_identity(conn, meter_id)


async def allocate_tid(conn: psycopg.AsyncConnection, meter_id: int, now: datetime) -> AllocatedTid:
    """Give out the meter's next TID, strictly above the last; a rollback gives it back.

    Raises NotFound, or InvalidVend (`no_tid_left`) past the last minute of the base date.
    """
    identity = await lock_identity(conn, meter_id)
    last = identity.last_tid if identity.last_tid >= 0 else None
    try:
        tid = next_tid(BASE_DATES[identity.base_date], now, last)
    except InvalidTid as error:
        raise InvalidVend("no_tid_left", str(error)) from None
    await conn.execute("UPDATE billing.sts_identity SET last_tid = %s WHERE meter_id = %s", (tid, meter_id))
    return AllocatedTid(identity.base_date, tid)


def check_can_vend(identity: StsIdentity, now: datetime) -> None:
    """Refuse before money moves what the vault would refuse after. Raises InvalidVend."""
    if identity.kt == KeyType.DDTK:
        raise InvalidVend("meter_not_commissioned", "this meter still has its stock key and takes no credit")
    try:
        meter = identity.key_identity()
        tid = next_tid(meter.base_date, now, identity.last_tid if identity.last_tid >= 0 else None)
    except (InvalidIdentity, InvalidTid, ValueError) as error:
        raise InvalidVend("meter_cannot_take_tokens", str(error)) from None
    if key_expired(tid, meter.ken):
        raise InvalidVend("meter_key_expired", "this meter's key has expired: it must be changed first")
