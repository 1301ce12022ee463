"""An MQTT meter: speaks the published contract for one device, and loses nothing that it has not been receipted."""

from __future__ import annotations

import asyncio
import logging
import random
from concurrent.futures import Executor
from typing import Any, Final

import msgspec

from firmware_sim.device import Device
from firmware_sim.faults import FLAP_EVERY_S
from firmware_sim.fleet_store import FleetStore, UplinkRow
from firmware_sim.meter import LAST_GASP, POWER_RESTORED, Events, NoPower
from firmware_sim.meter_state import Answer, MeterState
from firmware_sim.mqtt_connection import Endpoint, MqttConnection
from firmware_sim.mqtt_outbox import Key, Outbox
from meter_gateway import topics
from meter_gateway.topics import Birth, BornMeter, Command, Death, Event, Progress, Reading, Receipt, Uplink

log = logging.getLogger(__name__)
PROFILE: Final = "raseed-mqtt"
TELEMETRY_MS: Final = 30_000
FIRST_TELEMETRY_MS: Final = 4_000  # a fleet that starts together spreads its first words over this
HISTORICAL_MS: Final = 60_000
GASP_S: Final = 0.4  # what the capacitor of a dying meter gives it to say its last word
FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 20.0
MAX_BOOT: Final = 2**62 - 2  # above it the contract has no number left to count on
STABLE_MS: Final = 60_000  # only a connection that held this long makes the next retry quick again
HOLD_MS: Final = 3_000  # a message that waits to be overtaken goes out after this all the same
RESTORE_JITTER_S: Final = 3.0  # a street that gets its power back does not call in the same instant

_RECORDS: Final = msgspec.json.Decoder(list[topics.Record])
_PROGRESS: Final = msgspec.json.Decoder(Progress)


class MqttMeter:
    """Joins a Device to the broker; `start`, then `measure` and `tick` about once a second, then `stop`."""

    def __init__(
        self,
        device: Device,
        store: FleetStore,
        endpoint: Endpoint,
        threads: Executor,
        dice: random.Random,
        *,
        telemetry_ms: int = TELEMETRY_MS,
    ) -> None:
        self._device = device
        self._store = store
        self._endpoint = endpoint
        self._threads = threads
        self._dice = dice
        self._drn = device.meter.drn
        self._outbox = Outbox(store.list_uplinks(self._drn))
        self._boot = device.state.boot
        self._session = self._seq = 0
        self._connection: MqttConnection | None = None
        self._retry_s = FIRST_RETRY_S
        self._up_since_ms = 0
        self._calling: asyncio.TimerHandle | None = None
        self._opening = set[asyncio.Task[None]]()
        self._period_ms = telemetry_ms
        # As far into its period as chance has it: a fleet that starts together does not speak in one breath.
        first_ms = FIRST_TELEMETRY_MS if telemetry_ms == TELEMETRY_MS else telemetry_ms
        self._telemetry_ms = device.clock() + dice.randrange(first_ms)
        self._gathered: list[topics.Record] | None = None
        self._stopped = False
        self._flapped_ms = 0
        self._gasp_until_ms = 0
        self._receipted: list[Key] = []
        self._told_reverse = 0
        self._held: bytes | None = None
        self._held_ms = 0
        device.listen(self._changed)
        device.listen_to_faults(self._fault_began)

    @property
    def online(self) -> bool:
        """True while the broker holds a session of this meter."""
        return self._connection is not None and self._connection.up

    def start(self, spread_s: float = 0.0) -> None:
        """Call the broker within `spread_s` seconds."""
        self._call_in(self._dice.random() * spread_s)

    def stop(self) -> None:
        """Say goodbye."""
        self._stopped = True
        if self._calling:
            self._calling.cancel()
        if self._connection:
            self._connection.close()

    def tick(self) -> None:
        """Keep-alive, repeats, and faults of the radio."""
        now_ms = self._device.clock()
        faults = self._device.active_faults()
        connection = self._connection
        if connection:
            connection.tend()
            flaps = "flapping" in faults and now_ms - self._flapped_ms >= FLAP_EVERY_S * 1000
            gasping = not self._device.state.powered and now_ms < self._gasp_until_ms
            if (not self._may_talk(faults) and not gasping) or flaps:
                self._flapped_ms = now_ms
                connection.drop()
        elif self._calling is None and not self._opening and self._may_talk(faults):
            self._call_in(self._dice.random() * RESTORE_JITTER_S)
        self._pump()

    def measure(self) -> None:
        """Put due telemetry on disk and take receipted messages off it; call inside a transaction for many."""
        if self._receipted:
            with self._store.transaction():
                self._store.delete_uplinks(self._drn, self._receipted)
            self._receipted = []
        now_ms = self._device.clock()
        if self._device.state.powered and now_ms >= self._telemetry_ms:
            self._telemetry_ms = max(self._telemetry_ms + self._period_ms, now_ms)
            self._post(self._readings(self._device.state), telemetry=True)

    # -- the Speaker's side: what the connection tells us

    def connected(self) -> None:
        """Say who we are, then everything that is still unreceipted."""
        if self._connection is None:
            return
        self._up_since_ms = self._device.clock()
        self._connection.subscribe(topics.down_filter(self._drn))
        self._say_birth()
        self._outbox.reconnected()
        self._pump()

    def disconnected(self) -> None:
        """Call again after a while: longer each time, and never all meters at once."""
        held_ms = self._device.clock() - self._up_since_ms if self._connection and self._up_since_ms else 0
        self._connection = None
        self._held = None  # without its receipt it is sent again
        self._up_since_ms = 0
        if held_ms >= STABLE_MS:
            self._retry_s = FIRST_RETRY_S
        if self._stopped or not self._may_talk(self._device.active_faults()):
            return
        self._call_in(self._retry_s * (0.5 + self._dice.random()))
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)

    def heard(self, topic: str, payload: bytes) -> None:
        """An order, a receipt or a wish for our birth; anything else is not for a meter."""
        if "deaf" in self._device.active_faults() or not self._device.state.powered:
            return
        try:
            message = topics.decode_down(topic, payload)
        except topics.PoisonMessage as error:
            log.warning("meter %s heard what breaks the contract: %s", self._drn, error)
            return
        if isinstance(message, Receipt):
            # The disk forgets with the next measure: who is killed before sends again, and is told again.
            gone = self._outbox.receipt(message.boot, message.ranges)
            self._receipted += gone
            if gone:
                self._pump()
        elif isinstance(message, Command):
            self._obey(message)
        elif isinstance(message, topics.Rebirth):
            self._be_born_again(message.boot)

    def _be_born_again(self, known_boot: int) -> None:
        if self._boot < known_boot <= MAX_BOOT and self._connection:
            # Another memory of this meter counted further: a new call, because the will bears the number too.
            self._device.count_above(known_boot)
            self._connection.drop()
        else:
            self._say_birth()

    # -- orders

    def _obey(self, command: Command) -> None:
        """Run an order once; a repeat gets the stored answer. Journal, effect and answer are one transaction."""
        stored = self._store.find_progress(self._drn, command.command)
        if stored is not None:
            self._post([_PROGRESS.decode(stored)])
            return
        with self._store.transaction():
            try:
                records, final = self._run(command)
            except NoPower:
                return
            self._store.insert_progress(self._drn, command.command, msgspec.json.encode(final))
            self._post(records)

    def _run(self, command: Command) -> tuple[list[topics.Record], Progress]:
        at = self._device.state.clock_ms(self._device.clock())
        if command.meter != self._drn:
            final = self._progress(command, "REJECTED", at, {"result": "unknown_meter"})
            return [final], final
        if command.expires <= self._device.clock():
            final = self._progress(command, "EXPIRED", at, {})
            return [final], final
        records: list[topics.Record] = [
            self._progress(command, "ACCEPTED", at, {}),
            self._progress(command, "WRITTEN", at, {}),
        ]
        self._gathered = []
        try:
            answer = self._device.run_command(command.command, command.kind, command.argument)
            gathered = self._gathered
        finally:
            self._gathered = None
        state = "VERIFIED" if answer.done else "REJECTED"
        final = self._progress(command, state, answer.at_ms, self._detail(command, answer))
        records += [final, *gathered]
        if gathered or command.kind == "read_now":
            records += self._readings(self._device.state)
        return records, final

    def _progress(self, command: Command, state: Any, at: int, detail: dict[str, Any]) -> Progress:
        return Progress(command.command, self._drn, state, at, detail)

    def _detail(self, command: Command, answer: Answer) -> dict[str, Any]:
        kind = command.kind
        told = {"result": answer.result, "credit": answer.credit, "relay": answer.relay, "load": answer.load}
        if kind == "token":
            return told | {"tid": answer.tid}
        if not answer.done:
            return told | {"result": "REFUSED", "why": answer.result}
        if kind == "clock":
            now_ms = self._device.clock()
            return told | {"drift_s": (self._device.state.clock_ms(now_ms) - now_ms) // 1000}
        if kind == "limits":
            return told | topics.limits_of(command.argument)
        if kind != "read_now":
            return told
        state = self._device.state
        registers = {
            "serial": state.drn,
            "clock": state.clock_ms(self._device.clock()) // 1000,
            "boot_count": state.boot,
            "relay_reason": state.reason,
            "tamper": int(state.tamper),
            "token_count": state.token_count,
            "power_limit": state.power_limit_w,
        }
        return told | {"counter": state.counter, "registers": registers}

    # -- what the meter says

    def _changed(self, state: MeterState, events: Events) -> None:
        """Called inside the transaction of a change: what it makes us say is on disk together with it."""
        records: list[topics.Record] = [
            Event(self._drn, event.code, event.at_ms, event.detail) for event in events
        ]
        if self._gathered is not None:
            self._gathered += records
            return
        codes = {event.code for event in events}
        if LAST_GASP in codes and "no_gasp" in self._device.active_faults():
            asyncio.get_running_loop().call_soon(self._die)
            return
        if LAST_GASP in codes:
            self._gasp_until_ms = self._device.clock() + int(GASP_S * 1000)
            self._post(records)
            asyncio.get_running_loop().call_later(GASP_S, self._die)
            return
        if POWER_RESTORED in codes:
            self._retry_s = FIRST_RETRY_S
        self._post(records + self._readings(state))

    def _die(self) -> None:
        if self._connection and not self._device.state.powered:
            self._connection.drop()

    def _readings(self, state: MeterState) -> list[topics.Record]:
        at = state.clock_ms(self._device.clock())
        readings: list[topics.Record] = [
            Reading(self._drn, "counter", at, state.counter),
            Reading(self._drn, "credit", at, state.credit),
            Reading(self._drn, "load", at, state.load),
            Reading(self._drn, "relay", at, state.relay),
        ]
        if state.reverse != self._told_reverse:  # told when it moved: at most meters it never does
            self._told_reverse = state.reverse
            readings.append(Reading(self._drn, "reverse", at, state.reverse))
        return readings

    def _post(self, records: list[topics.Record], *, telemetry: bool = False) -> None:
        """Put a message on disk; it goes out on the loop's next turn, when the transaction has ended."""
        boot = self._device.state.boot
        if boot != self._boot:
            self._boot, self._session, self._seq = boot, 0, 0
        self._seq += 1
        row = UplinkRow(boot, self._seq, self._device.clock(), telemetry, msgspec.json.encode(records))
        with self._store.transaction():
            self._store.insert_uplink(self._drn, row)
            dropped = self._outbox.add((boot, self._seq), telemetry=telemetry)
            if dropped:
                self._store.delete_uplinks(self._drn, dropped)
        asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        faults = self._device.active_faults()
        if not self.online or self._connection is None or "mute" in faults:
            return
        now_ms = self._device.clock()
        for boot, seq in self._outbox.due(now_ms):
            row = self._store.find_uplink(self._drn, boot, seq)
            if row is None:
                continue
            message = Uplink(
                edge=self._drn,
                boot=boot,
                seq=seq,
                sent=self._device.state.clock_ms(now_ms),
                records=_RECORDS.decode(row.records),
                historical=now_ms - row.made_ms > HISTORICAL_MS,
                clock_ok=self._device.state.clock_ok,
            )
            for _ in range(2 if "twice" in faults else 1):
                self._publish(topics.encode(message), reordered="reordered" in faults)
        if self._held is not None and ("reordered" not in faults or now_ms - self._held_ms >= HOLD_MS):
            self._publish(self._held, reordered=False)
            self._held = None

    def _publish(self, payload: bytes, *, reordered: bool) -> None:
        """Hand a message over; a reordered one waits until the next has gone."""
        if self._connection is None:
            return
        if reordered and self._held is None:
            self._held, self._held_ms = payload, self._device.clock()
            return
        topic = topics.up_topic(self._drn, Uplink)
        self._connection.publish(topic, payload)
        if reordered and self._held is not None:
            self._connection.publish(topic, self._held)
            self._held = None

    def _say_birth(self) -> None:
        if self._connection is None or not self.online:
            return
        birth = Birth(
            edge=self._drn,
            kind="meter",
            boot=self._boot,
            session=self._session,
            sent=self._device.state.clock_ms(self._device.clock()),
            meters=[BornMeter(self._drn, PROFILE)],
            backlog=len(self._outbox),
        )
        self._connection.publish(topics.up_topic(self._drn, Birth), topics.encode(birth))

    # -- the line

    def _may_talk(self, faults: frozenset[str]) -> bool:
        return self._device.state.powered and not faults & {"offline", "dead"}

    def _fault_began(self, name: str, _lasts: bool) -> None:
        if name == "reboot" and self._connection:
            self._connection.drop()
        if name == "poison" and self._connection and self.online:
            self._connection.publish(topics.up_topic(self._drn, Uplink), b'{"edge": 1, "boot"')

    def _call_in(self, delay_s: float) -> None:
        if self._calling is None and not self._stopped:
            self._calling = asyncio.get_running_loop().call_later(delay_s, self._call)

    def _call(self) -> None:
        self._calling = None
        if self._connection or self._stopped or not self._may_talk(self._device.active_faults()):
            return
        boot = self._device.state.boot
        if boot != self._boot:
            self._boot, self._session, self._seq = boot, 0, 0
        self._session += 1
        will = topics.encode(Death(self._drn, self._boot, self._session))
        self._connection = MqttConnection(
            self._endpoint, f"meter-{self._drn}", (topics.up_topic(self._drn, Death), will), self
        )
        task = asyncio.get_running_loop().create_task(self._connection.open(self._threads))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
