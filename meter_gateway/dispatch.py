"""From the database to MQTT: commands in their order until an edge answers, and each gateway's devices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meter_gateway import (
    command,
    command_store,
    edge_store,
    meter_store,
    network_store,
    reading_store,
    site_task_store,
    state_store,
)
from meter_gateway.broker.mqtt_link import MqttLink
from meter_gateway.command_store import DueCommand
from meter_gateway.message_key import to_millis
from meter_gateway.store_batch import Stored
from meter_gateway.topics import MAX_DEVICES, Command, Config, Rebirth, TaskOrder, down_topic, encode

log = logging.getLogger(__name__)

SWEEP_S: Final = 1.0
# An edge answers within a second when it is there; until then the command is said again.
RESEND: Final = timedelta(seconds=5)
# An UNKNOWN command is asked for again, seldom: its edge answers by itself once it has read the meter.
ASK_AGAIN: Final = timedelta(seconds=60)
# A command that waits in the broker longer than this was said again meanwhile.
COMMAND_EXPIRY_S: Final = 15
CONFIG_EXPIRY_S: Final = 300
DISPATCH_LIMIT: Final = 200
REBIRTH_EXPIRY_S: Final = 60
# An edge that is told to go on above the boot we know, and does not, is told again after this.
RAISE_AGAIN: Final = timedelta(seconds=60)
# A gateway with meters reports each half minute; four misses are no accident.
SILENCE: Final = timedelta(minutes=2)
# The ledger outlives the longest outage that a reading's age allows (30 days), then forgets in slices.
LEDGER_DAYS: Final = 40
LEDGER_SLICE: Final = 50_000
HOUSEKEEPING: Final = timedelta(hours=24)


class Dispatch:
    """Sends commands and device lists; survives the absence of database and broker."""

    def __init__(self, pool: AsyncConnectionPool, link: MqttLink, *, clock: Callable[[], datetime]) -> None:
        self._pool = pool
        self._link = link
        self._clock = clock
        self._wake = asyncio.Event()
        self._sent_config: dict[str, int] = {}
        self._kept_house_at: datetime | None = None
        self._started_at: datetime | None = None
        self._deaf_until: datetime | None = None  # set while a call of the roll is due
        self._roll: dict[str, None] = {}  # who is still to be asked, in order
        self._late: dict[str, int] = {}  # boots lower than the last one known, by edge
        self._raised_at: dict[str, datetime] = {}
        self._is_away = False

    def wake(self) -> None:
        """Look for due commands now."""
        self._wake.set()

    def take_stored(self, stored: Stored) -> None:
        """A gateway was born and may know an old configuration; or an answer lets the next command go."""
        for birth in (*stored.births, *stored.late_births):
            if birth.kind == "gateway":
                self._sent_config.pop(birth.edge, None)
            self._late.pop(birth.edge, None)
            self._roll.pop(birth.edge, None)
        # Overtaken on its way, or born on a new disk under an old number: if the former, its next birth says so.
        self._late |= {birth.edge: birth.boot for birth in stored.late_births}
        if stored.births or stored.late_births or stored.has_progress:
            self.wake()

    def ask_who_is_there(self) -> None:
        """Ask every edge for its birth again that does not say it by itself: what came meanwhile went to nobody."""
        self._deaf_until = self._clock()
        self._sent_config.clear()
        self.wake()

    async def run(self) -> None:
        """Sweep each second, and at once when woken, until cancelled."""
        while True:
            try:
                await self._keep_house()
                await self._send_commands()
                await self._send_tasks()
                await self._raise_late()
                await self._send_configs()
                await self._watch_edges()
            except (psycopg.OperationalError, PoolTimeout) as error:
                if not self._is_away:
                    log.warning("dispatch waits for the database: %s", type(error).__name__)
                self._is_away = True
            except Exception:
                # One sweep may fail, the next one must come.
                log.exception("dispatch sweep failed")
            else:
                self._is_away = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._wake.wait()
            self._wake.clear()

    async def listen(self, database_url: str) -> None:
        """Wake the sweep at each new command, until cancelled; the sweep finds what this misses."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
                    await conn.execute("LISTEN meter_command")
                    self.wake()
                    async for _ in conn.notifies():
                        self.wake()
            except psycopg.OperationalError:
                await asyncio.sleep(SWEEP_S)

    async def _send_commands(self) -> None:
        now = self._clock()
        async with self._pool.connection() as conn:
            await command.expire_commands(conn, now)
        if not self._link.connected:
            return
        async with self._pool.connection() as conn:
            due = await command_store.lock_due_commands(
                conn, now=now, send_before=now - RESEND, ask_before=now - ASK_AGAIN, limit=DISPATCH_LIMIT
            )
            await command_store.mark_sent(conn, [one.id for one in due], now)
        # Said after the commit: if we die between the two, the command is said again in five seconds.
        for one in due:
            self._say(one, now)

    def _say(self, due: DueCommand, now: datetime) -> None:
        message = Command(
            command=due.id,
            meter=due.drn,
            kind=due.kind,  # type: ignore[arg-type]  # the table's CHECK holds the same words
            argument=due.argument,
            created=to_millis(due.created_at),
            expires=to_millis(due.expires_at),
        )
        left_s = int((due.expires_at - now).total_seconds())
        expiry_s = min(COMMAND_EXPIRY_S, left_s) if left_s > 0 else COMMAND_EXPIRY_S
        self._link.publish(down_topic(due.edge, Command), encode(message), expiry_s=expiry_s)
        log.info("command %d (%s) sent to meter %s by %s", due.id, due.kind, due.drn, due.edge)

    async def _send_tasks(self) -> None:
        """Say engineers' tasks to their gateways, and again those that must stop."""
        now = self._clock()
        async with self._pool.connection() as conn:
            await site_task_store.mark_overdue(conn, now)
        if not self._link.connected:
            return
        async with self._pool.connection() as conn:
            due = await site_task_store.lock_due_tasks(
                conn, now=now, send_before=now - RESEND, limit=DISPATCH_LIMIT
            )
            await site_task_store.mark_sent(conn, [one.id for one in due], now)
        for one in due:
            message = TaskOrder(
                task=one.id,
                bus=one.bus,
                kind=one.kind,  # type: ignore[arg-type]  # the table's CHECK holds the same words
                argument=one.argument,
                created=to_millis(one.created_at),
                expires=to_millis(one.expires_at),
                cancelled=one.cancel_at is not None,
            )
            self._link.publish(down_topic(one.site, TaskOrder), encode(message), expiry_s=COMMAND_EXPIRY_S)
            log.info("task %d (%s) sent to %s", one.id, one.kind, one.site)

    async def _raise_late(self) -> None:
        """Tell edges that were born with a lower boot than the last one known to go on above it."""
        now = self._clock()
        due = [e for e in self._late if now - self._raised_at.get(e, now - RAISE_AGAIN) >= RAISE_AGAIN]
        if not due or not self._link.connected:
            return
        async with self._pool.connection() as conn:
            boots = await edge_store.list_boots(conn, due)
        for edge in due:
            known, said = boots.get(edge, 0), self._late.get(edge)
            if said is None:
                continue  # born above it meanwhile
            if known <= said:
                self._late.pop(edge, None)
                continue
            self._raised_at[edge] = now
            message = Rebirth("a later start is known", boot=known)
            self._link.publish(down_topic(edge, Rebirth), encode(message), expiry_s=REBIRTH_EXPIRY_S)
            log.warning("%s says boot %d after %d: its disk was lost; it goes on above", edge, said, known)

    async def _send_configs(self) -> None:
        if not self._link.connected:
            return
        configs: list[tuple[str, Config]] = []
        async with self._pool.connection() as conn:
            for site in await network_store.list_sites(conn):
                if self._sent_config.get(site.code) != site.config_version:
                    devices = await meter_store.list_meters_of_site(conn, site.code)
                    configs.append((site.code, Config(site.config_version, site.poll_ms / 1000, devices)))
        for edge, config in configs:
            try:
                payload = self._encode(config)
            except ValueError as error:
                # Once a version, and the other sites get theirs.
                log.error("%s gets no new list of devices: %s", edge, error)  # noqa: TRY400
                self._sent_config[edge] = config.version
                continue
            if self._link.publish(down_topic(edge, Config), payload, expiry_s=CONFIG_EXPIRY_S):
                self._sent_config[edge] = config.version
                log.info("config %d with %d devices sent to %s", config.version, len(config.devices), edge)

    @staticmethod
    def _encode(config: Config) -> bytes:
        if len(config.devices) > MAX_DEVICES:
            raise ValueError(f"{len(config.devices)} devices at one site, {MAX_DEVICES} are the most")
        return encode(config)

    async def _watch_edges(self) -> None:
        """Call the roll where it is due, a slice a sweep, and note gateways that went without a word."""
        now = self._clock()
        if not self._link.connected:
            self._started_at = None
            return
        self._started_at = self._started_at or now
        since = self._deaf_until
        if since is not None:
            async with self._pool.connection() as conn:
                self._roll = dict.fromkeys(await edge_store.list_unborn_since(conn, since))
            if self._deaf_until == since:  # else the session was lost once more meanwhile
                self._deaf_until = None
        for edge in list(islice(self._roll, DISPATCH_LIMIT)):
            message = Rebirth("the broker forgot us")
            if not self._link.publish(down_topic(edge, Rebirth), encode(message), expiry_s=REBIRTH_EXPIRY_S):
                break  # who was not asked keeps his place
            del self._roll[edge]
        if now - self._started_at < SILENCE:
            return  # we were deaf ourselves
        async with self._pool.connection() as conn:
            silent = await edge_store.mark_silent_gateways(conn, now - SILENCE)
            await state_store.mark_links(conn, dict.fromkeys(silent, False), now)
        for edge in silent:
            log.warning("gateway %s is silent", edge)

    async def _keep_house(self) -> None:
        now = self._clock()
        if self._kept_house_at is not None and now - self._kept_house_at < HOUSEKEEPING:
            return
        async with self._pool.connection() as conn:
            await reading_store.ensure_partitions(conn, now - timedelta(days=31), now + timedelta(days=62))
        async with self._pool.connection() as conn:
            gone = await edge_store.delete_old_messages(
                conn, now - timedelta(days=LEDGER_DAYS), limit=LEDGER_SLICE
            )
        if (
            gone < LEDGER_SLICE
        ):  # else the next sweep takes the next slice: one a day would fall behind for ever
            self._kept_house_at = now
