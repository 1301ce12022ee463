"""Quotes in the database: what was shown to the customer, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from billing.errors import NotFound
from billing.tariff import Step


@dataclass(frozen=True, slots=True)
class Quote:
    """One quote: baisa, tenths of kWh or m3, and the steps of the arithmetic; times aware UTC."""

    id: UUID
    customer_agreement_id: int
    customer_id: int
    meter_id: int
    tariff_id: int
    commodity: str
    amount_minor: int
    arrears_minor: int
    vat_minor: int
    energy_minor: int
    change_minor: int
    units_tenths: int
    steps: tuple[Step, ...]
    created_at: datetime
    expires_at: datetime
    vend_id: UUID


_QUOTE = (
    "SELECT q.id, q.customer_agreement_id, a.customer_id, q.meter_id, q.tariff_id, t.commodity,"
    " q.amount_minor, q.arrears_minor, q.vat_minor, q.energy_minor, q.change_minor, q.units_tenths,"
    " q.steps, q.created_at, q.expires_at, v.id AS vend_id FROM billing.quote q"
    " JOIN billing.vend v ON v.quote_id = q.id JOIN billing.customer_agreement a ON a.id = q.customer_agreement_id"
    " JOIN billing.tariff t ON t.id = q.tariff_id"
)


def read_steps(rows: Sequence[dict[str, int]]) -> tuple[Step, ...]:
    """Steps as the quote table keeps them."""
    return tuple(Step(**row) for row in rows)


def _quote(**row: Any) -> Quote:
    return Quote(**{**row, "steps": read_steps(row["steps"])})


async def get_quote(conn: psycopg.AsyncConnection, quote_id: UUID) -> Quote:
    """The quote of this id. Raises NotFound."""
    cursor = conn.cursor(row_factory=kwargs_row(_quote))
    row = await (await cursor.execute(f"{_QUOTE} WHERE q.id = %s", (quote_id,))).fetchone()
    if row is None:
        raise NotFound("quote_not_found", "no such quote")
    return row


async def get_quote_of_customer(conn: psycopg.AsyncConnection, quote_id: UUID, *, customer_id: int) -> Quote:
    """A quote of this customer. Raises NotFound, for another customer's too."""
    cursor = conn.cursor(row_factory=kwargs_row(_quote))
    await cursor.execute(f"{_QUOTE} WHERE q.id = %s AND a.customer_id = %s", (quote_id, customer_id))
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("quote_not_found", "no such quote")
    return row


async def insert_quote(
    conn: psycopg.AsyncConnection,
    *,
    customer_agreement_id: int,
    meter_id: int,
    tariff_id: int,
    amount_minor: int,
    arrears_minor: int,
    vat_minor: int,
    energy_minor: int,
    change_minor: int,
    units_tenths: int,
    steps: Sequence[Step],
    now: datetime,
    expires_at: datetime,
) -> UUID:
    """Store a quote, whose vend the same transaction must add; gives its id."""
    cursor = await conn.execute(
        "INSERT INTO billing.quote (customer_agreement_id, meter_id, tariff_id, amount_minor, arrears_minor,"
        " vat_minor, energy_minor, change_minor, units_tenths, steps, created_at, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (
            customer_agreement_id,
            meter_id,
            tariff_id,
            amount_minor,
            arrears_minor,
            vat_minor,
            energy_minor,
            change_minor,
            units_tenths,
            Jsonb([asdict(step) for step in steps]),
            now,
            expires_at,
        ),
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("quote_not_found", "the quote was not stored")
    return UUID(str(row[0]))


async def get_month_to_date_tenths(
    conn: psycopg.AsyncConnection, meter_id: int, *, since: datetime, until: datetime
) -> int:
    """Tenths of a unit sold to a meter in [since, until): paid for, and issued or still owed."""
    cursor = await conn.execute(
        "SELECT coalesce(sum(q.units_tenths), 0)::bigint FROM billing.vend v"
        " JOIN billing.quote q ON q.id = v.quote_id"
        " WHERE v.meter_id = %s AND v.state IN ('PAID', 'REQUESTED', 'UNKNOWN', 'VENDED')"
        " AND v.paid_at >= %s AND v.paid_at < %s",
        (meter_id, since, until),
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def get_promised_arrears_minor(conn: psycopg.AsyncConnection, customer_id: int) -> int:
    """Arrears in baisa that this customer's running payments and unfinished vends will take already."""
    cursor = await conn.execute(
        "SELECT coalesce(sum(q.arrears_minor), 0)::bigint FROM billing.vend v"
        " JOIN billing.quote q ON q.id = v.quote_id"
        " JOIN billing.customer_agreement a ON a.id = q.customer_agreement_id"
        " LEFT JOIN billing.payment p ON p.id = v.payment_id"
        " WHERE a.customer_id = %s AND (v.state IN ('PAID', 'REQUESTED', 'UNKNOWN')"
        " OR (v.state = 'QUOTED' AND p.state IN ('CREATED', 'PENDING')))",
        (customer_id,),
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
