"""SQL of the agent's desk: find customers and meters, show masked tokens, write down who saw one whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from portal.formats import latin_digits

SEARCH_LIMIT = 20  # more hits than this call for another letter, not for scrolling
MAX_SEARCH = 80
MAX_WORDS = 5
TOKENS_SHOWN = 5
# Arabic names are typed with and without their hamza, dots and stretches: both sides are folded alike.
# The last one, the stretch, has no counterpart: it is dropped.
_FOLD_FROM, _FOLD_TO = "أإآٱىةؤئـ", "اااايهوي"
_FOLDING = str.maketrans(_FOLD_FROM[:-1], _FOLD_TO, _FOLD_FROM[-1])

Conn = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class DeskCustomer:
    """A customer as the desk shows them; `meters` are the numbers of their meters."""

    id: int
    code: str
    name_en: str
    name_ar: str
    phone: str
    language: str
    meters: list[str]
    open_tickets: int


@dataclass(frozen=True, slots=True)
class DeskMeter:
    """A meter with its live state, place and customer; Wh, W or mL, mL/h."""

    meter_id: int
    drn: str
    commodity: str
    model: str
    link: str
    profile: str | None
    site: str | None
    bus: str | None
    unit_id: int | None
    usage_point: str | None
    network_name_en: str | None
    network_name_ar: str | None
    address_en: str | None
    address_ar: str | None
    installed_at: datetime | None
    last_seen_at: datetime | None
    link_up: bool
    supply_on: bool | None
    credit: int | None
    counter: int | None
    relay: int | None
    relay_reason: str | None
    load: int | None
    tamper: bool
    state_at: datetime | None
    customer_id: int | None


@dataclass(frozen=True, slots=True)
class DeskToken:
    """A token of the register; show it through `timeline.mask_token` unless its reveal was written down."""

    token_id: int
    meter_id: int
    drn: str
    commodity: str
    digits: str
    units_tenths: int | None
    purpose: str
    issued_at: datetime

    def __repr__(self) -> str:
        """Without the digits."""
        return f"<DeskToken {self.token_id} of meter {self.meter_id}>"


_CUSTOMER = """
SELECT c.id, c.code, c.name_en, c.name_ar, c.phone, c.language,
       coalesce((SELECT array_agg(a.drn ORDER BY a.drn) FROM billing.v_agreement a
                  WHERE a.customer_id = c.id AND a.drn IS NOT NULL), '{}') AS meters,
       (SELECT count(*) FROM portal.ticket t WHERE t.customer_id = c.id AND t.state <> 'resolved')::int
         AS open_tickets
  FROM billing.v_customer c
"""
_METER = """
SELECT m.meter_id, m.drn, m.commodity, m.model, m.link, m.profile, m.site, m.bus, m.unit_id, m.usage_point,
       m.network_name_en, m.network_name_ar, m.address_en, m.address_ar, m.installed_at, m.last_seen_at,
       m.link_up, m.supply_on, m.credit, m.counter, m.relay, m.relay_reason, m.load, m.tamper, m.state_at,
       a.customer_id
  FROM meter_gateway.v_meter m LEFT JOIN billing.v_agreement a ON a.meter_id = m.meter_id
"""
_REGISTER = """
SELECT t.token_id, t.meter_id, m.drn, m.commodity, t.digits, t.units_tenths, t.purpose, t.issued_at
  FROM billing.v_token t JOIN meter_gateway.v_meter m ON m.meter_id = t.meter_id
"""


def fold(text: str) -> str:
    """A name as it is compared: small letters, Latin digits, Arabic letters without their variants."""
    return latin_digits(text).casefold().translate(_FOLDING)


async def search_customers(conn: Conn, text: str) -> list[DeskCustomer]:
    """Customers by phone, meter, code or name in either script, best known order: by name."""
    folded = fold(text[:MAX_SEARCH]).strip()
    digits = "".join(char for char in folded if char.isdigit())
    letters = any(char.isalpha() for char in folded)
    if not letters and len(digits) >= 4:
        condition = """WHERE replace(c.phone, '+', '') LIKE '%%' || %(digits)s
             OR EXISTS (SELECT FROM billing.v_agreement a WHERE a.customer_id = c.id
                         AND a.drn LIKE '%%' || %(digits)s || '%%')"""
    elif letters:
        condition = """WHERE lower(c.code) = %(whole)s
             OR (SELECT bool_and(position(word IN lower(c.name_en)) > 0
                              OR position(word IN translate(c.name_ar, %(from)s, %(to)s)) > 0)
                   FROM unnest(%(words)s::text[]) word)"""
    else:
        return []
    async with conn.cursor(row_factory=class_row(DeskCustomer)) as cur:
        await cur.execute(
            (_CUSTOMER + condition + " ORDER BY c.name_en, c.id LIMIT %(limit)s").encode(),
            {
                "digits": digits,
                "whole": folded,
                "words": folded.split()[:MAX_WORDS],
                "from": _FOLD_FROM,
                "to": _FOLD_TO,
                "limit": SEARCH_LIMIT,
            },
        )
        return await cur.fetchall()


async def find_customer(conn: Conn, customer_id: int) -> DeskCustomer | None:
    """The customer of an id."""
    async with conn.cursor(row_factory=class_row(DeskCustomer)) as cur:
        await cur.execute((_CUSTOMER + "WHERE c.id = %s").encode(), (customer_id,))
        return await cur.fetchone()


async def list_customer_meters(conn: Conn, customer_id: int) -> list[DeskMeter]:
    """The meters of a customer's agreements."""
    async with conn.cursor(row_factory=class_row(DeskMeter)) as cur:
        await cur.execute((_METER + "WHERE a.customer_id = %s ORDER BY m.drn").encode(), (customer_id,))
        return await cur.fetchall()


async def find_meter(conn: Conn, drn: str) -> DeskMeter | None:
    """The meter of a number, installed or in stock."""
    async with conn.cursor(row_factory=class_row(DeskMeter)) as cur:
        await cur.execute((_METER + "WHERE m.drn = %s").encode(), (drn,))
        return await cur.fetchone()


async def list_tokens(conn: Conn, meter_ids: list[int]) -> list[DeskToken]:
    """The newest tokens of some meters."""
    async with conn.cursor(row_factory=class_row(DeskToken)) as cur:
        await cur.execute(
            (_REGISTER + "WHERE t.meter_id = ANY(%s) ORDER BY t.issued_at DESC LIMIT %s").encode(),
            (meter_ids, TOKENS_SHOWN),
        )
        return await cur.fetchall()


async def find_token(conn: Conn, token_id: int) -> DeskToken | None:
    """A token of the register."""
    async with conn.cursor(row_factory=class_row(DeskToken)) as cur:
        await cur.execute((_REGISTER + "WHERE t.token_id = %s").encode(), (token_id,))
        return await cur.fetchone()


async def insert_reveal(conn: Conn, *, token_id: int, login_id: int, reason: str, at: datetime) -> None:
    """Write down who saw a token whole, and why."""
    await conn.execute(
        """INSERT INTO portal.token_reveal (token_id, login_id, reason, occurred_at)
           VALUES (%s, %s, %s, %s)""",
        (token_id, login_id, reason, at),
    )
