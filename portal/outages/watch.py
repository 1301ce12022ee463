"""The outage watch: turn supply signals into outages, let them grow, and close them meter by meter."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from portal.contact_centre.answer_ticket import follow_outage
from portal.i18n import Language, load_languages
from portal.outages import outage_store, signal_store
from portal.outages.handle_outage import close_outage
from portal.outages.infer import Evidence, Prediction, Rules, infer, may_close
from portal.outages.outage import OutageState
from portal.outages.signal_store import UnrestoredMeter

log = logging.getLogger(__name__)

Conn = psycopg.AsyncConnection[Any]
Pool = AsyncConnectionPool[Conn]

# Fresh readings come without a signal of their own, so restoration is looked for this often.
SWEEP_S = 3.0
# A database that is away is asked again after this; it doubles up to the ceiling.
BACK_OFF_S, BACK_OFF_CEILING_S = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one evaluation changed: outage ids."""

    opened: tuple[int, ...] = ()
    grown: tuple[int, ...] = ()
    closed: tuple[int, ...] = ()


async def run(pool: Pool, *, debounce_s: float) -> None:
    """Watch until cancelled: evaluate at every signal and every few seconds, in one transaction each time."""
    rules = Rules(debounce=timedelta(seconds=debounce_s))
    languages = load_languages()
    if not isinstance(pool.conninfo, str):
        raise TypeError("the outage watch opens a connection of its own: the pool's conninfo must be text")
    wait_s, failing = BACK_OFF_S, False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(pool.conninfo, autocommit=True) as listener:
                await listener.execute("LISTEN supply_signal")
                while True:
                    async with pool.connection() as conn:
                        await evaluate(conn, now=datetime.now(UTC), rules=rules, languages=languages)
                    if failing:
                        log.info("outage watch: the database answers again")
                    wait_s, failing = BACK_OFF_S, False
                    async for _ in listener.notifies(timeout=SWEEP_S, stop_after=1):
                        pass
        except psycopg.Error as error:
            if not failing:
                log.warning("outage watch: %s", type(error).__name__)
            failing = True
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACK_OFF_CEILING_S)


async def evaluate(conn: Conn, *, now: datetime, rules: Rules, languages: Mapping[str, Language]) -> Outcome:
    """Judge the network once, in the caller's transaction; nothing happens while another worker judges it."""
    if not await signal_store.lock_watch(conn):
        return Outcome()
    parents = await signal_store.list_parents(conn)
    views = await signal_store.list_meter_views(conn, now)
    inference = infer(
        {node: parent for node, (parent, _) in parents.items()},
        views,
        now=now,
        rules=rules,
        lines_down=await signal_store.list_lines_down(conn),
    )
    opened, grown = [], []
    for prediction in inference.predictions:
        outage_id, is_new, added = await _keep(conn, prediction, parents, now)
        if is_new:
            opened.append(outage_id)
        elif added:
            grown.append(outage_id)
    for follower in await signal_store.list_followers(conn):
        if follower.outage_id is not None:
            await follow_outage(conn, ticket_id=follower.ticket_id, outage_id=follower.outage_id, now=now)
    closed = await _restore(conn, now=now, rules=rules, languages=languages)
    return Outcome(tuple(opened), tuple(grown), tuple(closed))


async def _keep(
    conn: Conn,
    prediction: Prediction,
    parents: Mapping[int, tuple[int | None, str]],
    now: datetime,
) -> tuple[int, bool, int]:
    """Open the predicted outage or let an open one take it in; returns (outage, is new, meters added)."""
    path = _ancestors(prediction.node_id, parents)
    open_outages = await outage_store.list_outages(conn, open_only=True)
    above = [outage for outage in open_outages if outage.network_node_id in path]
    below = [
        outage
        for outage in open_outages
        if outage.network_node_id != prediction.node_id
        and prediction.node_id in _ancestors(outage.network_node_id, parents)
    ]
    if above:
        survivor = min(above, key=lambda outage: outage.id)
        added = await outage_store.insert_meters(conn, survivor.id, prediction.meters)
        if added:
            await _tell(conn, survivor.id, "grown", {"meters": added, "node": survivor.node_code}, now)
        return survivor.id, False, added
    if below:
        survivor = min(below, key=lambda outage: outage.id)
        await _climb(conn, survivor.id, [o.id for o in below if o.id != survivor.id], prediction, now)
        return survivor.id, False, len(prediction.meters)
    outage_id = await outage_store.insert_outage(
        conn,
        node_id=prediction.node_id,
        commodity=parents[prediction.node_id][1],
        started_at=prediction.started_at,
        source=prediction.source,
        now=now,
    )
    await outage_store.insert_meters(conn, outage_id, prediction.meters)
    told = sum(meter.evidence is not Evidence.INFERRED for meter in prediction.meters)
    detail = {"meters": len(prediction.meters), "told": told, "source": prediction.source.value}
    await _tell(conn, outage_id, "detected", detail, now)
    return outage_id, True, len(prediction.meters)


async def _climb(
    conn: Conn, survivor_id: int, merged: list[int], prediction: Prediction, now: datetime
) -> None:
    """Two outages below one parent are one outage of the parent: the oldest lives on, the others end in it."""
    for merged_id in merged:
        await outage_store.merge_into(conn, survivor_id=survivor_id, merged_id=merged_id)
        await outage_store.mark_state(conn, merged_id, OutageState.CANCELLED)
        await _tell(conn, merged_id, "cancelled", {"merged_into": survivor_id}, now)
    await outage_store.mark_node(conn, survivor_id, prediction.node_id, prediction.started_at)
    added = await outage_store.insert_meters(conn, survivor_id, prediction.meters)
    outage = await outage_store.find_outage(conn, survivor_id)
    node = outage.node_code if outage else ""
    await _tell(conn, survivor_id, "grown", {"meters": added, "node": node, "merged": merged}, now)


async def _restore(
    conn: Conn, *, now: datetime, rules: Rules, languages: Mapping[str, Language]
) -> list[int]:
    """Restore the meters that were seen alive, each at its own time, and close what is done."""
    by_outage: dict[int, list[UnrestoredMeter]] = defaultdict(list)
    for meter in await signal_store.list_unrestored(conn):
        by_outage[meter.outage_id].append(meter)
    closed = []
    for outage_id, meters in by_outage.items():
        alive = [meter for meter in meters if meter.alive_at is not None]
        if not alive:
            continue
        outage = await outage_store.lock_outage(conn, outage_id)
        returning = outage.meters_restored > 0 or any(m.evidence != Evidence.INFERRED for m in alive)
        for meter in alive:
            if meter.alive_at is None:
                continue
            if meter.evidence == Evidence.INFERRED and not returning:
                # Only guessed, and alive before any that told of the cut: it never was without supply.
                await outage_store.delete_inferred_meter(conn, outage_id, meter.meter_id)
            else:
                await outage_store.mark_meter_restored(conn, outage_id, meter.meter_id, meter.alive_at)
        speaking, restored = await outage_store.count_speaking(conn, outage_id)
        if may_close(restored, speaking):
            await close_outage(
                conn, outage_id=outage_id, actor_id=None, now=now, rules=rules, languages=languages
            )
            closed.append(outage_id)
        else:
            await _tell(conn, outage_id, "restored", {"meters": len(alive), "left": speaking - restored}, now)
    return closed


async def _tell(conn: Conn, outage_id: int, kind: str, detail: dict[str, Any], now: datetime) -> None:
    await outage_store.insert_entry(
        conn, outage_id=outage_id, kind=kind, detail=detail, actor_id=None, at=now
    )


def _ancestors(node: int, parents: Mapping[int, tuple[int | None, str]]) -> list[int]:
    path, current = [node], parents[node][0]
    while current is not None and current not in path:
        path.append(current)
        current = parents[current][0]
    return path
