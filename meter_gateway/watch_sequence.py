"""Notices messages that never came: asks their edge, and tells a person once it has nothing older left to say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meter_gateway import sequence_store
from meter_gateway.broker.mqtt_link import MqttLink
from meter_gateway.sequence_store import Gap
from meter_gateway.topics import Rebirth, down_topic, encode

log = logging.getLogger(__name__)

SWEEP: Final = timedelta(seconds=60)
# An edge says a message again within a minute; what is missing for longer is history that waits its turn, or lost.
PATIENCE: Final = timedelta(minutes=10)
# Asked and told in slices: after a long outage of ours every edge may have a gap for a while.
LIMIT: Final = 200
REBIRTH_EXPIRY_S: Final = 60


async def sweep(conn: psycopg.AsyncConnection, *, since: datetime, now: datetime) -> list[Gap] | None:
    """Look once, in the caller's transaction; returns the gaps whose edges to ask for their birth.

    None: another headend is at it.

    A gap alone is no loss: edges say what is true now first and their history as it may. So the edge is asked, its
    birth says how much history waits (`backlog`), and only a gap that is still there when nothing waits is told.
    """
    if not await sequence_store.lock_sweep(conn):
        return None
    await sequence_store.advance(conn, since=since, now=now)
    for gap in await sequence_store.list_lost(conn, limit=LIMIT):
        missing = await sequence_store.find_missing(conn, gap)
        await sequence_store.insert_finding(conn, gap, missing)
        log.warning("edge %s: messages of boot %d are missing from %d on", gap.edge, gap.boot, gap.first)
    to_ask = await sequence_store.list_to_ask(conn, before=now - PATIENCE, limit=LIMIT)
    for gap in to_ask:
        await sequence_store.mark_asked(conn, gap, now)
    return to_ask


async def run(pool: AsyncConnectionPool, link: MqttLink, *, clock: Callable[[], datetime]) -> None:
    """Sweep each minute until cancelled; a database that is away is waited for."""
    since = clock() - PATIENCE
    while True:
        now = clock()
        try:
            async with pool.connection() as conn:
                asked = await sweep(conn, since=since - SWEEP, now=now)
        except (psycopg.OperationalError, PoolTimeout) as error:
            log.debug("the database is away: %s", type(error).__name__)
        else:
            since = since if asked is None else now
            for gap in asked or ():
                rebirth = Rebirth(f"message {gap.first} of boot {gap.boot} is missing")
                link.publish(down_topic(gap.edge, Rebirth), encode(rebirth), expiry_s=REBIRTH_EXPIRY_S)
        await asyncio.sleep(SWEEP.total_seconds())
