"""What was done to vending keys is written by two people, and stays."""

import psycopg
import pytest

from billing.key_custody_store import insert_custody
from tests.billing.world import NOW


async def write(conn, people):
    await insert_custody(
        conn,
        action="load",
        people=people,
        address=("201457", 1, 2, 2014),
        key_check_value="ABCDEF",
        generation=1,
        now=NOW,
    )


async def test_two_people_and_for_good(conn):
    await write(conn, ("huda", "salma"))
    for statement in ("UPDATE billing.key_custody SET generation = 2", "DELETE FROM billing.key_custody"):
        with pytest.raises(psycopg.errors.RestrictViolation):
            async with conn.transaction():
                await conn.execute(statement)
    with pytest.raises(psycopg.errors.CheckViolation):
        await write(conn, ("huda", "HUDA"))
