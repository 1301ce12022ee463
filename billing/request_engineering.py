"""Ask for an engineering token with a role and a reason, and decide on what another has asked for."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import psycopg

from billing import engineering_store
from billing.engineering import MAX_REASON, check_decider, check_request
from billing.engineering_store import EngineeringRequest
from billing.errors import InvalidVend, NotFound

VERDICTS = frozenset({"approved", "refused"})


async def request_token(
    conn: psycopg.AsyncConnection,
    *,
    idempotency_key: str,
    meter_id: int,
    kind: str,
    value: int,
    reason: str,
    requested_by: str,
    role: str,
    now: datetime,
) -> EngineeringRequest:
    """Ask for an engineering token; the worker issues it, at once or when a second person has approved it.

    Raises InvalidVend as `engineering.check_request` does, NotFound, IdempotencyConflict.
    """
    cursor = await conn.execute(
        "SELECT m.commodity FROM meter_gateway.v_meter m JOIN billing.sts_identity i ON i.meter_id = m.meter_id"
        " WHERE m.meter_id = %s",
        (meter_id,),
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("meter_not_found", "no such meter with an STS identity")
    known = check_request(kind, value=value, commodity=row[0], role=role, reason=reason)
    return await engineering_store.insert_request(
        conn,
        idempotency_key=idempotency_key,
        meter_id=meter_id,
        kind=known.name,
        value=value,
        needs_approval=known.four_eyes,
        reason=reason.strip(),
        requested_by=requested_by,
        requested_role=role,
        now=now,
    )


async def decide_request(
    conn: psycopg.AsyncConnection,
    *,
    request_id: UUID,
    verdict: str,
    decided_by: str,
    role: str,
    now: datetime,
    note: str = "",
) -> EngineeringRequest:
    """Approve or refuse what another person asked for; a repeat of the same decision changes nothing.

    Raises InvalidVend (`verdict_unknown`, `role_may_not`, `same_person`, `decided_already`), NotFound.
    """
    if verdict not in VERDICTS:
        raise InvalidVend("verdict_unknown", "a verdict is approved or refused")
    request = await engineering_store.get_request(conn, request_id)
    check_decider(role=role, requested_by=request.requested_by, decided_by=decided_by)
    if not request.needs_approval:
        raise InvalidVend("decided_already", "this request needs no second person")
    made = await engineering_store.insert_decision(
        conn,
        request_id=request_id,
        verdict=verdict,
        decided_by=decided_by,
        decided_role=role,
        note=note[:MAX_REASON],
        now=now,
    )
    decided = await engineering_store.get_request(conn, request_id)
    if not made and (
        decided.decided_by != decided_by or (decided.state == "REFUSED") != (verdict == "refused")
    ):
        raise InvalidVend("decided_already", "somebody has decided this already")
    return decided
