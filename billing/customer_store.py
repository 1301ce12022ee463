"""Customers and their agreements in the database."""

from __future__ import annotations

import psycopg
from psycopg.rows import class_row

from billing.customer import Agreement, Customer
from billing.errors import NotFound

_CUSTOMER = "SELECT id, code, name_en, name_ar, phone, language FROM billing.customer"
_AGREEMENT = (
    "SELECT customer_agreement_id, customer_id, usage_point_id, tariff_code, meter_id, drn, commodity"
    " FROM billing.v_agreement"
)


async def get_customer(conn: psycopg.AsyncConnection, customer_id: int) -> Customer:
    """The customer of this id. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Customer))
    row = await (await cursor.execute(f"{_CUSTOMER} WHERE id = %s", (customer_id,))).fetchone()
    if row is None:
        raise NotFound("customer_not_found", "no such customer")
    return row


async def find_customer_by_phone(conn: psycopg.AsyncConnection, phone: str) -> Customer | None:
    """The customer who has this phone number (as parse_phone writes it)."""
    cursor = conn.cursor(row_factory=class_row(Customer))
    return await (await cursor.execute(f"{_CUSTOMER} WHERE phone = %s", (phone,))).fetchone()


async def insert_customer(
    conn: psycopg.AsyncConnection, *, code: str, name_en: str, name_ar: str, phone: str, language: str
) -> Customer:
    """Store a new customer. Raises psycopg.errors.UniqueViolation when code or phone is taken."""
    cursor = conn.cursor(row_factory=class_row(Customer))
    await cursor.execute(
        "INSERT INTO billing.customer (code, name_en, name_ar, phone, language) VALUES (%s, %s, %s, %s, %s)"
        " RETURNING id, code, name_en, name_ar, phone, language",
        (code, name_en, name_ar, phone, language),
    )
    return await _only(cursor)


async def insert_agreement(
    conn: psycopg.AsyncConnection,
    *,
    customer_id: int,
    usage_point_id: int,
    tariff_code: str,
    valid_from: object,
) -> int:
    """Open a customer's agreement on a usage point from an aware instant; gives its id."""
    cursor = await conn.execute(
        "INSERT INTO billing.customer_agreement (customer_id, usage_point_id, tariff_code, valid_from)"
        " VALUES (%s, %s, %s, %s) RETURNING id",
        (customer_id, usage_point_id, tariff_code, valid_from),
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("agreement_not_stored", "the agreement was not stored")
    return int(row[0])


async def list_agreements(conn: psycopg.AsyncConnection, customer_id: int) -> list[Agreement]:
    """A customer's open agreements that have a meter, by meter number."""
    cursor = conn.cursor(row_factory=class_row(Agreement))
    await cursor.execute(
        f"{_AGREEMENT} WHERE customer_id = %s AND meter_id IS NOT NULL ORDER BY drn", (customer_id,)
    )
    return await cursor.fetchall()


async def find_agreement(
    conn: psycopg.AsyncConnection, *, customer_id: int, meter_drn: str
) -> Agreement | None:
    """The open agreement of this customer on this meter; None for a meter that is another's or nobody's."""
    cursor = conn.cursor(row_factory=class_row(Agreement))
    await cursor.execute(f"{_AGREEMENT} WHERE customer_id = %s AND drn = %s", (customer_id, meter_drn))
    return await cursor.fetchone()


async def _only(cursor: psycopg.AsyncCursor[Customer]) -> Customer:
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("customer_not_found", "no such customer")
    return row
