"""Store what gateways report of engineers' tasks: a report moves its task on, one that fits none is parked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import psycopg

from meter_gateway import order_site_task
from meter_gateway.errors import TaskNotFound
from meter_gateway.event_store import DeadLetter
from meter_gateway.topics import TaskReport, Uplink


async def store_reports(
    conn: psycopg.AsyncConnection,
    uplinks: Sequence[tuple[str, Uplink]],
    now: datetime,
    letters: list[DeadLetter],
) -> None:
    """Apply the task reports of (topic, uplink) pairs, task by task in the order they were said."""
    found = [
        (record.task, uplink.boot, uplink.seq, place, topic, uplink.edge, record)
        for topic, uplink in uplinks
        for place, record in enumerate(uplink.records)
        if isinstance(record, TaskReport)
    ]
    for *_, topic, site, report in sorted(found, key=lambda one: one[:4]):
        try:
            await order_site_task.apply_report(
                conn,
                report.task,
                site=site,
                state=report.state,
                progress=report.progress,
                result=report.result,
                now=now,
            )
        except TaskNotFound as error:
            letters.append(DeadLetter(topic, msgspec.json.encode(report), str(error)))
