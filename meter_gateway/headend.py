"""The headend role: stores what edges say, sends what the house orders, and outlives both neighbours."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from psycopg_pool import AsyncConnectionPool

from meter_gateway import watch_sequence
from meter_gateway.broker.broker_login import BrokerLogin
from meter_gateway.broker.mqtt_link import MqttLink
from meter_gateway.dispatch import Dispatch
from meter_gateway.ingest import BATCH, UNDER_WAY, Ingest
from meter_gateway.lean_memory import keep_lean, trim_for_ever
from meter_gateway.readings import check_readings
from meter_gateway.stop_signal import end_tasks, stop_on_signals
from meter_gateway.time_series import keep_history
from meter_gateway.time_series.retention import Keep
from meter_gateway.topics import SHARE_GROUP, shared_uplinks
from meter_gateway.vitals import HeadendVitals, PublishVitals, pool_vitals

log = logging.getLogger(__name__)

# Ingest's two lanes, dispatch, history, the check of readings, and one to spare.
POOL_SIZE: Final = 6
# What the broker may send before the first acknowledgement: the batches under way, and the next one in the queue.
RECEIVE_MAXIMUM: Final = (UNDER_WAY + 1) * BATCH
# How long a task waits for a connection before it says that the database is away.
POOL_WAIT_S: Final = 5.0


def _now() -> datetime:
    return datetime.now(UTC)


def _make_pool(database_url: str, name: str) -> AsyncConnectionPool:
    return AsyncConnectionPool(
        database_url,
        min_size=1,
        max_size=POOL_SIZE,
        timeout=POOL_WAIT_S,
        # Short, or a database that was away for a minute would be found again only after minutes.
        reconnect_timeout=30,
        check=AsyncConnectionPool.check_connection,
        open=False,
        name=name,
        # What pg_stat_activity shows: which of several headends holds a lock, or a connection.
        kwargs={"application_name": name},
    )


async def run(
    *,
    database_url: str,
    mqtt_url: str,
    name: str,
    keep: Keep | None = None,
    login: BrokerLogin | None = None,
    share_group: str = SHARE_GROUP,
    publish_vitals: PublishVitals | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `name` is the fixed MQTT client id: one running headend each."""
    stop = stop_on_signals()
    pool = _make_pool(database_url, name)
    link = MqttLink(
        mqtt_url,
        client_id=f"raseed-{name}",
        subscriptions=[shared_uplinks(share_group)],
        login=login,
        receive_maximum=RECEIVE_MAXIMUM,
        queue_size=BATCH,
    )
    await pool.open()
    dispatch = Dispatch(pool, link, clock=_now)
    ingest = Ingest(
        pool,
        link,
        clock=_now,
        on_stored=dispatch.take_stored,
        on_session_lost=dispatch.ask_who_is_there,
    )
    keep_lean()
    if publish_vitals is not None:
        publish_vitals(
            lambda: HeadendVitals(
                name, link.connected, link.waiting, replace(ingest.counts), pool_vitals(pool.get_stats())
            )
        )
    await link.start()
    tasks = [
        asyncio.create_task(ingest.run(), name="ingest"),
        asyncio.create_task(trim_for_ever(), name="trim"),
        asyncio.create_task(dispatch.run(), name="dispatch"),
        asyncio.create_task(dispatch.listen(database_url), name="listen"),
        asyncio.create_task(
            keep_history.run(pool, clock=_now, keep=Keep() if keep is None else keep), name="history"
        ),
        asyncio.create_task(watch_sequence.run(pool, link, clock=_now), name="sequence"),
        asyncio.create_task(check_readings.run(pool, clock=_now), name="check readings"),
    ]
    stopped = asyncio.create_task(stop.wait())
    log.info("%s is up", name)
    try:
        done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not stopped:
                # A task that ends is a fault: the role ends with it, and whoever runs it starts it again.
                task.result()
    finally:
        await end_tasks([*tasks, stopped])
        await link.stop()
        await pool.close()
        log.info("%s is down", name)
