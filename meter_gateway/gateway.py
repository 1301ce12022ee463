"""The gateway role of one site: its buses on one side, MQTT on the other, and its own disk between them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import Final

from meter_gateway.broker.broker_login import BrokerLogin
from meter_gateway.broker.mqtt_link import Connected, Disconnected, Incoming, MqttLink
from meter_gateway.bus.bus_worker import BusWorker
from meter_gateway.edge.outbox import (
    HISTORICAL_MS,
    HISTORY_PER_S,
    MessageKey,
    OutboxWindow,
    Pace,
    history_per_s,
)
from meter_gateway.edge.outbox_file import OutboxBroken, OutboxFull, in_our_words
from meter_gateway.edge.outbox_queue import StoredMessage
from meter_gateway.edge.outbox_store import OutboxStore
from meter_gateway.edge.site_settings import SiteSettings, read_site_settings
from meter_gateway.edge.task_desk import TaskDesk
from meter_gateway.edge.task_journal import TaskJournal
from meter_gateway.edge.watch import CLOCK_MS
from meter_gateway.stop_signal import end_tasks, stop_on_signals
from meter_gateway.topics import (
    Birth,
    BornMeter,
    Command,
    Config,
    Death,
    PoisonMessage,
    Rebirth,
    Receipt,
    TaskOrder,
    Uplink,
    decode_down,
    down_filter,
    encode,
    up_topic,
)
from meter_gateway.vitals import GatewayVitals, PublishVitals

log = logging.getLogger(__name__)

# Resends are looked for this often.
SEND_S: Final = 1.0
HOUSEKEEPING_S: Final = 60.0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Gateway:
    """Glue of one site: config to workers, commands to the journal, the outbox to MQTT."""

    def __init__(self, settings: SiteSettings, store: OutboxStore, *, journal: TaskJournal) -> None:
        site = settings.site
        self._site = site
        self._store = store
        self._window = OutboxWindow()
        self._history_per_s = settings.history_per_s
        self._pace = Pace(self._history_per_s or HISTORY_PER_S)
        self._wake = asyncio.Event()
        self._begun = 0  # the session of the last birth
        self._lacks_config = False  # one came that the disk did not take
        self._config = store.find_config() or Config(0, 2.0, [])
        self._workers: dict[str, BusWorker] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._desk = TaskDesk(journal, store, _now_ms, self._wake.set)
        self._link = MqttLink(
            settings.mqtt_url,
            login=settings.login,
            client_id=f"raseed-gateway-{site.code}",
            subscriptions=[down_filter(site.code)],
            make_will=lambda session: (
                up_topic(site.code, Death),
                encode(Death(site.code, store.boot, session)),
            ),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        self._start_workers()
        await self._link.start()
        tasks = [
            asyncio.create_task(self._hear(), name="hear"),
            asyncio.create_task(self._send(), name="send"),
        ]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task is not stopped:
                    task.result()
        finally:
            await end_tasks([*tasks, stopped])
            await self._stop_workers()
            death = Death(self._site.code, self._store.boot, self._link.session)
            await self._link.stop(farewell=(up_topic(self._site.code, Death), encode(death)))

    def vitals(self) -> GatewayVitals:
        """Return how this gateway is: what an operator sees of it."""
        queue = self._store.queue
        return GatewayVitals(
            site=self._site.code,
            broker_connected=self._link.connected,
            outbox=queue.counts,
            outbox_oldest_s=queue.oldest_age_ms(_now_ms()) / 1000,
            dropped={"telemetry": queue.dropped},
            is_disk_full=self._store.is_full,
            buses=tuple(worker.vitals() for worker in self._workers.values()),
        )

    def _start_workers(self) -> None:
        """One worker a bus; each takes up what the journal holds open for its meters."""
        for code, address in self._site.buses.items():
            devices = [device for device in self._config.devices if device.bus == code]
            worker = BusWorker(
                address,
                devices,
                store=self._store,
                poll_s=self._config.poll_s,
                now_ms=_now_ms,
                on_stored=self._wake.set,
            )
            self._workers[code] = worker
            self._tasks.append(asyncio.create_task(worker.run(), name=f"bus {code}"))
        self._hand_out()
        self._desk.resume(self._workers)

    async def _change_workers(self) -> None:
        """Only what differs is touched: no connection is dropped and no command forgotten for a new device."""
        bus_of = {device.drn: device.bus for device in self._config.devices}
        for code, worker in self._workers.items():
            # First of all: no meter is on two buses at a time.
            await worker.let_go([drn for drn, bus in bus_of.items() if bus != code])
        for code, worker in self._workers.items():
            devices = [device for device in self._config.devices if device.bus == code]
            await worker.change(devices, self._config.poll_s)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give each worker what the journal holds open for its meters; what it has already stays as it is."""
        for device in self._config.devices:
            if device.bus not in self._site.buses:
                log.error("meter %s names bus %s, which the site file does not have", device.drn, device.bus)
        for entry in self._store.list_open():
            owner = self._worker_of(entry.meter)
            if owner is not None:
                owner.submit(entry)

    async def _stop_workers(self) -> None:
        await end_tasks(self._tasks)
        self._tasks.clear()
        self._workers.clear()

    def _worker_of(self, drn: str) -> BusWorker | None:
        return next((worker for worker in self._workers.values() if drn in worker.meters), None)

    async def _hear(self) -> None:
        while True:
            event = await self._link.next_event()
            if isinstance(event, Connected):
                self._window.reconnected()
                self._begun = event.session
                self._say_birth()
                self._tell_dropped()
                self._wake.set()
            elif isinstance(event, Disconnected):
                log.debug("offline: records wait on disk")
            else:
                try:
                    await self._take(event)
                except OutboxFull as error:
                    # Not taken: the headend says it again, a command until its deadline.
                    log.error("%s is not taken: %s", event.topic, error)  # noqa: TRY400
                self._link.ack(event)

    async def _take(self, message: Incoming) -> None:
        try:
            told = decode_down(message.topic, message.payload)
        except PoisonMessage as error:
            log.warning("a message of the headend is not understood: %s", error)
            return
        if isinstance(told, Command):
            self._take_command(told)
        elif isinstance(told, Receipt):
            self._store.delete_receipted(told.boot, told.ranges)
            self._window.receipted(told.boot, told.ranges)
            self._wake.set()
        elif isinstance(told, Config):
            await self._take_config(told)
        elif isinstance(told, TaskOrder):
            self._desk.take(told, self._workers)
        else:
            assert isinstance(told, Rebirth)  # noqa: S101 - the last of five
            # What was under way bears its old name until it is receipted.
            self._store.jump_above(told.boot)
            self._say_birth()

    def _take_command(self, command: Command) -> None:
        worker = self._worker_of(command.meter)
        if worker is None:
            # Its device may come with the next config; until then the headend says it again.
            log.warning("command %d is for meter %s, which is not here", command.command, command.meter)
            return
        entry = self._store.accept(command, _now_ms())
        if entry.state not in ("VERIFIED", "REJECTED", "EXPIRED"):
            worker.submit(entry)
        self._wake.set()

    async def _take_config(self, config: Config) -> None:
        if config == self._config:
            return
        log.info("config %d: %d devices", config.version, len(config.devices))
        changed = (config.poll_s, config.devices) != (self._config.poll_s, self._config.devices)
        # Should the disk not take it: the headend takes it for said, and only a birth makes it say it again.
        self._lacks_config = True
        self._store.save_config(config)
        self._store.tell_broken([device.drn for device in config.devices], _now_ms())
        self._lacks_config = False
        self._config = config
        if changed:
            await self._change_workers()
        self._say_birth()

    def _say_birth(self) -> bool:
        birth = Birth(
            edge=self._site.code,
            kind="gateway",
            boot=self._store.boot,
            session=self._link.session,
            sent=_now_ms(),
            config_version=self._config.version,
            meters=[BornMeter(device.drn, device.profile) for device in self._config.devices],
            backlog=self._store.queue.backlog(_now_ms()),
        )
        return self._link.publish(up_topic(self._site.code, Birth), encode(birth))

    async def _send(self) -> None:
        kept_house_at = -HOUSEKEEPING_S
        while True:
            if self._store.is_broken:
                # Whoever runs us starts us again, and the start sets the file aside.
                raise OutboxBroken("the outbox can no longer be trusted: its disk or its file is broken")
            # The link is up a moment before we hear of it, and a session begins with its birth.
            if self._link.connected and self._begun == self._link.session:
                self._send_due()
            if time.monotonic() - kept_house_at > HOUSEKEEPING_S:
                kept_house_at = time.monotonic()
                self._keep_house()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEND_S):
                    await self._wake.wait()
            self._wake.clear()

    def _keep_house(self) -> None:
        now_ms = _now_ms()
        try:
            self._store.breathe()
            self._store.forget_settled(now_ms)
            gone = self._store.trim(now_ms)
            if gone:
                log.warning("%d messages of telemetry were given up: the platform is away too long", gone)
        except OutboxFull as error:
            log.error("%s", error)  # noqa: TRY400 - its text says all
        if self._link.connected:
            self._tell_dropped()
        if self._lacks_config and not self._store.is_full:
            self._lacks_config = not self._say_birth()

    def _tell_dropped(self) -> None:
        """Say what was given up; not before the line is back, or each slice would fill the disk with an event."""
        with contextlib.suppress(OutboxFull):
            self._store.tell_dropped(_now_ms())

    def _send_due(self) -> None:
        """Say again what has no receipt, then what is new, then history as fast as it may."""
        now, now_ms, queue = time.monotonic(), _now_ms(), self._store.queue
        live = [key for key in queue.list_live(now_ms) if not self._window.is_under_way(key)]
        for key in [*self._window.overdue(now), *live[: max(0, self._window.room)]]:
            if not self._say(key, now, is_history=False):
                return
        self._pace.per_s = self._history_per_s or history_per_s(len(self._config.devices))
        room = min(self._window.history_room, self._pace.allowed(now))
        for key in queue.list_history(now_ms, room, self._window.under_way):
            if not self._say(key, now, is_history=True):
                return
            self._pace.spend()

    def _say(self, key: MessageKey, now: float, *, is_history: bool) -> bool:
        message = self._store.find_message(key)
        if message is None:
            self._window.receipted(key[0], [(key[1], key[1])])
            return True
        if not self._publish(message):
            return False
        self._window.sent(key, now, is_history=is_history)
        return True

    def _publish(self, message: StoredMessage) -> bool:
        now = _now_ms()
        uplink = Uplink(
            edge=self._site.code,
            boot=message.boot,
            seq=message.seq,
            sent=now,
            records=message.records,
            historical=message.boot != self._store.boot or abs(now - message.made_ms) > HISTORICAL_MS,
            clock_ok=now > CLOCK_MS,
        )
        return self._link.publish(up_topic(self._site.code, Uplink), encode(uplink))


async def run(
    *,
    site_file: Path | str,
    mqtt_url: str = "",
    state_dir: Path | str = "",
    login: BrokerLogin | None = None,
    publish_vitals: PublishVitals | None = None,
) -> None:
    """Serve the site of `site_file` until SIGTERM or SIGINT; the other words count more than the file's.

    Raises InvalidSite, InvalidLogin, OSError.
    """
    stop = stop_on_signals()
    settings = read_site_settings(Path(site_file), mqtt_url=mqtt_url, state_dir=str(state_dir), login=login)
    site, folder = settings.site, settings.state_dir
    # A gateway whose disk was lost must not count from one again: the platform knows those messages, and would
    # receipt the new ones as repeats. Seconds outrun any number of starts.
    store = OutboxStore(
        folder / f"gateway-{site.code}.sqlite",
        first_boot=max(1, int(time.time())),
        quota=settings.quota,
        max_bytes=settings.file_bytes,
    )
    journal = TaskJournal(folder / f"gateway-{site.code}-tasks.sqlite")
    try:
        log.info("gateway of %s is up, boot %d", site.code, store.boot)
        gateway = Gateway(settings, store, journal=journal)
        if publish_vitals is not None:
            publish_vitals(gateway.vitals)
        with in_our_words(store.path):
            await gateway.run(stop)
    finally:
        journal.close()
        store.close()
        log.info("gateway of %s is down", site.code)
