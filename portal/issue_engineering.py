"""Issue an approved engineering token through the vault, register it and bring it to its meter."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from billing import engineering_store, identity_store, token_store
from billing.engineering import KINDS, Kind, raw_value
from billing.engineering_store import EngineeringRequest, Reservation
from billing.errors import InvalidVend
from portal.change_keys import VAULT_TIMEOUT_S, Conn, Pool
from portal.hand_token import hand_token
from token_engine.encode import ALL_TESTS, meter_test_token
from token_engine.errors import InvalidIdentity, VaultRefused, VaultTimeout
from token_engine.identifiers import rnd_at
from token_engine.vault import EngineeringVault, IssuedToken, ManagementRequest

log = logging.getLogger(__name__)


async def issue_request(
    pool: Pool,
    vault: EngineeringVault,
    request_id: UUID,
    now_fn: Callable[[], datetime],
    *,
    timeout_s: float = VAULT_TIMEOUT_S,
) -> str:
    """Issue one request; gives the state that it is left in (a silent vault leaves it APPROVED, to be asked again)."""
    async with pool.connection() as conn:
        reserved = await _reserve(conn, request_id, now_fn())
    if isinstance(reserved, str):
        return reserved
    request, _reservation, ask = reserved
    issued: IssuedToken | None = None
    if ask is not None:
        try:
            async with asyncio.timeout(timeout_s):
                # An earlier attempt may have got through.
                issued = await vault.fetch_result(ask.request_id) or await vault.issue_management(ask)
        except (VaultTimeout, TimeoutError, OSError) as error:
            log.warning("engineering request %s: no answer (%s)", request_id, type(error).__name__)
            return request.state
        except VaultRefused as error:
            async with pool.connection() as conn:
                await engineering_store.insert_refusal(conn, request_id, reason=error.reason, now=now_fn())
            return "FAILED"
    async with pool.connection() as conn:
        return await _register(conn, reserved, issued, now_fn())


Reserved = tuple[EngineeringRequest, Reservation, ManagementRequest | None]


async def _reserve(conn: Conn, request_id: UUID, now: datetime) -> Reserved | str:
    seen = await engineering_store.get_request(conn, request_id)
    if seen.state != "APPROVED":
        return seen.state
    identity = await identity_store.lock_identity(conn, seen.meter_id)
    request = await engineering_store.get_request(conn, request_id)  # a rival may have issued it meanwhile
    if request.state != "APPROVED":
        return request.state
    kind = KINDS[request.kind]
    found = await engineering_store.find_reservation(conn, request_id)
    if found is None:
        try:
            tid = (
                (await identity_store.allocate_tid(conn, request.meter_id, now)).tid
                if kind.needs_vault
                else None
            )
        except InvalidVend as error:
            await engineering_store.insert_refusal(conn, request_id, reason=error.code, now=now)
            return "FAILED"
        key = identity.issuing
        found = Reservation(request_id, request.meter_id, key.base_date, tid, rnd_at(now), key)
        await engineering_store.insert_reservation(conn, found, now=now)
    if found.tid is None:
        return request, found, None
    try:
        meter = identity.identity_of(found.key)
    except InvalidIdentity as error:
        await engineering_store.insert_refusal(conn, request_id, reason=error.rule, now=now)
        return "FAILED"
    return (
        request,
        found,
        ManagementRequest(
            request_id=f"engineering:{request_id}",
            meter=meter,
            subclass=kind.subclass,
            value=raw_value(kind, request.value),
            tid=found.tid,
            rnd=found.rnd,
        ),
    )


def _clear_token(kind: Kind, value: int) -> str:
    control = ALL_TESTS if value in {0, ALL_TESTS} else value
    return meter_test_token(control=control, four_digit_mfr=kind.subclass == 1)


async def _register(conn: Conn, reserved: Reserved, issued: IssuedToken | None, now: datetime) -> str:
    request, reservation, ask = reserved
    kind = KINDS[request.kind]
    identity = await identity_store.lock_identity(conn, request.meter_id)
    if (await engineering_store.get_request(conn, request.id)).state == "ISSUED":  # a rival was here first
        return "ISSUED"
    token = await token_store.insert_service_token(
        conn,
        meter_id=request.meter_id,
        base_date=reservation.base_date,
        tid=reservation.tid,
        token_class=kind.token_class,
        subclass=kind.subclass,
        units_tenths=None,
        digits=issued.digits if issued else _clear_token(kind, request.value),
        purpose="engineering" if kind.needs_vault else "test",
        issued_by=request.requested_by,
        reason=request.reason,
        now=now,
        request_id=f"engineering:{request.id}",
        key_change_id=identity.key_change_id if issued else None,
    )
    if issued is not None and ask is not None:
        await token_store.insert_key_use(
            conn,
            request_id=ask.request_id,
            used_by=request.requested_by,
            purpose=f"engineering.{kind.name}",
            meter_id=request.meter_id,
            sgc=ask.meter.sgc,
            krn=ask.meter.krn,
            key_check_value=issued.key_check_value,
            now=now,
        )
    await hand_token(
        conn, token, command_key=f"engineering:{request.id}", requested_by=request.requested_by, now=now
    )
    return "ISSUED"
