"""Jobs for the worker, handed over on the caller's own connection so that a rollback takes them along."""

from __future__ import annotations

from uuid import UUID

import psycopg
from procrastinate import App, PsycopgConnector

DELIVER_TOKEN = "deliver_token"  # noqa: S105 - a job's name
QUEUE = "sales"

# Never opened: it only knows how to write a job row on a connection that it is given.
_deferrer = App(connector=PsycopgConnector())


async def defer_delivery(conn: psycopg.AsyncConnection, vend_id: UUID) -> None:
    """Ask the worker to bring this vend's token; the job appears when the caller's transaction commits."""
    job = _deferrer.configure_task(DELIVER_TOKEN, queue=QUEUE, connection=conn)
    await job.defer_async(vend_id=str(vend_id))
