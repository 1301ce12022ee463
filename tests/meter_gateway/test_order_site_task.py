"""Tasks in the database: once for a key, called off, reported by their own site only."""

from datetime import timedelta

import pytest

from meter_gateway import network_store, site_task_store
from meter_gateway.errors import InvalidTask, TaskConflict, TaskNotFound
from meter_gateway.order_site_task import apply_report, cancel_task, order_task
from tests.meter_gateway.places import NOW, make_site

SOON = NOW + timedelta(seconds=6)


@pytest.fixture
async def site(conn):
    return await make_site(conn)


async def ask(conn, key="k-1", kind="scan", argument=None, bus="tcp-1"):
    return await order_task(
        conn,
        site="site-1",
        bus=bus,
        kind=kind,
        argument={} if argument is None else argument,
        idempotency_key=key,
        requested_by="salma",
        now=NOW,
    )


async def due(conn, now=NOW):
    return [
        one.id
        for one in await site_task_store.lock_due_tasks(
            conn, now=now, send_before=now - timedelta(seconds=5), limit=10
        )
    ]


async def report(conn, task, state, progress=0, site="site-1", **result):
    return await apply_report(
        conn, task.id, site=site, state=state, progress=progress, result=result, now=SOON
    )


async def test_once_for_a_key(conn, site):
    task = await ask(conn)
    assert (task.state, task.progress, task.framer, task.is_open) == ("CREATED", 0, "tcp", True)
    assert task.expires_at > NOW + timedelta(minutes=4)  # 247 units behind a converter
    assert (await ask(conn)).id == task.id
    with pytest.raises(TaskConflict):
        await ask(conn, argument={"last": 3})


@pytest.mark.parametrize(
    ("more", "reason"),
    [({"bus": "none"}, "bus_unknown"), ({"key": ""}, "key_missing"), ({"kind": "dance"}, "kind_unknown")],
)
async def test_refusals(conn, site, more, reason):
    with pytest.raises(InvalidTask) as refused:
        await ask(conn, **more)
    assert refused.value.reason == reason


async def test_from_its_making_to_its_result(conn, site):
    task = await ask(conn)
    assert await due(conn) == [task.id]
    await site_task_store.mark_sent(conn, [task.id], NOW)
    assert await due(conn) == []
    assert await due(conn, SOON) == [task.id]  # nobody answered: said again
    await report(conn, task, "RUNNING", 40, units_found=[1])
    assert await due(conn, SOON) == []
    await report(conn, task, "RUNNING", 30)  # an older one that came late
    await report(conn, task, "DONE", 100, units_found=[1, 2])
    assert await report(conn, task, "CANCELLED") is None
    found = await site_task_store.find_task(conn, task.id)
    assert (found.state, found.progress, found.result, found.settled_at) == (
        "DONE",
        100,
        {"units_found": [1, 2]},
        SOON,
    )
    assert (await site_task_store.find_last_task(conn, site="site-1", bus="tcp-1", kind="scan")).id == task.id
    assert [one.id for one in await site_task_store.list_tasks(conn, site="site-1")] == [task.id]


async def test_called_off(conn, site):
    early, late = await ask(conn), await ask(conn, key="k-2")
    assert (await cancel_task(conn, early.id, now=NOW)).state == "CANCELLED"
    await site_task_store.mark_sent(conn, [late.id], NOW)
    await report(conn, late, "RUNNING", 10)
    stopped = await cancel_task(conn, late.id, now=SOON)
    assert (stopped.state, stopped.cancel_at) == ("RUNNING", SOON)
    assert await due(conn, SOON) == [late.id]  # its gateway must hear of it
    await report(conn, late, "CANCELLED", 10)
    assert await due(conn, SOON + timedelta(minutes=1)) == []
    with pytest.raises(TaskNotFound):
        await cancel_task(conn, 999, now=NOW)


async def test_a_gateway_speaks_for_its_own_site_only(conn, site):
    task = await ask(conn)
    await network_store.insert_site(conn, code="site-2", name_en="S", name_ar="م")
    with pytest.raises(TaskNotFound):
        await report(conn, task, "DONE", 100, site="site-2")


async def test_its_deadline_and_a_result_that_comes_late(conn, site):
    task = await ask(conn)
    assert await site_task_store.mark_overdue(conn, NOW) == 0
    assert await site_task_store.mark_overdue(conn, task.expires_at) == 1
    assert await due(conn, task.expires_at) == []
    await report(conn, task, "DONE", 100)
    assert (await site_task_store.find_task(conn, task.id)).state == "DONE"
