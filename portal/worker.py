"""The worker: brings tokens, asks about silent payments, sends messages, watches for outages."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from time import monotonic, time
from uuid import UUID

import httpx
import psycopg
from procrastinate import App, PsycopgConnector
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from billing.provider_link import ProviderLink
from billing.states import VendState
from meter_gateway.vitals import PublishVitals, pool_vitals
from portal import jobs
from portal.forget import Forget
from portal.i18n import load_languages
from portal.key_sweep import KeySweep
from portal.leak_notice import LeakNotices
from portal.open_vault import open_vault
from portal.outages import watch
from portal.sell import Pool, deliver_token
from portal.sweep import Sweep
from portal.vitals import RoundCounts, WorkerVitals
from token_engine.vault import EngineeringVault, VendingKeyVault

log = logging.getLogger(__name__)

# A lost answer is mostly there a moment later, while the customer still looks; after that the sweep asks.
ASK_AGAIN_AFTER_S = (0.3, 1.0)
SWEEP_EVERY_S = 1.0  # how long an SMS waits; everything else decides by its own times
RETRY_S = 1.0  # after a fall: a database that restarts is back within seconds
STEADY_S = 30.0  # what ran this long has recovered: its next fall is news again
POOL_MAX = 12  # four jobs, the sweep's parts, keys, the watch, and some to spare for answers of the provider
POOL_TIMEOUT_S = 10.0
# Waits between attempts double up to this, then begin anew: a database that comes back is found within seconds,
# however long it was away (the pool's own limit is five minutes).
RECONNECT_S = 5.0
JOBS_AT_ONCE = 4
JOB_POLL_S = 2.0  # NOTIFY wakes us at once; this is for one that was lost
SHUTDOWN_S = 3.0  # a job that takes longer is left; the sweep of the next start goes on with it


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


async def run(
    *,
    database_url: str,
    vault_file: str,
    secret_key: str,  # noqa: ARG001 - every role takes the same settings; nothing is signed here
    provider_url: str,
    provider_secret: str,
    public_url: str,  # noqa: ARG001 - same
    outage_debounce_s: float,
    wrapping_key_file: str = "",
    publish_vitals: PublishVitals | None = None,
) -> None:
    """Work until SIGTERM or SIGINT, through restarts of the database. Raises VaultDamaged for a bad key file."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    vault = open_vault(vault_file, wrapping_key_file)
    await work(
        stop,
        database_url=database_url,
        vault=vault,
        key_vault=vault,
        provider_url=provider_url,
        provider_secret=provider_secret,
        outage_debounce_s=outage_debounce_s,
        publish_vitals=publish_vitals,
    )


async def work(
    stop: asyncio.Event,
    *,
    database_url: str,
    vault: VendingKeyVault,
    provider_url: str,
    provider_secret: str,
    outage_debounce_s: float,
    key_vault: EngineeringVault | None = None,
    publish_vitals: PublishVitals | None = None,
) -> None:
    """Work until `stop` is set; with a `key_vault` also at key changes and engineering tokens."""
    pool: Pool = AsyncConnectionPool(
        database_url,
        min_size=1,
        max_size=POOL_MAX,
        timeout=POOL_TIMEOUT_S,
        reconnect_timeout=RECONNECT_S,
        check=AsyncConnectionPool.check_connection,
        open=False,
        name="worker",
    )
    await pool.open(wait=False)
    counts = RoundCounts()
    if publish_vitals is not None:
        publish_vitals(
            lambda: WorkerVitals(dict(counts.rounds), dict(counts.falls), pool_vitals(pool.get_stats()))
        )
    # The address is our operator's own setting: no proxy of the environment stands between.
    async with httpx.AsyncClient(trust_env=False) as client:
        provider = ProviderLink(client, url=provider_url, secret=provider_secret)
        sweep = Sweep(pool, vault, provider, utc_now)
        notices = LeakNotices(pool, load_languages(), utc_now)
        tasks = [
            asyncio.create_task(keep_running("jobs", lambda: work_jobs(database_url, pool, vault), counts)),
            # Each part by itself: an SMS does not wait behind a vault that is silent.
            *(
                asyncio.create_task(keep_running(name, partial(repeat, name, part, counts), counts))
                for name, part in (
                    ("messages", sweep.send_messages),
                    ("stuck sales", sweep.deliver_stuck),
                    ("silent payments", sweep.ask_about_silent),
                    ("late sales", sweep.open_late_tickets),
                    ("leak notices", notices.round),
                    ("old codes and messages", Forget(pool, utc_now).round),
                )
            ),
            asyncio.create_task(
                keep_running("outage watch", lambda: watch.run(pool, debounce_s=outage_debounce_s), counts)
            ),
        ]
        if key_vault is not None:
            keys = KeySweep(pool, key_vault, utc_now)
            tasks.append(
                asyncio.create_task(keep_running("keys", partial(repeat, "keys", keys.round, counts), counts))
            )
        try:
            await stop.wait()
        finally:
            pending = set(tasks)
            while pending:  # told again: wait_for of Python 3.11, in libraries too, may lose a cancellation
                for task in pending:
                    task.cancel()
                _, pending = await asyncio.wait(pending, timeout=SHUTDOWN_S + 1)
            await pool.close(timeout=SHUTDOWN_S)


async def keep_running(name: str, part: Callable[[], Awaitable[None]], counts: RoundCounts) -> None:
    """Run one part for ever; after a fall again, told once until it ran steadily."""
    falling = False
    while True:
        began = monotonic()
        try:
            await part()
        except (psycopg.OperationalError, PoolTimeout) as error:
            falling = falling and monotonic() - began < STEADY_S
            if not falling:
                log.warning("%s: the database is away (%s)", name, type(error).__name__)
        except Exception:
            falling = falling and monotonic() - began < STEADY_S
            if not falling:
                log.exception("%s fell, and starts again", name)
        falling = True
        counts.fell(name)
        await asyncio.sleep(RETRY_S)


async def repeat(name: str, part: Callable[[], Awaitable[object]], counts: RoundCounts) -> None:
    """One round after the other. Raises psycopg.Error when the database is away."""
    while True:
        await part()
        counts.ended(name, time())
        await asyncio.sleep(SWEEP_EVERY_S)


async def work_jobs(database_url: str, pool: Pool, vault: VendingKeyVault) -> None:
    """Do jobs as they are deferred; returns or raises when the database goes away."""
    connector = PsycopgConnector(
        conninfo=database_url, min_size=1, max_size=3, timeout=POOL_TIMEOUT_S, reconnect_timeout=RECONNECT_S
    )
    app = App(connector=connector)

    @app.task(name=jobs.DELIVER_TOKEN, queue=jobs.QUEUE)
    async def deliver(vend_id: str) -> None:
        for wait_s in (*ASK_AGAIN_AFTER_S, 0.0):
            state = await deliver_token(pool, vault, UUID(vend_id), utc_now)
            if state is not VendState.UNKNOWN:
                break
            await asyncio.sleep(wait_s)

    async with app.open_async():
        await app.run_worker_async(
            queues=[jobs.QUEUE],
            name="sales",
            concurrency=JOBS_AT_ONCE,
            fetch_job_polling_interval=JOB_POLL_S,
            shutdown_graceful_timeout=SHUTDOWN_S,
            delete_jobs="successful",
            install_signal_handlers=False,
        )
