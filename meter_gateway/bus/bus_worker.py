"""The one task of one bus: commands first, then due polls, a meter at a time; a dead meter costs little."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from meter_gateway import topics
from meter_gateway.bus.modbus_link import BusDown, BusLink, MeterWire, ModbusError, Stranger
from meter_gateway.bus.session import (
    Action,
    Answered,
    Ask,
    Breaker,
    Due,
    Failed,
    NextAt,
    Session,
    TellDown,
    TellUp,
)
from meter_gateway.bus.site_file import BusAddress
from meter_gateway.bus.survey_bus import Wires
from meter_gateway.edge import watch
from meter_gateway.edge.deliver import Delivery
from meter_gateway.edge.outbox_store import JournalEntry, OutboxStore
from meter_gateway.edge.task_runner import TaskRunner
from meter_gateway.edge.watch import Memory
from meter_gateway.profile import InvalidProfile, Value, load_profile
from meter_gateway.topics import Device, Event
from meter_gateway.vitals import BusVitals

log = logging.getLogger(__name__)

# The longest sleep: deadlines of waiting commands are looked at this often.
NAP_S: Final = 1.0
# A poll that the breaker does not allow looks again no sooner than this.
LOOK_BACK_S: Final = 0.05
# A worker that failed by a fault of ours begins again after this.
RESTART_S: Final = 1.0


@dataclass(slots=True, eq=False)
class PolledMeter:
    """One meter of the bus with its wire, its session and what is remembered of it."""

    wire: MeterWire
    session: Session
    memory: Memory
    next_at: float
    command_at: float = 0.0
    waiting: list[int] = field(default_factory=list)
    is_retry: bool = False
    is_kept: bool = False  # its memory is on disk

    @property
    def drn(self) -> str:
        """Its number."""
        return self.wire.drn


def wire_of(link: BusLink, device: Device) -> MeterWire | None:
    """Return the wire of a device, None when its profile is not known."""
    try:
        return MeterWire(link, device.unit, load_profile(device.profile), device.drn)
    except InvalidProfile as error:
        # Values that nobody can decode are worse than none.
        log.warning("meter %s is not polled: %s", device.drn, error)
        return None


def make_meters(
    link: BusLink, devices: Iterable[Device], memories: Mapping[str, Memory], poll_s: float, now: float
) -> dict[str, PolledMeter]:
    """Return the meters of a bus, their first polls spread over one period."""
    found: dict[str, PolledMeter] = {}
    listed = list(devices)
    for place, device in enumerate(listed):
        wire = wire_of(link, device)
        if wire is not None:
            memory = memories.get(device.drn, Memory())
            session = Session(poll_s, was_down=memory.is_down)
            first_at = now + poll_s * place / len(listed)
            is_kept = device.drn in memories
            found[device.drn] = PolledMeter(wire, session, memory, first_at, is_kept=is_kept)
    return found


class BusWorker:
    """Serves the meters of one bus until cancelled."""

    def __init__(
        self,
        address: BusAddress,
        devices: Iterable[Device],
        *,
        store: OutboxStore,
        poll_s: float,
        now_ms: Callable[[], int],
        on_stored: Callable[[], None],
    ) -> None:
        self._link = BusLink(address)
        self.tasks = TaskRunner(Wires(address, self._link), now_ms)
        self._store = store
        self._delivery = Delivery(store, now_ms)
        self._now_ms = now_ms
        self._on_stored = on_stored
        self._wake = asyncio.Event()
        self._swept_at = 0.0
        self.last_answer_at: float | None = None
        self._poll_s = poll_s
        self._devices = {device.drn: device for device in devices}
        self.meters = make_meters(
            self._link, self._devices.values(), store.list_memories(), poll_s, time.monotonic()
        )
        # Meters that were taken off the bus while commands for them waited: only their deadlines are kept.
        self._gone: dict[str, PolledMeter] = {}
        self._asked: PolledMeter | None = None
        self._between = asyncio.Event()

    async def change(self, devices: Iterable[Device], poll_s: float) -> None:
        """Take up and let go what differs.

        Who stays keeps its place in line, its breaker and its waiting commands, and the bus its connection.
        """
        wanted = {device.drn: device for device in devices}
        come = [device for drn, device in wanted.items() if self._devices.get(drn) != device]
        known = await self._take_out(
            drn for drn, device in self._devices.items() if wanted.get(drn) != device
        )
        self._devices = wanted
        if poll_s != self._poll_s:
            self._set_period(poll_s)
        if come:
            made = make_meters(self._link, come, self._store.list_memories(), poll_s, time.monotonic())
            for drn, meter in made.items():
                before = known.pop(drn, None) or self._gone.pop(drn, None)
                if before is not None:
                    # The same meter at another unit, or by another map: what it said and what waits for it stays.
                    meter.memory, meter.waiting = before.memory, before.waiting
                    meter.session.is_down = before.session.is_down
                self.meters[drn] = meter
        self._gone |= {drn: meter for drn, meter in known.items() if meter.waiting}
        self._wake.set()

    async def let_go(self, drns: Iterable[str]) -> None:
        """Let go meters that another bus takes over with all that waits for them."""
        for drn in await self._take_out(drns):
            del self._devices[drn]
        for drn in drns:
            self._gone.pop(drn, None)

    async def _take_out(self, drns: Iterable[str]) -> dict[str, PolledMeter]:
        """Take meters off the list; returns them when none of them is being asked any more.

        A command that is being carried out may be in the middle of its write: nobody else may take it up before.
        """
        out = {drn: self.meters.pop(drn) for drn in drns if drn in self.meters}
        while any(meter is self._asked for meter in out.values()):
            self._between.clear()
            await self._between.wait()
        return out

    def _set_period(self, poll_s: float) -> None:
        self._poll_s = poll_s
        soon = time.monotonic() + poll_s
        for meter in self.meters.values():
            meter.session.poll_s = poll_s
            if meter.session.breaker is Breaker.CLOSED:
                meter.next_at = min(meter.next_at, soon)

    def vitals(self) -> BusVitals:
        """Return how this bus is: what an operator sees of it."""
        breakers = Counter(meter.session.breaker.value for meter in self.meters.values())
        answered_s = self.last_answer_at
        return BusVitals(
            code=self._link.address.code,
            framer=self._link.address.framer,
            last_answer_s=None if answered_s is None else time.time() - time.monotonic() + answered_s,
            breakers={breaker.value: breakers[breaker.value] for breaker in Breaker},
            commands_waiting=sum(len(meter.waiting) for meter in self.meters.values()),
            requests=dict(self._link.requests),
        )

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    def submit(self, entry: JournalEntry) -> None:
        """Put a journalled command in line behind the meter's earlier ones."""
        meter = self.meters[entry.meter]
        if entry.id not in meter.waiting:
            meter.waiting.append(entry.id)
            self._wake.set()

    async def run(self) -> None:
        """Serve; a fault of ours is logged and the work begins again."""
        try:
            while True:
                try:
                    while True:
                        await self._step()
                except Exception:
                    log.exception("bus %s stumbled", self._link.address.code)
                    self._link.close()
                    await asyncio.sleep(RESTART_S)
        finally:
            self._link.close()

    async def _step(self) -> None:
        now = time.monotonic()
        self._sweep_deadlines(now)
        meter = self._next_command(now)
        work = self._command
        if meter is None:
            meter = self._next_poll(now)
            work = self._poll
            if self.tasks.is_due(now, is_idle=meter is None):
                await self.tasks.work(lambda: not self._is_wanted())
                return
        if meter is not None:
            self._asked = meter
            try:
                await work(meter)
            finally:
                self._asked = None
                self._between.set()
            return
        times = [self.tasks.next_at, *(one.next_at for one in self.meters.values())]
        times += [one.command_at for one in self.meters.values() if one.waiting]
        nap_s = max(0.0, min(NAP_S, min(times, default=now + NAP_S) - now))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(nap_s):
                await self._wake.wait()
        self._wake.clear()

    def _is_wanted(self) -> bool:
        """Whether a command or a poll waits for the bus."""
        now = time.monotonic()
        return self._wake.is_set() or any(
            one.next_at <= now or (one.waiting and one.command_at <= now) for one in self.meters.values()
        )

    def _sweep_deadlines(self, now: float) -> None:
        if now - self._swept_at < NAP_S:
            return
        self._swept_at = now
        self._gone = {drn: meter for drn, meter in self._gone.items() if meter.waiting}
        for meter in (*self.meters.values(), *self._gone.values()):
            for command_id in list(meter.waiting):
                entry = self._store.get_entry(command_id)
                if self._now_ms() >= entry.expires_ms and entry.state != "UNKNOWN":
                    if self._delivery.expire(entry):
                        meter.waiting.remove(command_id)
                    self._on_stored()

    def _next_command(self, now: float) -> PolledMeter | None:
        """Return the meter whose oldest command may be worked on now."""
        due = [one for one in self.meters.values() if one.waiting and one.command_at <= now]
        for meter in sorted(due, key=lambda one: one.waiting[0]):
            actions = meter.session.receive(Due(), now)
            if Ask() in actions:
                return meter
            meter.command_at = next((one.at for one in actions if isinstance(one, NextAt)), now + NAP_S)
        return None

    def _next_poll(self, now: float) -> PolledMeter | None:
        """Return who is due: first those whose time has come, then those who missed theirs."""
        due = [one for one in self.meters.values() if one.next_at <= now]
        # Not for ever behind: on a bus that has more to do than time, a retry counts as due a period later.
        return min(
            due,
            key=lambda one: (one.is_retry and now < one.next_at + self._poll_s, one.next_at),
            default=None,
        )

    async def _command(self, meter: PolledMeter) -> None:
        entry = self._store.get_entry(meter.waiting[0])
        try:
            step = await self._delivery.carry_out(meter.wire, entry)
        except ModbusError as error:
            self._failed(meter, error)
            meter.command_at = meter.next_at
        else:
            # First of all: the rest may find the disk full, and what is settled must not be carried out again.
            if step.look_s is None:
                meter.waiting.pop(0)
            meter.command_at = time.monotonic() + (step.look_s or 0.0)
            if step.is_heard:
                self._answered(meter)
            if step.values is not None:
                await self._observe(meter, step.values)  # what it did shows at once
        self._on_stored()

    async def _poll(self, meter: PolledMeter) -> None:
        actions = meter.session.receive(Due(), time.monotonic())
        if Ask() not in actions:
            self._do(meter, actions)
            meter.next_at = max(meter.next_at, time.monotonic() + LOOK_BACK_S)
            return
        profile = meter.wire.profile
        try:
            values = await meter.wire.read(profile.names_of((*profile.fast, *profile.slow)))
            if watch.is_doubtful(meter.memory, values):
                values |= await meter.wire.read(profile.names_beside("counter"))
        except ModbusError as error:
            self._failed(meter, error)
            return
        self._answered(meter)
        await self._observe(meter, values)

    async def _observe(self, meter: PolledMeter, values: Mapping[str, Value]) -> None:
        """Tell what the values say that was not told before."""
        try:
            token_log = await self._read_log(meter, values)
        except ModbusError:
            return  # the same difference shows at the next poll
        before = meter.memory
        now_ms = self._now_ms()
        memory, records = watch.observe(before, meter.drn, values, token_log, now_ms)
        memory, unread = watch.observe_meaningless(memory, meter.drn, meter.wire.meaningless, now_ms)
        records += unread
        if records or not meter.is_kept:
            self._store.save(meter.drn, memory, records, now_ms)
            meter.is_kept = True
            self._on_stored()
        meter.memory = memory  # last: what could not be stored is told at the next poll

    async def _read_log(self, meter: PolledMeter, values: Mapping[str, Value]) -> list[dict[str, Value]]:
        """Read the meter's own list when more than its last token was missed."""
        if watch.missed_tokens(meter.memory, values) <= 1:
            return []
        found = await meter.wire.read(meter.wire.profile.names_of(["token_log"]))
        return [
            {name: found[f"log_{place}_{name}"] for name in ("number", "result", "carrier", "tid", "at")}
            for place in range(1, watch.TOKEN_LOG + 1)
        ]

    def _answered(self, meter: PolledMeter) -> None:
        self.last_answer_at = time.monotonic()
        meter.is_retry = False
        self._do(meter, meter.session.receive(Answered(), self.last_answer_at))

    def _failed(self, meter: PolledMeter, error: ModbusError) -> None:
        if isinstance(error, Stranger):
            memory, records = watch.observe_stranger(meter.memory, meter.drn, error.serial, self._now_ms())
            self._tell(meter, memory, *records)
        meter.is_retry = True
        actions = meter.session.receive(Failed(random.uniform(0.8, 1.2)), time.monotonic())
        # A bus that is away says nothing about the supply of its meters: outage logic must be able to tell.
        self._do(meter, actions, cause="bus" if isinstance(error, BusDown) else "silence")

    def _do(self, meter: PolledMeter, actions: Iterable[Action], cause: str = "") -> None:
        for action in actions:
            if isinstance(action, NextAt):
                meter.next_at = action.at
            elif isinstance(action, TellDown):
                log.warning("meter %s does not answer", meter.drn)
                event = Event(meter.drn, topics.LINK_DOWN, self._now_ms(), {"cause": cause})
                self._tell(meter, replace(meter.memory, is_down=True), event)
            elif isinstance(action, TellUp):
                log.info("meter %s answers again", meter.drn)
                event = Event(meter.drn, topics.LINK_UP, self._now_ms())
                self._tell(meter, replace(meter.memory, is_down=False), event)

    def _tell(self, meter: PolledMeter, memory: Memory, *records: topics.Record) -> None:
        if records:
            try:
                self._store.save(meter.drn, memory, records, self._now_ms())
            except BaseException:
                # Not told: the next answer or failure tells it.
                meter.session.is_down = meter.memory.is_down
                raise
            self._on_stored()
        meter.memory = memory
