"""The worker as it runs: a job at once, a kill in the middle, a database that throws it out, a clean stop."""

import asyncio
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from billing import reconcile
from portal import message_store, worker
from portal.vitals import RoundCounts
from tests.billing.world import make_house, make_tariffs, make_vault
from tests.portal.sales import LossyVault, buy, event_of, one, settle
from token_engine.software_vault import write_key_file

NOBODY = "http://127.0.0.1:9"  # the discard port: a provider that is away


@pytest.fixture
async def house(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        return await make_house(conn)


async def sell_one(pool, house):
    quote, payment = await buy(pool, house, now=datetime.now(UTC))
    await settle(pool, event_of(payment), now=datetime.now(UTC))
    return quote.vend_id


async def until(check, timeout_s=15.0):
    async with asyncio.timeout(timeout_s):
        while not await check():
            await asyncio.sleep(0.05)


def vended(pool, vend_id):
    async def check():
        return await one(pool, "SELECT state FROM billing.vend WHERE id = %s", vend_id) == "VENDED"

    return check


class Running:
    """A worker in this process."""

    def __init__(self, database_url, vault):
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(
            worker.work(
                self.stop,
                database_url=database_url,
                vault=vault,
                provider_url=NOBODY,
                provider_secret="s",
                outage_debounce_s=60,
            )
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_error):
        self.stop.set()
        async with asyncio.timeout(10):
            await self.task


async def test_a_paid_vend_is_delivered_by_its_job_at_once(pool, database_url, house):
    async with Running(database_url, make_vault()):
        first = await sell_one(pool, house)
        await until(vended(pool, first))

        async def sent():
            return await one(pool, "SELECT count(*) FROM portal.message WHERE sent_at IS NOT NULL") == 1

        await until(sent)
        vend_id = await sell_one(pool, house)
        began = asyncio.get_running_loop().time()
        await until(vended(pool, vend_id))
        assert asyncio.get_running_loop().time() - began < 2.5  # woken, not found by the sweep
    assert await one(pool, "SELECT count(*) FROM public.procrastinate_jobs WHERE status <> 'succeeded'") == 0


class HangingVault:
    """Takes every question and answers none."""

    async def fetch_result(self, _request_id):
        await asyncio.Event().wait()

    issue_credit = fetch_result


async def test_a_message_does_not_wait_behind_a_vault_that_hangs(pool, database_url, house):
    for _ in range(4):  # five seconds each before their silence counts as unknown
        await sell_one(pool, house)
    async with pool.connection() as conn:
        await conn.execute("UPDATE public.procrastinate_jobs SET status = 'doing'")
        await conn.execute(
            "UPDATE billing.vend SET state = 'REQUESTED', attempts = 1, requested_at = now() - interval '1 hour'"
        )

    async def asked():
        return await one(pool, "SELECT count(*) FROM billing.vend WHERE attempts > 1") > 0

    async def sent():
        return await one(pool, "SELECT sent_at FROM portal.message") is not None

    async with Running(database_url, HangingVault()):
        await until(asked)
        async with pool.connection() as conn:
            await message_store.insert_message(
                conn,
                idempotency_key="code",
                customer_id=None,
                phone="+96891234567",
                kind="one_time_code",
                language="en",
                body="123456",
                now=datetime.now(UTC),
            )
        await until(sent, timeout_s=8)


async def test_two_workers_share_the_work_without_doubles(pool, database_url, house):
    vault = LossyVault(make_vault(), ["silent", "lost"])
    async with Running(database_url, vault), Running(database_url, vault):
        vends = [await sell_one(pool, house) for _ in range(6)]
        for vend_id in vends:
            await until(vended(pool, vend_id))
    assert await one(pool, "SELECT count(*) FROM billing.token") == 6
    async with pool.connection() as conn:
        assert await reconcile.list_imbalances(conn) == []


async def test_a_database_that_throws_it_out_gets_it_back(pool, database_url, house, caplog):
    caplog.set_level(logging.WARNING)
    async with Running(database_url, make_vault()):
        await until(vended(pool, await sell_one(pool, house)))
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await asyncio.sleep(0.3)
        await pool.check()
        await until(vended(pool, await sell_one(pool, house)))


_ROLE = """
import asyncio, sys
from portal import worker
asyncio.run(worker.run(database_url=sys.argv[1], vault_file=sys.argv[2], secret_key="k" * 32,
    provider_url="http://127.0.0.1:9", provider_secret="s", public_url="http://us", outage_debounce_s=60.0))
"""


async def start_role(database_url, vault_file: Path):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ROLE, database_url, str(vault_file), env={**os.environ}
    )


async def test_the_role_is_killed_and_its_successor_ends_the_sale(pool, database_url, house, tmp_path):
    vault_file = tmp_path / "keys.json"
    write_key_file(vault_file, make_vault()._keys)
    role = await start_role(database_url, vault_file)
    await until(vended(pool, await sell_one(pool, house)), 30)
    # Killed in the act: a vend that was asked for and a job that is being done, by nobody any more.
    role.send_signal(signal.SIGKILL)
    await role.wait()
    vend_id = await sell_one(pool, house)
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE billing.vend SET state = 'REQUESTED', attempts = 1, requested_at = now() WHERE id = %s",
            (vend_id,),
        )
        await conn.execute("UPDATE public.procrastinate_jobs SET status = 'doing' WHERE status = 'todo'")
    role = await start_role(database_url, vault_file)
    await until(vended(pool, vend_id), 30)
    role.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await role.wait() == 0
    async with pool.connection() as conn:
        assert await reconcile.list_imbalances(conn) == []


async def test_a_part_that_falls_is_started_again_and_told_once(monkeypatch, caplog):
    monkeypatch.setattr(worker, "RETRY_S", 0.0)
    falls = 0

    async def part():
        nonlocal falls
        falls += 1
        if falls <= 3:
            raise RuntimeError("a fault")
        if falls <= 5:
            raise psycopg.OperationalError
        await asyncio.Event().wait()

    counts = RoundCounts()
    task = asyncio.create_task(worker.keep_running("part", part, counts))
    async with asyncio.timeout(5):
        while falls < 6:
            await asyncio.sleep(0)
    task.cancel()
    assert [record.message for record in caplog.records] == ["part fell, and starts again"]
    assert counts.falls == {"part": 5}
