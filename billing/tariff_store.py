"""Tariff versions in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from billing.errors import NotFound
from billing.quantity import BASE_UNITS_PER_TENTH
from billing.tariff import Block, Tariff, read_blocks

_TARIFF = (
    "SELECT id, code, version, commodity, name_en, name_ar, blocks, vat_basis_points, arrears_cap_percent,"
    " minimum_minor, maximum_minor FROM billing.tariff"
)


def _tariff(**row: Any) -> Tariff:
    return Tariff(**{**row, "blocks": read_blocks(row["commodity"], row["blocks"])})


async def get_tariff(conn: psycopg.AsyncConnection, tariff_id: int) -> Tariff:
    """The tariff version of this id. Raises NotFound."""
    cursor = conn.cursor(row_factory=kwargs_row(_tariff))
    row = await (await cursor.execute(f"{_TARIFF} WHERE id = %s", (tariff_id,))).fetchone()
    if row is None:
        raise NotFound("tariff_not_found", "no such tariff")
    return row


async def get_tariff_at(conn: psycopg.AsyncConnection, code: str, now: datetime) -> Tariff:
    """The version of a tariff that is valid at `now`. Raises NotFound."""
    cursor = conn.cursor(row_factory=kwargs_row(_tariff))
    await cursor.execute(
        f"{_TARIFF} WHERE code = %s AND valid_from <= %s ORDER BY valid_from DESC, version DESC LIMIT 1",
        (code, now),
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("tariff_not_found", f"tariff {code} has no version that is valid now")
    return row


async def list_tariffs(conn: psycopg.AsyncConnection) -> list[Tariff]:
    """Every version of every tariff, newest first within a code."""
    cursor = conn.cursor(row_factory=kwargs_row(_tariff))
    return await (await cursor.execute(f"{_TARIFF} ORDER BY code, version DESC")).fetchall()


async def insert_tariff(
    conn: psycopg.AsyncConnection,
    *,
    code: str,
    version: int,
    commodity: str,
    valid_from: datetime,
    name_en: str,
    name_ar: str,
    blocks: Sequence[Block],
    vat_basis_points: int,
    arrears_cap_percent: int,
    minimum_minor: int,
    maximum_minor: int,
) -> Tariff:
    """Store a new version. Raises BooksBroken for blocks that do not ascend to an open end."""
    per_tenth = BASE_UNITS_PER_TENTH[commodity]
    rows = [
        {
            "up_to": None if block.up_to_tenths is None else block.up_to_tenths * per_tenth,
            "rate_micro": block.rate_micro,
        }
        for block in blocks
    ]
    cursor = await conn.execute(
        "INSERT INTO billing.tariff (code, version, commodity, valid_from, name_en, name_ar, blocks,"
        " vat_basis_points, arrears_cap_percent, minimum_minor, maximum_minor)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (
            code,
            version,
            commodity,
            valid_from,
            name_en,
            name_ar,
            Jsonb(rows),
            vat_basis_points,
            arrears_cap_percent,
            minimum_minor,
            maximum_minor,
        ),
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("tariff_not_found", "the tariff was not stored")
    return await get_tariff(conn, int(row[0]))
