"""Works on the engineering tasks of one bus in slices, and tells how far they are."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from meter_gateway.bus import survey_bus
from meter_gateway.bus.modbus_link import BusDown, ModbusError
from meter_gateway.bus.survey_bus import Step, Wires
from meter_gateway.errors import InvalidTask
from meter_gateway.site_task import check_argument
from meter_gateway.topics import TaskOrder, TaskReport, TaskReportState

log = logging.getLogger(__name__)

# Progress is told this often: every report is a message on disk.
TELL_S: Final = 2.0
# Polls go first, but a bus that is never idle must not hold a person up for ever: then a task gets slices of this
# length, and the polls twice as long between them.
SLICE_S: Final = 0.25
POLLS_SHARE: Final = 2.0

Tell = Callable[[TaskReport], None]


class TaskRunner:
    """The tasks of one bus, one after the other; `next_at` is when there is something to do (monotonic)."""

    def __init__(self, wires: Wires, now_ms: Callable[[], int]) -> None:
        self._wires = wires
        self._now_ms = now_ms
        self._waiting: deque[tuple[TaskOrder, Tell]] = deque()
        self._cancelled: set[int] = set()
        self._steps: AsyncIterator[Step] | None = None
        self._seen = Step(0, {})
        self._told_at = -math.inf
        self._worked_at = self._worked_s = 0.0
        self.next_at = math.inf

    def submit(self, order: TaskOrder, tell: Tell) -> None:
        """Put a task in line; the same one again changes nothing, unless it is to be stopped."""
        if order.cancelled:
            self._cancelled.add(order.task)
        if all(order.task != there.task for there, _ in self._waiting):
            self._waiting.append((order, tell))
        self.next_at = min(self.next_at, time.monotonic())

    def is_due(self, now: float, *, is_idle: bool) -> bool:
        """Whether to work on a task now: when the bus is idle, or when polls had their share."""
        return self.next_at <= now and (is_idle or now - self._worked_at >= POLLS_SHARE * self._worked_s)

    async def work(self, may_go_on: Callable[[], bool]) -> None:
        """Do the next steps of the task in front for a slice, or while `may_go_on`; the bus's own link is free then."""
        order, tell = self._waiting[0]
        began = time.monotonic()
        try:
            if self._steps is None:
                self._begin(order, tell)
            while not self._is_over(order, tell):
                assert self._steps is not None  # noqa: S101 - begun, or over
                step = await anext(self._steps)
                self._seen = step
                now = time.monotonic()
                if step.is_done:
                    self._end(tell, self._report(order, "DONE"))
                elif step.look_s:
                    self.next_at = now + step.look_s
                elif now - began < SLICE_S or may_go_on():
                    continue
                self._tell_progress(order, tell, now)
                return
        except (ModbusError, InvalidTask) as error:
            reason = "bus_down" if isinstance(error, BusDown) else getattr(error, "reason", "no_answer")
            self._end(tell, self._report(order, "FAILED", {"reason": reason, "text": str(error)}))
        except Exception:
            log.exception("task %d stumbled", order.task)
            self._end(
                tell, self._report(order, "FAILED", {"reason": "fault", "text": "see the gateway's log"})
            )
        finally:
            self._wires.release()
            self._worked_at = time.monotonic()
            self._worked_s = self._worked_at - began

    def _begin(self, order: TaskOrder, tell: Tell) -> None:
        self._seen = Step(0, {})
        if order.task in self._cancelled or self._now_ms() >= order.expires:
            return
        log.info("task %d: %s on bus %s", order.task, order.kind, order.bus)
        argument = check_argument(order.kind, order.argument, framer=self._wires.address.framer)
        self._steps = survey_bus.run(order.kind, argument, self._wires, self._now_ms)
        self._told_at = time.monotonic()
        tell(self._report(order, "RUNNING"))

    def _is_over(self, order: TaskOrder, tell: Tell) -> bool:
        if order.task in self._cancelled:
            self._end(tell, self._report(order, "CANCELLED"))
        elif self._now_ms() >= order.expires:
            self._end(tell, self._report(order, "EXPIRED"))
        else:
            return False
        return True

    def _report(
        self, order: TaskOrder, state: TaskReportState, result: dict[str, Any] | None = None
    ) -> TaskReport:
        # What was found so far is told whatever became of the rest.
        found = {**self._seen.result, **(result or {})}
        return TaskReport(order.task, state, self._now_ms(), self._seen.progress, found)

    def _end(self, tell: Tell, report: TaskReport) -> None:
        log.info("task %d: %s", report.task, report.state)
        self._waiting.popleft()
        self._cancelled.discard(report.task)
        steps, self._steps = self._steps, None
        if steps is not None:
            # A trace that is broken off must not go on listening.
            self._wires.link.tap = None
        self.next_at = time.monotonic() if self._waiting else math.inf
        tell(report)

    def _tell_progress(self, order: TaskOrder, tell: Tell, now: float) -> None:
        if self._steps is not None and now - self._told_at >= TELL_S:
            self._told_at = now
            tell(self._report(order, "RUNNING"))
