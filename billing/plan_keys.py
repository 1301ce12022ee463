"""Plan a recode campaign: see what it would do, put it down, and have a second person decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from billing import key_plan_store
from billing.engineering import MAX_REASON, PLANNERS, check_decider
from billing.errors import InvalidVend
from billing.identity_store import KeyFields, StsIdentity
from billing.key_change import check_target, new_fields
from billing.key_plan_store import KeyPlan
from billing.request_engineering import VERDICTS


@dataclass(frozen=True, slots=True)
class PlannedMeter:
    """One meter that a plan would change."""

    identity: StsIdentity
    old: KeyFields
    new: KeyFields


@dataclass(frozen=True, slots=True)
class PlanPreview:
    """What a plan would do: meters that change, and how many break which rule."""

    meters: tuple[PlannedMeter, ...]
    refused: tuple[tuple[str, str], ...]  # (drn, rule)

    @property
    def rules(self) -> dict[str, int]:
        """How many meters break which rule."""
        return dict(Counter(rule for _drn, rule in self.refused))


async def preview_plan(
    conn: psycopg.AsyncConnection, *, scope: Mapping[str, Any], target: Mapping[str, Any], now: datetime
) -> PlanPreview:
    """A dry run: nothing is written. Raises InvalidVend for a scope or a target that says nothing."""
    check_target(target)
    meters, refused = [], []
    for identity in await key_plan_store.list_identities(conn, scope):
        try:
            meters.append(PlannedMeter(identity, identity.current, new_fields(identity, target, now)))
        except InvalidVend as error:
            refused.append((identity.drn, error.code))
    return PlanPreview(tuple(meters), tuple(refused))


async def make_plan(
    conn: psycopg.AsyncConnection,
    *,
    idempotency_key: str,
    scope: Mapping[str, Any],
    target: Mapping[str, Any],
    reason: str,
    requested_by: str,
    role: str,
    now: datetime,
) -> KeyPlan:
    """Put a plan down for a second person; its meters are fixed now.

    Raises InvalidVend (`role_may_not`, `reason_missing`, `plan_changes_nothing`, or as the dry run does),
    IdempotencyConflict.
    """
    if role not in PLANNERS:
        raise InvalidVend("role_may_not", f"a {role} may not plan key changes")
    if not 0 < len(reason.strip()) <= MAX_REASON:
        raise InvalidVend("reason_missing", f"say why, in up to {MAX_REASON} characters")
    preview = await preview_plan(conn, scope=scope, target=target, now=now)
    if not preview.meters:
        raise InvalidVend(
            "plan_changes_nothing", f"no meter would change: {preview.rules or 'none in scope'}"
        )
    return await key_plan_store.insert_plan(
        conn,
        idempotency_key=idempotency_key,
        scope=scope,
        target=target,
        meter_ids=[meter.identity.meter_id for meter in preview.meters],
        reason=reason.strip(),
        requested_by=requested_by,
        now=now,
    )


async def decide_plan(
    conn: psycopg.AsyncConnection,
    *,
    plan_id: UUID,
    verdict: str,
    decided_by: str,
    role: str,
    now: datetime,
    note: str = "",
) -> KeyPlan:
    """Approve or refuse what another person planned; a repeat of the same decision changes nothing.

    Raises InvalidVend (`verdict_unknown`, `role_may_not`, `same_person`, `decided_already`), NotFound.
    """
    if verdict not in VERDICTS:
        raise InvalidVend("verdict_unknown", "a verdict is approved or refused")
    plan = await key_plan_store.get_plan(conn, plan_id)
    check_decider(role=role, requested_by=plan.requested_by, decided_by=decided_by)
    await key_plan_store.insert_decision(
        conn,
        plan_id=plan_id,
        verdict=verdict,
        decided_by=decided_by,
        decided_role=role,
        note=note[:MAX_REASON],
        now=now,
    )
    decided = await key_plan_store.get_plan(conn, plan_id)
    if (decided.verdict, decided.decided_by) != (verdict, decided_by):
        raise InvalidVend("decided_already", "somebody has decided this already")
    return decided
