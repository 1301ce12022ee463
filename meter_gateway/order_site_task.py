"""Ask a site's gateway to look at its bus, follow what comes of it, call it off."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

from meter_gateway import site_task_store
from meter_gateway.bus import survey
from meter_gateway.errors import InvalidTask, TaskConflict, TaskNotFound
from meter_gateway.site_task import SETTLED, TaskEvent, TaskState, check_argument, next_state
from meter_gateway.site_task_store import SiteTask

# Above twice the estimate: polls and commands go first, and the gateway may be away for a moment.
GRACE: Final = timedelta(seconds=90)


async def order_task(
    conn: psycopg.AsyncConnection,
    *,
    site: str,
    bus: str,
    kind: str,
    argument: Mapping[str, Any],
    idempotency_key: str,
    requested_by: str,
    now: datetime,
) -> SiteTask:
    """Put a task in line for a site's gateway, in the caller's transaction; the same key returns the same task.

    Raises InvalidTask (reason bus_unknown, or one of site_task.check_argument), TaskConflict.
    """
    if not idempotency_key:
        raise InvalidTask("key_missing", "a task needs an idempotency key")
    found = await site_task_store.find_bus(conn, site, bus)
    if found is None:
        raise InvalidTask("bus_unknown", f"site {site} has no bus {bus}")
    checked = check_argument(kind, argument, framer=found.framer)
    expected = timedelta(seconds=survey.estimate_s(kind, checked, framer=found.framer))
    task_id = await site_task_store.insert_task(
        conn,
        bus=found,
        kind=kind,
        argument=checked,
        idempotency_key=idempotency_key,
        requested_by=requested_by,
        created_at=now,
        expires_at=now + 2 * expected + GRACE,
    )
    task = (
        await site_task_store.find_task_by_key(conn, idempotency_key)
        if task_id is None
        else await site_task_store.find_task(conn, task_id)
    )
    if task is None or (task.site, task.bus, task.kind, task.argument) != (site, bus, kind, checked):
        raise TaskConflict("this idempotency key belongs to another task")
    return task


async def cancel_task(conn: psycopg.AsyncConnection, task_id: int, *, now: datetime) -> SiteTask:
    """Stop a task: at once while it has not left, else as soon as its gateway hears. Raises TaskNotFound."""
    task = await _lock(conn, task_id)
    state = next_state(TaskState(task.state), TaskEvent.CANCEL)
    if state is not None:
        await site_task_store.mark_state(conn, task_id, state, settled_at=now)
    elif task.is_open:
        await site_task_store.mark_cancel(conn, task_id, now)
    return await _get(conn, task_id)


async def apply_report(
    conn: psycopg.AsyncConnection,
    task_id: int,
    *,
    site: str,
    state: str,
    progress: int,
    result: Mapping[str, Any],
    now: datetime,
) -> TaskState | None:
    """Take a gateway's word on its task; None when it changes nothing. Raises TaskNotFound for another site's."""
    task = await _lock(conn, task_id)
    if task.site != site:
        raise TaskNotFound(f"no task {task_id} of this site")
    after = next_state(TaskState(task.state), TaskEvent(state))
    if after is None:
        return None
    settled_at = now if after in SETTLED else None
    await site_task_store.mark_state(
        conn, task_id, after, progress=progress, result=result or None, settled_at=settled_at
    )
    return after


async def _lock(conn: psycopg.AsyncConnection, task_id: int) -> SiteTask:
    task = await site_task_store.lock_task(conn, task_id)
    if task is None:
        raise TaskNotFound(f"no task {task_id}")
    return task


async def _get(conn: psycopg.AsyncConnection, task_id: int) -> SiteTask:
    task = await site_task_store.find_task(conn, task_id)
    if task is None:
        raise TaskNotFound(f"no task {task_id}")
    return task
