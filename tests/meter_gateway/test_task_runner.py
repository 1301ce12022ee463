"""Tasks of one bus: in slices, behind commands and polls, told as they go, stopped when asked."""

from __future__ import annotations

import asyncio
import time

import pytest

from meter_gateway.bus.bus_worker import BusWorker
from meter_gateway.bus.modbus_link import BusLink
from meter_gateway.bus.site_file import BusAddress
from meter_gateway.bus.survey_bus import Wires
from meter_gateway.edge.outbox_store import OutboxStore
from meter_gateway.edge.task_runner import POLLS_SHARE, TaskRunner
from meter_gateway.stop_signal import end_tasks
from meter_gateway.topics import Command, Device, TaskOrder
from tests.meter_gateway.device import Bus, Meter
from tests.meter_gateway.roles import until

DRN = "06000000029"
# Before 2026 no gateway carries out an order: its clock is not set.
NOW_MS = 1_795_000_000_000


@pytest.fixture
async def bus():
    async with Bus({3: Meter(DRN)}) as opened:
        yield opened


@pytest.fixture
def runner(bus):
    address = BusAddress("b", "rtu_over_tcp", "127.0.0.1", bus.port, "", 9600, 0.2, 0.01)
    return TaskRunner(Wires(address, BusLink(address)), lambda: 1000)


def order(kind="scan", task=1, expires=2000, **argument):
    argument = argument or {"first": 2, "last": 4, "timeout_ms": 60}
    return TaskOrder(task, "b", kind, argument, 0, expires)


async def work_out(runner, *, busy=False, limit=50):
    for _ in range(limit):
        if not runner.is_due(time.monotonic() + 60, is_idle=not busy):
            return
        await runner.work(lambda: not busy)


async def test_a_scan_is_told_as_it_goes_and_at_the_end(runner):
    said = []
    runner.submit(order(), said.append)
    runner.submit(order(), said.append)  # said again by the headend
    await work_out(runner)
    assert [(report.task, report.state) for report in said] == [(1, "RUNNING"), (1, "DONE")]
    assert said[-1].progress == 100 and [one["unit"] for one in said[-1].result["units_found"]] == [3]
    assert said[-1].result["units_found"][0]["serial"] is None  # the test's number has no right check digit


async def test_a_busy_bus_gives_a_third_of_its_time(runner):
    runner.submit(order(first=2, last=30, timeout_ms=60), lambda _report: None)
    await runner.work(lambda: False)
    now = time.monotonic()
    assert runner.is_due(now, is_idle=True) and not runner.is_due(now, is_idle=False)
    assert runner.is_due(now + POLLS_SHARE, is_idle=False)


async def test_a_task_that_is_called_off_keeps_what_it_found(runner):
    said = []
    runner.submit(order(first=3, last=90, timeout_ms=60), said.append)
    await runner.work(lambda: False)
    runner.submit(TaskOrder(1, "b", "scan", {}, 0, 2000, cancelled=True), said.append)
    await work_out(runner)
    assert said[-1].state == "CANCELLED" and [one["unit"] for one in said[-1].result["units_found"]] == [3]
    assert runner.next_at == float("inf")


@pytest.mark.parametrize(
    ("what", "state", "reason"),
    [
        (order(expires=900), "EXPIRED", None),
        (order("probe", unit=3, profiles=["none"]), "FAILED", "profile_unknown"),
        (order("words", unit=9, profile="raseed-prepaid-e1", register="counter"), "FAILED", "no_answer"),
    ],
)
async def test_how_else_it_ends(runner, what, state, reason):
    said = []
    runner.submit(what, said.append)
    runner.submit(order(task=2), said.append)
    await work_out(runner)
    assert [report.state for report in said if report.task == 1][-1] == state
    assert next(report for report in said if report.state == state).result.get("reason") == reason
    assert said[-1].task == 2 and said[-1].state == "DONE"  # the next one is not held up


async def test_a_bus_that_does_not_open(runner, bus):
    bus._server.close()
    said = []
    runner.submit(order("registers", unit=3, profile="raseed-prepaid-e1"), said.append)
    await work_out(runner)
    assert (said[-1].state, said[-1].result["reason"]) == ("FAILED", "bus_down")


async def test_polls_and_commands_go_on_while_a_bus_is_scanned(bus, tmp_path):
    store, said = OutboxStore(tmp_path / "g.sqlite"), []
    address = BusAddress("b", "rtu_over_tcp", "127.0.0.1", bus.port, "", 9600, 0.2, 0.01)
    worker = BusWorker(
        address,
        [Device(DRN, "raseed-prepaid-e1", "b", 3)],
        store=store,
        poll_s=0.2,
        now_ms=lambda: NOW_MS,
        on_stored=lambda: None,
    )
    running = asyncio.create_task(worker.run())
    try:
        worker.tasks.submit(order(expires=NOW_MS + 60_000, first=4, last=60, timeout_ms=50), said.append)
        worker.wake()

        async def begun():
            return bool(said)

        await until(begun, seconds=5)
        worker.submit(store.accept(Command(5, DRN, "relay_open", "", NOW_MS, NOW_MS + 60_000), NOW_MS))

        async def over():
            return said[-1].state != "RUNNING"

        await until(over, seconds=30)
    finally:
        await end_tasks([running])
        store.close()
    assert said[-1].state == "DONE" and said[-1].result["asked"] == 57
    asked = [unit for _at, unit, _function, _address in bus.frames]
    first, last = asked.index(4), asked.index(60)
    polls = [place for place, unit in enumerate(asked) if unit == 3 and first < place < last]
    assert len(polls) >= 5 and bus.meters[3].runs == [5]
    writes = [place for place, frame in enumerate(bus.frames) if frame[2] == 16]
    assert len(writes) == 1 and writes[0] < last  # the order did not wait for the scan to end
