"""The STS identity of each meter in the database, and the one place where token identifiers are given out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

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

# A meter under its maker's or its stock key gets its own key at installation, before any credit.
STOCK_KEYS = frozenset({KeyType.DITK, KeyType.DDTK})
# The table keeps the year, the token engine its two-digit code.
BASE_DATES = {1993: BaseDate.Y1993, 2014: BaseDate.Y2014, 2035: BaseDate.Y2035}


@dataclass(frozen=True, slots=True)
class KeyFields:
    """What may change about a meter's key; `base_date` is the year."""

    sgc: str
    ti: str
    krn: int
    kt: int
    ken: int
    base_date: int

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> KeyFields:
        """Read the columns `old`, `new`, `key` or `pending`."""
        return cls(**{name: stored[name] for name in cls.__slots__})

    def stored(self) -> dict[str, Any]:
        """JSON-able, as those columns keep it."""
        return asdict(self)


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

    @property
    def key_change_id(self) -> UUID | None:
        """The change under way, under whose new key tokens are made; None when there is none."""
        return UUID(self.pending["change_id"]) if self.pending else None

    @property
    def current(self) -> KeyFields:
        """What the meter's proven key hangs on."""
        return KeyFields(self.sgc, self.ti, self.krn, self.kt, self.ken, self.base_date)

    @property
    def issuing(self) -> KeyFields:
        """What tokens are made under: the pending key while a change is under way, else the current one."""
        return KeyFields.of(self.pending) if self.pending else self.current

    @property
    def last_issuing_tid(self) -> int:
        """The last TID given out under the issuing key's base date (-1: none)."""
        if self.pending and self.pending["base_date"] != self.base_date:
            return int(self.pending["last_tid"])
        return self.last_tid

    def key_identity(self, base_date: int | None = None) -> MeterKeyIdentity:
        """The issuing key for the vault. Raises token_engine.errors.InvalidIdentity."""
        fields = self.issuing
        return self.identity_of(fields if base_date is None else replace(fields, base_date=base_date))

    def identity_of(self, fields: KeyFields) -> MeterKeyIdentity:
        """The meter under a key of these fields. Raises token_engine.errors.InvalidIdentity."""
        return MeterKeyIdentity(
            pan=MeterPan.of(self.iin, self.drn),
            sgc=fields.sgc,
            ti=int(fields.ti),
            krn=fields.krn,
            kt=KeyType(fields.kt),
            ken=fields.ken,
            ea=EncryptionAlgorithm(int(self.ea)),
            dkga=KeyGeneration(int(self.dkga)),
            base_date=BASE_DATES[fields.base_date],
        )


@dataclass(frozen=True, slots=True)
class AllocatedTid:
    """A TID that is this caller's for good, and the key that its token is made under.

    `base_date` is the year it counts from; `key_change_id` is set when the meter has yet to get that key.
    """

    base_date: int
    tid: int
    key: KeyFields
    key_change_id: UUID | None


_IDENTITY = (
    "SELECT i.meter_id, m.drn, i.iin, i.sgc, i.ti, i.krn, i.kt, i.ken, i.ea, i.dkga, i.base_date, i.last_tid,"
    " i.pending FROM billing.sts_identity i JOIN meter_gateway.v_meter m ON m.meter_id = i.meter_id"
    " WHERE i.meter_id = %s"
)


# A change that was withdrawn may have used TIDs of its base date: they stay used.
_LAST_TID_OF_BASE = """
    SELECT max(tid) FROM (
      SELECT tid FROM billing.vend WHERE meter_id = %(meter)s AND base_date = %(base)s
      UNION ALL SELECT tid FROM billing.engineering_reservation WHERE meter_id = %(meter)s AND base_date = %(base)s
      UNION ALL SELECT tid FROM billing.free_units_grant WHERE meter_id = %(meter)s AND base_date = %(base)s
      UNION ALL SELECT tid FROM billing.credit_carry WHERE new_meter_id = %(meter)s AND base_date = %(base)s) t
"""
_OPEN_ISSUE = """
    SELECT EXISTS (SELECT FROM billing.vend
                    WHERE meter_id = %(meter)s AND state IN ('PAID', 'REQUESTED', 'UNKNOWN'))
        OR EXISTS (SELECT FROM billing.engineering_reservation r
                    WHERE r.meter_id = %(meter)s
                      AND NOT EXISTS (SELECT FROM billing.engineering_refusal f WHERE f.id = r.id)
                      AND NOT EXISTS (SELECT FROM billing.token t WHERE t.request_id = 'engineering:' || r.id))
        OR EXISTS (SELECT FROM billing.credit_carry WHERE new_meter_id = %(meter)s AND state = 'RESERVED')
        OR EXISTS (SELECT FROM billing.free_units_grant g
                    WHERE g.meter_id = %(meter)s
                      AND NOT EXISTS (SELECT FROM billing.free_units_refusal f
                                       WHERE f.month = g.month AND f.meter_id = g.meter_id)
                      AND NOT EXISTS (SELECT FROM billing.token t
                      WHERE t.request_id = 'free:' || to_char(g.month, 'YYYY-MM') || ':' || g.meter_id))
"""


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
    last = identity.last_issuing_tid if identity.last_issuing_tid >= 0 else None
    fields = identity.issuing
    try:
        tid = next_tid(BASE_DATES[fields.base_date], now, last)
    except InvalidTid as error:
        raise InvalidVend("no_tid_left", str(error)) from None
    await mark_last_tid(conn, identity, tid)
    return AllocatedTid(fields.base_date, tid, fields, identity.key_change_id)


async def mark_last_tid(conn: psycopg.AsyncConnection, identity: StsIdentity, tid: int) -> None:
    """Note the last TID given out under the issuing key of a locked identity."""
    if identity.issuing.base_date == identity.base_date:
        query = "UPDATE billing.sts_identity SET last_tid = %s WHERE meter_id = %s"
    else:
        query = (
            "UPDATE billing.sts_identity SET pending = jsonb_set(pending, '{last_tid}', to_jsonb(%s::integer))"
            " WHERE meter_id = %s"
        )
    await conn.execute(query, (tid, identity.meter_id))


async def mark_pending(
    conn: psycopg.AsyncConnection, identity: StsIdentity, fields: KeyFields, change_id: UUID
) -> None:
    """From now on tokens of a locked identity are made under a new key, which its meter has yet to prove."""
    last_tid = -1
    if fields.base_date != identity.base_date:
        cursor = await conn.execute(_LAST_TID_OF_BASE, {"meter": identity.meter_id, "base": fields.base_date})
        row = await cursor.fetchone()
        last_tid = row[0] if row and row[0] is not None else -1
    await conn.execute(
        "UPDATE billing.sts_identity SET pending = %s WHERE meter_id = %s",
        (
            Jsonb({**fields.stored(), "change_id": str(change_id), "last_tid": last_tid}),
            identity.meter_id,
        ),
    )


async def mark_proven(conn: psycopg.AsyncConnection, identity: StsIdentity) -> None:
    """The pending key of a locked identity is the meter's key now; nothing happens when there is none."""
    fields = identity.issuing
    await conn.execute(
        "UPDATE billing.sts_identity SET sgc = %s, ti = %s, krn = %s, kt = %s, ken = %s, base_date = %s,"
        " last_tid = %s, pending = NULL WHERE meter_id = %s",
        (
            fields.sgc,
            fields.ti,
            fields.krn,
            fields.kt,
            fields.ken,
            fields.base_date,
            identity.last_issuing_tid,
            identity.meter_id,
        ),
    )


async def mark_refused(conn: psycopg.AsyncConnection, meter_id: int, *, refused: bool) -> None:
    """Whether the meter refuses the pending key: no more is sold to it until a person has decided."""
    await conn.execute(
        "UPDATE billing.sts_identity SET pending = jsonb_set(pending, '{refused}', to_jsonb(%s::boolean))"
        " WHERE meter_id = %s AND pending IS NOT NULL",
        (refused, meter_id),
    )


async def mark_withdrawn(conn: psycopg.AsyncConnection, meter_id: int) -> None:
    """Tokens are made under the current key again."""
    await conn.execute("UPDATE billing.sts_identity SET pending = NULL WHERE meter_id = %s", (meter_id,))


async def has_open_issue(conn: psycopg.AsyncConnection, meter_id: int) -> bool:
    """Whether a token of this meter is reserved and not made yet: its key must not change under it."""
    cursor = await conn.execute(_OPEN_ISSUE, {"meter": meter_id})
    row = await cursor.fetchone()
    return bool(row and row[0])


def check_can_vend(identity: StsIdentity, now: datetime) -> None:
    """Refuse before money moves what the vault would refuse after. Raises InvalidVend."""
    if identity.issuing.kt in STOCK_KEYS:
        raise InvalidVend("meter_not_commissioned", "this meter still has its stock key and takes no credit")
    if identity.pending and identity.pending.get("refused"):
        raise InvalidVend(
            "meter_key_refused", "this meter refuses its new key: a person must look at it first"
        )
    last = identity.last_issuing_tid
    try:
        meter = identity.key_identity()
        tid = next_tid(meter.base_date, now, last if last >= 0 else None)
    except (InvalidIdentity, InvalidTid, ValueError) as error:
        raise InvalidVend("meter_cannot_take_tokens", str(error)) from None
    if key_expired(tid, meter.ken):
        raise InvalidVend("meter_key_expired", "this meter's key has expired: it must be changed first")


async def find_usual_group(conn: psycopg.AsyncConnection, commodity: str) -> tuple[str, str] | None:
    """Return supply group code and tariff index that most meters of a commodity have; None where there are none."""
    cursor = await conn.execute(
        "SELECT i.sgc, i.ti FROM billing.sts_identity i JOIN meter_gateway.v_meter m ON m.meter_id = i.meter_id"
        " WHERE m.commodity = %s GROUP BY i.sgc, i.ti ORDER BY count(*) DESC, i.sgc, i.ti LIMIT 1",
        (commodity,),
    )
    row = await cursor.fetchone()
    return None if row is None else (str(row[0]), str(row[1]))
