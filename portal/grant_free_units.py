"""Serve a fleet its monthly free units: reserve, ask the vault once for many, register, send; restartable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from billing import free_units_store, identity_store, token_store
from billing.free_units_store import FreeUnitsRun, Grant, Recipient
from portal import message_store, sale_text
from portal.change_keys import Conn, Pool
from portal.hand_token import hand_token
from token_engine.errors import InvalidIdentity, VaultRefused
from token_engine.vault import BatchVault, CreditRequest, IssuedToken

# One transaction's worth: about a second of work, so that sales of the same meters hardly wait.
CHUNK = 500
SUBCLASSES = {"electricity": 0, "water": 1}  # sts.md 3, class 0


@dataclass(slots=True)
class Tally:
    """What a run did; `refused` counts meters by the reason."""

    served: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    say: Callable[[Tally], None] = field(default=lambda _tally: None, repr=False, compare=False)

    def refuse(self, reason: str) -> None:
        """One more meter that gets nothing."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


async def serve_fleet(
    pool: Pool,
    vault: BatchVault,
    run: FreeUnitsRun,
    now_fn: Callable[[], datetime],
    say: Callable[[Tally], None] = lambda _tally: None,
) -> Tally:
    """Serve every eligible meter once; after a kill, call it again and it goes on where it was.

    Raises VaultTimeout when the vault is silent: nothing is lost, call it again.
    """
    tally = Tally(say=say)
    await _serve_reserved(pool, vault, run, now_fn, tally)  # what an earlier run left behind
    after: int | None = 0
    while after is not None:
        async with pool.connection() as conn:
            reserved = await free_units_store.reserve(conn, run, after=after, limit=CHUNK, now=now_fn())
        for _meter_id in reserved.without_tid:
            tally.refuse("no_tid_left")
        after = reserved.last
        await _serve_reserved(pool, vault, run, now_fn, tally)
    return tally


async def _serve_reserved(
    pool: Pool, vault: BatchVault, run: FreeUnitsRun, now_fn: Callable[[], datetime], tally: Tally
) -> None:
    after = 0
    while True:  # ends: each slice begins after the one before
        async with pool.connection() as conn:
            unserved = await free_units_store.list_unserved(conn, run, after=after, limit=CHUNK)
        if not unserved:
            return
        await _serve(pool, vault, unserved, now_fn, tally)
        after = unserved[-1].meter_id
        tally.say(tally)


async def _serve(
    pool: Pool, vault: BatchVault, grants: Sequence[Grant], now_fn: Callable[[], datetime], tally: Tally
) -> None:
    async with pool.connection() as conn:
        identities = await free_units_store.list_identities(conn, [grant.meter_id for grant in grants])
    asked: list[tuple[Grant, CreditRequest]] = []
    refused: list[tuple[Grant, str]] = []
    for grant in grants:
        try:
            asked.append((grant, _request(grant, identities[grant.meter_id])))
        except (InvalidIdentity, KeyError) as error:
            refused.append((grant, error.rule if isinstance(error, InvalidIdentity) else "identity_missing"))
    answers = await vault.issue_credits([request for _grant, request in asked])
    issued: list[tuple[Grant, CreditRequest, IssuedToken]] = []
    for (grant, request), answer in zip(asked, answers, strict=True):
        if isinstance(answer, VaultRefused):
            refused.append((grant, answer.reason))
        else:
            issued.append((grant, request, answer))
    async with pool.connection() as conn:
        tally.served += await _register(conn, issued, now_fn())
        for grant, reason in refused:
            await free_units_store.insert_refusal(conn, grant, reason=reason, now=now_fn())
            tally.refuse(reason)


def _request(grant: Grant, identity: identity_store.StsIdentity) -> CreditRequest:
    return CreditRequest(
        request_id=grant.request_id,
        meter=identity.identity_of(grant.key),
        subclass=SUBCLASSES[grant.commodity],
        amount=grant.units_tenths,
        tid=grant.tid,
        rnd=grant.rnd,
    )


async def _register(
    conn: Conn, issued: Sequence[tuple[Grant, CreditRequest, IssuedToken]], now: datetime
) -> int:
    meter_ids = [grant.meter_id for grant, _request, _token in issued]
    identities = await free_units_store.list_identities(conn, meter_ids, lock=True)
    recipients = await free_units_store.list_recipients(conn, meter_ids)
    served = 0
    for grant, request, answer in issued:
        if await token_store.find_token_of_request(conn, grant.request_id) is not None:
            continue  # a rival run was here first
        token = await token_store.insert_service_token(
            conn,
            meter_id=grant.meter_id,
            base_date=grant.base_date,
            tid=grant.tid,
            token_class=0,
            subclass=request.subclass,
            units_tenths=answer.carried,
            digits=answer.digits,
            purpose="credit",
            issued_by="free-units",
            reason=f"free units {grant.month:%Y-%m}",
            now=now,
            request_id=grant.request_id,
            key_change_id=identities[grant.meter_id].key_change_id,
        )
        await token_store.insert_key_use(
            conn,
            request_id=grant.request_id,
            used_by="free-units",
            purpose="credit",
            meter_id=grant.meter_id,
            sgc=request.meter.sgc,
            krn=request.meter.krn,
            key_check_value=answer.key_check_value,
            now=now,
        )
        await hand_token(conn, token, command_key=grant.request_id, requested_by="free-units", now=now)
        if grant.meter_id in recipients:
            await _tell(conn, grant, token, recipients[grant.meter_id], now)
        served += 1
    return served


async def _tell(
    conn: Conn, grant: Grant, token: token_store.Token, recipient: Recipient, now: datetime
) -> None:
    first = await token_store.list_digits_before(conn, token)
    await message_store.insert_message(
        conn,
        idempotency_key=grant.request_id,
        customer_id=recipient.customer_id,
        phone=recipient.phone,
        kind="token",
        language=recipient.language,
        body=sale_text.free_units_body(
            recipient.language,
            drn=recipient.drn,
            commodity=grant.commodity,
            digits=token.digits,
            units_tenths=grant.units_tenths,
            month=grant.month,
            first_tokens=first,
        ),
        reference=grant.request_id,
        now=now,
    )
