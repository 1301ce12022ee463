"""What a person decides about a finding: explain it, choose between two values, believe a counter that began again."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import psycopg

from meter_gateway import topics
from meter_gateway.errors import MeterGatewayError
from meter_gateway.readings import finding_store
from meter_gateway.readings.finding_store import Conflict, Finding, FindingNotFound
from meter_gateway.readings.rebase import Restart, find_restart

Verdict = Literal["keep", "accept"]
Cause = Literal["replaced", "reset", "repaired"]
# These end by a decision about the readings themselves, not by a word.
NEEDS_DECISION: Final = frozenset({"counter", "conflict"})


class FindingClosed(MeterGatewayError):
    """Somebody was faster: the finding is closed, or the conflict decided otherwise."""


class NotClosable(MeterGatewayError):
    """A kind of finding that is ended by a decision about its readings, not by a reason alone."""


class NothingToBelieve(MeterGatewayError):
    """No run of readings in doubt agrees with itself, or other readings would be believed than were shown."""


async def explain_finding(
    conn: psycopg.AsyncConnection, finding_id: int, *, by: str, reason: str, now: datetime
) -> None:
    """Close a finding with a reason. Raises FindingNotFound, FindingClosed and NotClosable."""
    finding = await _lock_open(conn, finding_id)
    if finding.kind in NEEDS_DECISION:
        raise NotClosable(f"a finding of kind {finding.kind} needs a decision")
    await finding_store.mark_closed(
        conn, finding_id, to_at=None, by=by, outcome="explained", reason=reason, now=now
    )


async def decide_conflict(
    conn: psycopg.AsyncConnection,
    finding_id: int,
    conflict_id: int,
    *,
    verdict: Verdict,
    by: str,
    reason: str,
    now: datetime,
) -> Conflict:
    """Keep the first value or accept the later one; the last decision closes the finding.

    Said twice it is done once. Raises FindingNotFound, and FindingClosed when it was decided otherwise.
    """
    finding = await finding_store.get_finding(conn, finding_id, lock=True)
    conflict = await finding_store.get_conflict(conn, conflict_id)
    if (conflict.meter_id, conflict.channel) != (finding.meter_id, finding.channel):
        raise FindingNotFound(f"conflict {conflict_id} is not of finding {finding_id}")
    known = await finding_store.find_verdict(conn, conflict_id)
    if known is not None:
        if known != verdict:
            raise FindingClosed(f"conflict {conflict_id} was decided otherwise")
        return conflict
    await finding_store.insert_decision(conn, conflict, verdict=verdict, by=by, reason=reason, now=now)
    if not await finding_store.count_undecided(conn, finding.meter_id, finding.channel):
        await finding_store.mark_closed(
            conn, finding_id, to_at=now, by=by, outcome="decided", reason=reason, now=now
        )
    return conflict


async def keep_values(
    conn: psycopg.AsyncConnection, finding_id: int, *, upto_id: int, by: str, reason: str, now: datetime
) -> int:
    """Keep what counts now at all conflicts of a finding at once; returns how many.

    `upto_id` is the newest conflict that was shown: what came later still waits, and holds the finding open.
    Raises FindingNotFound and FindingClosed.
    """
    finding = await _lock_open(conn, finding_id)
    if finding.kind != "conflict":
        raise FindingNotFound(f"finding {finding_id} has no conflicts")
    kept = await finding_store.insert_kept(conn, finding, upto_id=upto_id, by=by, reason=reason, now=now)
    if not await finding_store.count_undecided(conn, finding.meter_id, finding.channel):
        await finding_store.mark_closed(
            conn, finding_id, to_at=now, by=by, outcome="decided", reason=reason, now=now
        )
    return kept


async def preview_rebase(conn: psycopg.AsyncConnection, finding_id: int) -> Restart | None:
    """Return what would be believed if a person said so now, changing nothing; None when there is nothing."""
    finding = await finding_store.get_finding(conn, finding_id)
    return await _find_restart(conn, finding)


async def rebase_counter(
    conn: psycopg.AsyncConnection,
    finding_id: int,
    *,
    cause: Cause,
    from_at: datetime,
    base_value: int,
    by: str,
    reason: str,
    now: datetime,
) -> Restart:
    """Believe a counter from where it began again; `from_at` and `base_value` are as they were shown.

    Raises FindingNotFound, FindingClosed, and NothingToBelieve when something else would be believed.
    """
    finding = await _lock_open(conn, finding_id)
    await finding_store.lock_state(conn, finding.meter_id)
    finding = await finding_store.get_finding(conn, finding_id)  # as ingest left it
    restart = await _find_restart(conn, finding)
    if restart is None or (restart.from_at, restart.base_value) != (from_at, base_value):
        raise NothingToBelieve(f"finding {finding_id} shows other readings by now")
    await finding_store.insert_rebase(conn, finding, restart, cause=cause, by=by, reason=reason, now=now)
    await finding_store.mark_closed(
        conn, finding_id, to_at=restart.from_at, by=by, outcome="rebased", reason=reason, now=now
    )
    detail = {"cause": cause, "by": by, "before": finding.counter, "base": restart.base_value}
    await finding_store.insert_platform_event(conn, finding.meter_id, topics.COUNTER_REBASED, now, detail)
    return restart


async def _lock_open(conn: psycopg.AsyncConnection, finding_id: int) -> Finding:
    finding = await finding_store.get_finding(conn, finding_id, lock=True)
    if finding.closed_at is not None:
        raise FindingClosed(f"finding {finding_id} is closed")
    return finding


async def _find_restart(conn: psycopg.AsyncConnection, finding: Finding) -> Restart | None:
    if finding.kind != "counter" or not finding.counter_suspect or finding.counter_at is None:
        return None
    doubted = await finding_store.list_doubted(conn, finding.meter_id, finding.counter_at)
    return find_restart(doubted, finding.commodity)
