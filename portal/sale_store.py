"""Sales as pages show them, read from the published views of billing and of the meters.

`customer_id` in a read is the viewer's scope and part of the WHERE: a subscriber's own id, None for staff.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg.rows import class_row, kwargs_row

from billing.errors import NotFound
from billing.quote_store import read_steps
from portal import message_store
from portal.sale import Balance, CommandStep, Evidence, MeterFact, RelayReading, Sale, SaleRow, derive

# A meter that took longer than this to speak is looked at by a person, not by every page.
EVIDENCE_WINDOW = timedelta(days=7)
# A meter's clock may run behind ours: what it reports of this token is still about this token.
CLOCK_SLACK = timedelta(hours=1)
# Enough for a week of half-hourly readings and a busy keypad.
MAX_FACTS = 200
MAX_BALANCES = 400
LIST_LIMIT = 50

_SALE = """
    SELECT s.vend_id, s.vend_state, s.meter_id, m.drn, m.commodity, m.link, s.tid, s.base_date, s.receipt_number,
           s.quote_id, s.customer_id, s.customer_agreement_id, s.amount_minor, s.arrears_minor, s.vat_minor,
           s.energy_minor, s.change_minor, s.units_tenths, s.steps, s.quoted_at, s.payment_id, s.payment_state,
           s.provider, s.payment_created_at, s.settled_at, s.paid_at, s.requested_at, s.vended_at, s.token_id,
           s.digits, s.issued_at,
           ARRAY(SELECT f.digits FROM billing.v_first_token f WHERE f.vend_id = s.vend_id ORDER BY f.place)
             AS first_tokens,
           (SELECT h.state FROM billing.v_held_token h WHERE h.vend_id = s.vend_id) AS held_state
      FROM billing.v_sale s JOIN meter_gateway.v_meter m ON m.meter_id = s.meter_id
"""


def _row(**row: Any) -> SaleRow:
    return SaleRow(**{**row, "steps": read_steps(row["steps"]), "first_tokens": tuple(row["first_tokens"])})


@dataclass(frozen=True, slots=True)
class MeterLink:
    """How a meter can be reached: `link` is mqtt, modbus or keypad."""

    drn: str
    link: str


async def get_meter_link(conn: psycopg.AsyncConnection, meter_id: int) -> MeterLink:
    """A meter's number and link. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(MeterLink))
    await cursor.execute("SELECT drn, link FROM meter_gateway.v_meter WHERE meter_id = %s", (meter_id,))
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("meter_not_found", "no such meter")
    return row


async def get_sale(conn: psycopg.AsyncConnection, *, vend_id: UUID, customer_id: int | None) -> Sale:
    """A sale with its progress. Raises NotFound, for another customer's too."""
    return await _get_one(conn, "s.vend_id", vend_id, customer_id)


async def get_sale_of_payment(
    conn: psycopg.AsyncConnection, *, payment_id: UUID, customer_id: int | None
) -> Sale:
    """The sale that a payment is for. Raises NotFound, for another customer's too."""
    return await _get_one(conn, "s.payment_id", payment_id, customer_id)


async def _get_one(
    conn: psycopg.AsyncConnection,
    column: Literal["s.vend_id", "s.payment_id"],
    value: UUID,
    customer_id: int | None,
) -> Sale:
    """The one place that scopes a single sale to its customer; None is an office's view."""
    cursor = conn.cursor(row_factory=kwargs_row(_row))
    await cursor.execute(
        f"{_SALE} WHERE {column} = %s AND (%s::bigint IS NULL OR s.customer_id = %s)",
        (value, customer_id, customer_id),
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("sale_not_found", "no such sale")
    return await _with_progress(conn, row)


async def list_sales(
    conn: psycopg.AsyncConnection,
    *,
    customer_id: int | None = None,
    meter_id: int | None = None,
    limit: int = LIST_LIMIT,
) -> list[Sale]:
    """Sales that somebody began to pay for, newest first: of a customer, of a meter, or of both.

    Raises ValueError when neither is given.
    """
    if customer_id is None and meter_id is None:
        raise ValueError("list the sales of a customer or of a meter")
    cursor = conn.cursor(row_factory=kwargs_row(_row))
    await cursor.execute(
        f"{_SALE} WHERE s.payment_id IS NOT NULL AND (%s::bigint IS NULL OR s.customer_id = %s)"
        " AND (%s::bigint IS NULL OR s.meter_id = %s) ORDER BY s.payment_created_at DESC LIMIT %s",
        (customer_id, customer_id, meter_id, meter_id, limit),
    )
    return [await _with_progress(conn, row) for row in await cursor.fetchall()]


async def find_last_sale(conn: psycopg.AsyncConnection, *, meter_id: int) -> Sale | None:
    """The newest sale of a meter that somebody began to pay for."""
    sales = await list_sales(conn, meter_id=meter_id, limit=1)
    return sales[0] if sales else None


async def _with_progress(conn: psycopg.AsyncConnection, row: SaleRow) -> Sale:
    return Sale(row, derive(row, await _evidence(conn, row)))


@dataclass(frozen=True, slots=True)
class _Command:
    id: int
    state: str


async def _evidence(conn: psycopg.AsyncConnection, row: SaleRow) -> Evidence:
    if row.vended_at is None:
        return Evidence()
    until = row.vended_at + EVIDENCE_WINDOW
    commands = conn.cursor(row_factory=class_row(_Command))
    await commands.execute(
        "SELECT id, state FROM meter_gateway.v_meter_command WHERE idempotency_key = %s",
        (f"vend:{row.vend_id}",),
    )
    command = await commands.fetchone()
    message = await message_store.find_message(conn, f"token:{row.vend_id}")
    evidence = Evidence(
        command_state=command.state if command else None,
        command_steps=await _command_steps(conn, command.id) if command else (),
        meter_facts=await _meter_facts(conn, row, until),
        message_at=message.created_at if message else None,
        message_sent_at=message.sent_at if message else None,
    )
    if row.link == "keypad":
        return evidence
    evidence = replace(
        evidence,
        relays=await _relays(conn, row.meter_id, row.vended_at, until),
        relay_now=await _relay_now(conn, row),
    )
    if derive(row, evidence).evidence is not None:
        return evidence
    # The meter said nothing of the token itself: look into its balance.
    return replace(evidence, balances=await _balances(conn, row.meter_id, row.vended_at, until))


async def _command_steps(conn: psycopg.AsyncConnection, command_id: int) -> list[CommandStep]:
    cursor = conn.cursor(row_factory=class_row(CommandStep))
    await cursor.execute(
        "SELECT state, occurred_at, detail FROM meter_gateway.v_meter_command_step WHERE command_id = %s"
        " ORDER BY id LIMIT %s",
        (command_id, MAX_FACTS),
    )
    return await cursor.fetchall()


async def _meter_facts(conn: psycopg.AsyncConnection, row: SaleRow, until: datetime) -> list[MeterFact]:
    cursor = conn.cursor(row_factory=class_row(MeterFact))
    await cursor.execute(
        "SELECT code, occurred_at, detail FROM meter_gateway.v_meter_event WHERE meter_id = %s"
        " AND occurred_at >= %s AND occurred_at < %s"
        " AND (code = 'raseed.relay' OR (code = 'raseed.token' AND detail ->> 'tid' = %s))"
        " ORDER BY occurred_at LIMIT %s",
        (row.meter_id, (row.paid_at or row.quoted_at) - CLOCK_SLACK, until, str(row.tid), MAX_FACTS),
    )
    return await cursor.fetchall()


async def _balances(
    conn: psycopg.AsyncConnection, meter_id: int, vended_at: datetime, until: datetime
) -> Sequence[Balance]:
    """Credit and counter that were read at the same instant, beginning with the last before the token."""
    cursor = conn.cursor(row_factory=class_row(Balance))
    await cursor.execute(
        "WITH pair AS (SELECT c.occurred_at, c.value AS credit, k.value AS counter"
        " FROM meter_gateway.v_reading c JOIN meter_gateway.v_reading k ON k.meter_id = c.meter_id"
        " AND k.occurred_at = c.occurred_at AND k.channel = 'counter'"
        " WHERE c.meter_id = %(meter)s AND c.channel = 'credit' AND c.quality <> 'suspect'"
        " AND c.occurred_at >= %(from)s AND c.occurred_at < %(until)s)"
        " SELECT * FROM ((SELECT * FROM pair WHERE occurred_at < %(vended)s ORDER BY occurred_at DESC LIMIT 1)"
        " UNION ALL (SELECT * FROM pair WHERE occurred_at >= %(vended)s ORDER BY occurred_at LIMIT %(limit)s)) b"
        " ORDER BY occurred_at",
        {
            "meter": meter_id,
            "from": vended_at - timedelta(days=1),
            "until": until,
            "vended": vended_at,
            "limit": MAX_BALANCES,
        },
    )
    return await cursor.fetchall()


async def _relays(
    conn: psycopg.AsyncConnection, meter_id: int, vended_at: datetime, until: datetime
) -> Sequence[RelayReading]:
    """The relay as read last before the token and first after it, open and closed."""
    cursor = conn.cursor(row_factory=class_row(RelayReading))
    await cursor.execute(
        "WITH r AS (SELECT occurred_at, value::integer AS relay FROM meter_gateway.v_reading"
        " WHERE meter_id = %(meter)s AND channel = 'relay'"
        " AND occurred_at >= %(from)s AND occurred_at < %(until)s)"
        " SELECT * FROM ((SELECT * FROM r WHERE occurred_at < %(vended)s ORDER BY occurred_at DESC LIMIT 1)"
        " UNION ALL (SELECT * FROM r WHERE occurred_at >= %(vended)s ORDER BY occurred_at LIMIT %(limit)s)) b"
        " ORDER BY occurred_at",
        {
            "meter": meter_id,
            "from": vended_at - timedelta(days=1),
            "until": until,
            "vended": vended_at,
            "limit": MAX_BALANCES,
        },
    )
    return await cursor.fetchall()


async def _relay_now(conn: psycopg.AsyncConnection, row: SaleRow) -> int | None:
    """The relay as last reported, if that was after the token was issued."""
    cursor = await conn.execute(
        "SELECT relay FROM meter_gateway.v_meter WHERE meter_id = %s AND state_at >= %s",
        (row.meter_id, row.vended_at),
    )
    found = await cursor.fetchone()
    return None if found is None else found[0]
