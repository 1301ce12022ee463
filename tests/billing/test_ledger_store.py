"""The journal on a real database: once for a key, balanced, and a customer's balances."""

import asyncio

import psycopg
import pytest

from billing import books_store, ledger, ledger_store
from billing.errors import IdempotencyConflict
from tests.billing.world import NOW, make_house, make_tariffs


@pytest.fixture
async def house(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        return await make_house(conn)


async def test_an_entry_is_stored_once_for_its_key(pool, house):
    entry = ledger.opening_entry(house.customer_id, 700, source="old")
    async with pool.connection() as conn:
        first = await ledger_store.insert_entry(conn, entry, now=NOW)
        assert await ledger_store.insert_entry(conn, entry, now=NOW) == first
        other = ledger.opening_entry(house.customer_id, 701, source="old")
        with pytest.raises(IdempotencyConflict):
            await ledger_store.insert_entry(conn, other, now=NOW)
        assert tuple(await ledger_store.list_postings(conn, first)) == entry.postings
        (row,) = await ledger_store.list_entries_of(conn, "old")
        assert (row.id, row.kind, row.occurred_at) == (first, "opening", NOW)
        assert await ledger_store.get_debt_minor(conn, house.customer_id) == 700
        assert await ledger_store.get_change_minor(conn, house.customer_id) == 0
        assert await ledger_store.get_balance_minor(conn, ledger.OPENING_BALANCE) == -700
        assert await ledger_store.get_debt_minor(conn, house.customer_id + 1) == 0
        assert await books_store.list_imbalances(conn) == []


async def test_the_same_entry_at_once_is_one_entry(pool, house):
    entry = ledger.opening_entry(house.customer_id, 700, source="old")

    async def store():
        async with pool.connection() as conn:
            return await ledger_store.insert_entry(conn, entry, now=NOW)

    assert len(set(await asyncio.gather(*(store() for _ in range(5))))) == 1
    async with pool.connection() as conn:
        assert await ledger_store.get_debt_minor(conn, house.customer_id) == 700


async def test_the_database_itself_refuses_what_does_not_balance(pool, house):
    with pytest.raises(psycopg.errors.CheckViolation):
        async with pool.connection() as conn:
            row = await (
                await conn.execute(
                    "INSERT INTO billing.journal (kind, idempotency_key, reference, occurred_at)"
                    " VALUES ('payment', 'k', 'r', now()) RETURNING id"
                )
            ).fetchone()
            await conn.execute("INSERT INTO billing.posting VALUES (%s, 1, 'vat_payable', NULL, 5)", row)


async def test_two_sales_wait_for_each_other_over_one_debt(pool, house):
    async with pool.connection() as conn, pool.connection() as rival:
        await ledger_store.lock_debt_minor(conn, house.customer_id)
        waiting = asyncio.create_task(ledger_store.lock_debt_minor(rival, house.customer_id))
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done
        entry = ledger.opening_entry(house.customer_id, 700, source="old")
        await ledger_store.insert_entry(conn, entry, now=NOW)
        await conn.commit()
        assert await waiting == 700
