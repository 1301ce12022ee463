"""One meter of the fleet: its state in memory and on disk, its faults, and who hears of a change."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from firmware_sim import meter as rules
from firmware_sim.faults import CLOCK_JUMP_MS, CLOCK_SLOW_MS, LEAK, REVERSE_FLOW, FaultBook, check_fault
from firmware_sim.fleet_store import FleetStore
from firmware_sim.household import DayCurve, day_curve
from firmware_sim.meter import Events, NoPower, TokenAnswer
from firmware_sim.meter_state import READY, Answer, MeterState
from firmware_sim.town import Town, TownMeter

# Somebody is at home, hears the click and goes to the meter.
HAND_AFTER_MS: Final = 20_000
# Sleeping machines wake up: what they slept through is not drawn in one gulp.
MAX_STEP_MS: Final = 600_000

# A second draws less than one Wh: a household is counted in millionths, the meter in whole ones.
PARTS: Final = 1_000_000
HOUR_MS: Final = 3_600_000

Listener = Callable[[MeterState, Events], None]
Clock = Callable[[], int]


def wall_clock_ms() -> int:
    """UTC epoch milliseconds."""
    return time.time_ns() // 1_000_000


class Device:
    """A meter that runs. All changes go through it: first to disk, with what listeners write, then outside."""

    def __init__(
        self, town: Town, meter: TownMeter, state: MeterState, store: FleetStore, clock: Clock = wall_clock_ms
    ) -> None:
        self.town = town
        self.meter = meter
        self.state = state
        self.clock = clock
        self.faults = FaultBook()
        self._store = store
        self._listeners: list[Listener] = []
        self._fault_listeners: list[Callable[[str, bool], None]] = []
        self.booted_ms = (
            0  # when it last got power or started again; a meter that was on all the time: long ago
        )
        self._stepped_ms = clock()
        self._curve: DayCurve | None = None
        self._owed_parts = 0  # what is left of a Wh or mL that is not full yet
        self._owed_back = 0

    def listen(self, listener: Listener) -> None:
        """Call `listener` inside the transaction of each change that has events."""
        self._listeners.append(listener)

    def listen_to_faults(self, listener: Callable[[str, bool], None]) -> None:
        """Call `listener(name, lasts)` when a fault begins."""
        self._fault_listeners.append(listener)

    def active_faults(self) -> frozenset[str]:
        """Names of the faults that are active now."""
        return self.faults.at(self.clock())

    def tick(self, speed: float) -> None:
        """Let the household draw what it drew since the last tick, times `speed`."""
        now_ms = self.clock()
        start_ms = max(self._stepped_ms, now_ms - MAX_STEP_MS)
        self._stepped_ms = now_ms
        self._end_faults(now_ms)
        state = self.state
        if state.relay == READY and now_ms >= state.relay_changed_ms - state.clock_offset_ms + HAND_AFTER_MS:
            self._take(rules.press_button(state, now_ms) if state.powered else (state, ()))
        use = load = 0
        faults = self.faults.at(now_ms)
        if self.meter.usage_point_code is not None:
            drawn, load = self._draw(start_ms, now_ms)
            if "leak" in faults:
                drawn += LEAK[self.meter.commodity] * PARTS * max(0, now_ms - start_ms) // HOUR_MS
                load += LEAK[self.meter.commodity]
            use, self._owed_parts = divmod(self._owed_parts + int(drawn * speed), PARTS)
        self._take(rules.step(self.state, now_ms, use, load), vitals_only=True)
        if "reverse_flow" in faults and self.state.supply:
            back = REVERSE_FLOW[self.meter.commodity] * PARTS * max(0, now_ms - start_ms) // HOUR_MS
            flowed, self._owed_back = divmod(self._owed_back + int(back * speed), PARTS)
            self._take((replace(self.state, reverse=self.state.reverse + flowed), ()), vitals_only=True)

    def _draw(self, start_ms: int, now_ms: int) -> tuple[int, int]:
        """What the household drew, in PARTS of a Wh or mL, and its load now."""
        curve = self._curve
        if curve is None or not curve.start_ms <= now_ms < curve.end_ms:
            curve = day_curve(self.town, self.meter, now_ms)
        drawn = curve.drawn_by(now_ms, PARTS)
        if start_ms >= now_ms:  # the machine's clock went back
            drawn = 0
        elif start_ms >= curve.start_ms:
            drawn -= curve.drawn_by(start_ms, PARTS)
        else:  # over midnight
            before = day_curve(self.town, self.meter, start_ms)
            drawn += before.total * PARTS - before.drawn_by(start_ms, PARTS)
        self._curve = curve
        return drawn, curve.load_at(now_ms)

    def type_token(self, digits: str) -> TokenAnswer:
        """Somebody types a token; on disk when this returns. Raises NoPower."""
        if "dead" in self.active_faults():
            raise NoPower(f"meter {self.meter.drn} is dead")
        state, answer, events = rules.enter_token(self.state, digits, "keypad", self.clock())
        self._take((state, events))
        return answer

    def run_command(self, command: int, kind: str, argument: str) -> Answer:
        """An order arrives; on disk when this returns. Raises NoPower."""
        state, answer, events = rules.run_command(self.state, command, kind, argument, self.clock())
        if state is not self.state:
            self._take((state, events))
        return answer

    def burn(self, amount: int) -> None:
        """Use up `amount` Wh or mL at once."""
        self._take(rules.burn(self.state, amount, self.clock()))

    def press_button(self) -> None:
        """A hand at the meter. Raises NoPower."""
        self._take(rules.press_button(self.state, self.clock()))

    def power(self, on: bool) -> None:
        """Cut or restore the network before this meter."""
        boot = self.state.boot
        self._take(rules.power(self.state, on, self.clock()))
        if self.state.boot != boot:
            self.booted_ms = self.clock()

    def start(self) -> None:
        """The process started, and with it the meter: its boot number grows."""
        self._take((rules.reboot(self.state), ()))

    def count_above(self, boot: int) -> None:
        """Go on under a boot number above one that the platform knows of an earlier memory."""
        self._take((replace(self.state, boot=boot + 1), ()))

    def place(self, meter: TownMeter) -> None:
        """The meter was installed somewhere."""
        self.meter = meter
        self._curve = None

    def begin_fault(self, name: str, seconds: float) -> None:
        """Let a fault begin. Raises UnknownFault."""
        kind = check_fault(name, seconds)
        now_ms = self.clock()
        if kind.lasts:
            self.faults = self.faults.with_fault(name, now_ms + int(seconds * 1000), now_ms)
        state = self.state
        if name == "tamper":
            self._take(rules.open_lid(state, now_ms))
        elif name == "reboot":
            self._take((rules.reboot(state), ()))
            self.booted_ms = now_ms
        elif name == "clock_jump":
            self._take((replace(state, clock_offset_ms=CLOCK_JUMP_MS), ()))
        elif name == "clock_slow":
            self._take((replace(state, clock_offset_ms=CLOCK_SLOW_MS), ()))
        elif name == "clock_lost":
            self._take((replace(state, clock_offset_ms=-now_ms, clock_ok=False), ()))
        elif name == "stuck_relay":
            self._take((replace(state, relay_stuck=True), ()))
        for listener in self._fault_listeners:
            listener(name, kind.lasts)

    def clear_faults(self) -> None:
        """End all faults."""
        self.faults = FaultBook()
        self._end_faults(self.clock())

    def _end_faults(self, now_ms: int) -> None:
        """A clock that is set again, contacts that part again."""
        active = self.faults.at(now_ms)
        state = self.state
        # A clock that an order set is nobody's fault, and stays as wrong as it was set.
        is_faulty = state.clock_offset_ms in (CLOCK_JUMP_MS, CLOCK_SLOW_MS) or not state.clock_ok
        if is_faulty and not active & {"clock_jump", "clock_slow", "clock_lost"}:
            self._take((replace(state, clock_offset_ms=0, clock_ok=True), ()))
        if self.state.relay_stuck and "stuck_relay" not in active:
            self._take((replace(self.state, relay_stuck=False), ()))

    def _take(self, change: tuple[MeterState, Events], *, vitals_only: bool = False) -> None:
        state, events = change
        if state is self.state:
            return
        before = self.state
        self.state = state
        try:
            with self._store.transaction():
                slow = (state.tripped_until_ms, state.reverse) != (before.tripped_until_ms, before.reverse)
                if events or not vitals_only or slow:
                    self._store.keep_meter(state)
                else:
                    self._store.keep_vitals(state)
                if events:
                    for listener in self._listeners:
                        listener(state, events)
        except BaseException:
            self.state = before  # what is not on disk did not happen
            raise
