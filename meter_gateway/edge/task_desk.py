"""The gateway's side of engineering tasks: taken once, given to the bus's worker, answered from the journal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from meter_gateway.edge.outbox_file import OutboxFull
from meter_gateway.edge.outbox_store import OutboxStore
from meter_gateway.edge.task_journal import TaskJournal
from meter_gateway.edge.task_runner import TaskRunner
from meter_gateway.topics import TaskOrder, TaskReport

log = logging.getLogger(__name__)


class HasTasks(Protocol):
    """A bus's worker."""

    tasks: TaskRunner

    def wake(self) -> None:
        """Look for work now."""


class TaskDesk:
    """Takes orders of the headend and hands reports to the outbox."""

    def __init__(
        self,
        journal: TaskJournal,
        store: OutboxStore,
        now_ms: Callable[[], int],
        on_stored: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._store = store
        self._now_ms = now_ms
        self._on_stored = on_stored

    def take(self, order: TaskOrder, workers: Mapping[str, HasTasks]) -> None:
        """Keep a task and begin it; one that was answered is answered again. Raises OutboxFull: it is not taken."""
        answer = self._journal.accept(order)
        if answer is not None:
            self._say(answer)
            return
        self._begin(order, workers)

    def _begin(self, order: TaskOrder, workers: Mapping[str, HasTasks]) -> None:
        worker = workers.get(order.bus)
        if worker is None:
            found = {"reason": "bus_unknown", "text": f"the site file has no bus {order.bus}"}
            self._tell(TaskReport(order.task, "FAILED", self._now_ms(), 0, found))
            return
        worker.tasks.submit(order, self._tell)
        worker.wake()

    def resume(self, workers: Mapping[str, HasTasks]) -> None:
        """Begin again what has no answer: tasks only read."""
        for order in self._journal.list_open():
            self._begin(order, workers)

    def _tell(self, report: TaskReport) -> None:
        # First into the outbox: a kill between the two only lets the task run once more.
        try:
            self._say(report)
            if report.state != "RUNNING":
                self._journal.settle(report)
        except OutboxFull as error:
            # Without an answer it stays open: asked again by the headend, or begun again at the next start.
            log.error("what became of task %d is not kept: %s", report.task, error)  # noqa: TRY400

    def _say(self, report: TaskReport) -> None:
        self._store.add([report], self._now_ms())
        self._on_stored()
