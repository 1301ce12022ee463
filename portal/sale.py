"""How far a sale has come, from quote to power, derived from what was written down; nothing here is stored.

APPLIED is the meter's own word: it accepted this token or answers that it is used already (a typed and a sent
token raced), it reported the token's TID, or its balance rose by exactly what the token carries. SENT and
DELIVERED are never taken for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from billing.quantity import base_units
from billing.tariff import Step
from token_engine.token_result import TokenResult

RELAY_CONNECTED = 1  # DLMS disconnect control: 0 disconnected, 1 connected, 2 ready for reconnection
# What a meter says when the credit is in it, now or before.
APPLIED_RESULTS = frozenset({TokenResult.ACCEPT.name, TokenResult.USED_ERROR.name})


class Stage(StrEnum):
    """Where a sale can stand, in order."""

    QUOTED = "QUOTED"
    PAID = "PAID"
    VENDED = "VENDED"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    APPLIED = "APPLIED"
    POWER = "POWER"


class Outcome(StrEnum):
    """The one word over the list of stages."""

    QUOTED = "quoted"  # nobody has started to pay
    PAYING = "paying"  # the customer is at the provider, or the provider is silent
    DECLINED = "declined"
    EXPIRED = "expired"
    ISSUING = "issuing"  # paid, the token is on its way out of the vault
    UNKNOWN = "unknown"  # paid, the vault does not answer: asked again, never a second token
    REFUSED = "refused"  # paid, no token can be issued: the money is held
    REFUNDED = "refunded"
    REVERSED = "reversed"
    ISSUED = "issued"  # the token is there, the meter has not spoken
    REJECTED = "rejected"  # the meter refuses the token
    KEY_CHANGE = "key_change"  # the meter gets a new key first; the token is sent when it has it
    KEY_REFUSED = "key_refused"  # the meter refuses its new key, so the token is not sent: a person looks
    APPLIED = "applied"
    POWERED = "powered"


@dataclass(frozen=True, slots=True)
class SaleRow:
    """One row of billing.v_sale with its meter; baisa, tenths of kWh or m3, aware UTC times."""

    vend_id: UUID
    vend_state: str
    meter_id: int
    drn: str
    commodity: str
    link: str
    tid: int | None
    base_date: int | None
    receipt_number: int
    quote_id: UUID
    customer_id: int
    customer_agreement_id: int
    amount_minor: int
    arrears_minor: int
    vat_minor: int
    energy_minor: int
    change_minor: int
    units_tenths: int
    steps: tuple[Step, ...]
    quoted_at: datetime
    payment_id: UUID | None
    payment_state: str | None
    provider: str | None
    payment_created_at: datetime | None
    settled_at: datetime | None
    paid_at: datetime | None
    requested_at: datetime | None
    vended_at: datetime | None
    token_id: int | None
    digits: str | None
    issued_at: datetime | None
    first_tokens: Sequence[str] = ()  # key-change tokens, to be entered before it in this order
    held_state: str | None = None  # HELD, RELEASED or STOPPED when it is made under a key yet to be proven

    def __repr__(self) -> str:
        """Without the digits: they are money until they are used."""
        return f"<SaleRow {self.vend_id} {self.vend_state} meter={self.drn}>"


@dataclass(frozen=True, slots=True)
class CommandStep:
    """A step of the command that carries the token; `detail` as in the MQTT contract."""

    state: str
    occurred_at: datetime
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeterFact:
    """An event of the meter: `raseed.token` or `raseed.relay`, as in the MQTT contract."""

    code: str
    occurred_at: datetime
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Balance:
    """Credit and counter of a meter read at one instant, in Wh or mL."""

    occurred_at: datetime
    credit: int
    counter: int


@dataclass(frozen=True, slots=True)
class RelayReading:
    """A relay (or valve) read at one instant, as DLMS numbers it."""

    occurred_at: datetime
    relay: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was written down about one sale after its token was issued, oldest first."""

    command_state: str | None = None
    command_steps: Sequence[CommandStep] = ()
    meter_facts: Sequence[MeterFact] = ()
    balances: Sequence[Balance] = ()
    message_at: datetime | None = None
    message_sent_at: datetime | None = None
    relays: Sequence[RelayReading] = ()
    relay_now: int | None = None


@dataclass(frozen=True, slots=True)
class StageTime:
    """One line of the progress list: `at` is None for a stage that was not reached."""

    stage: Stage
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Progress:
    """The derived progress; `meter_result` is a TokenResult name, `evidence` says how APPLIED is known.

    `evidence` is "answer", "report", "balance" or None.
    """

    outcome: Outcome
    stages: tuple[StageTime, ...]
    meter_result: str | None
    evidence: str | None

    def at(self, stage: Stage) -> datetime | None:
        """When a stage was reached."""
        return next(line.at for line in self.stages if line.stage is stage)

    @property
    def reached(self) -> Stage:
        """The furthest stage reached."""
        return [line.stage for line in self.stages if line.at is not None][-1]

    @property
    def is_over(self) -> bool:
        """Nothing more is to come: a page may stop asking."""
        return self.outcome in _OVER

    @property
    def paid_to_applied_s(self) -> int | None:
        """Whole seconds from payment to the meter's own word."""
        return self._seconds(Stage.APPLIED)

    @property
    def paid_to_power_s(self) -> int | None:
        """Whole seconds from payment to a closed relay (or open valve)."""
        return self._seconds(Stage.POWER)

    def _seconds(self, stage: Stage) -> int | None:
        paid, reached = self.at(Stage.PAID), self.at(stage)
        return None if paid is None or reached is None else max(0, int((reached - paid).total_seconds()))


_OVER = frozenset({Outcome.DECLINED, Outcome.EXPIRED, Outcome.REFUNDED, Outcome.REVERSED, Outcome.POWERED})


@dataclass(frozen=True, slots=True)
class Sale:
    """A sale with its progress: what pages, receipts and timelines show."""

    row: SaleRow
    progress: Progress


def derive(row: SaleRow, evidence: Evidence) -> Progress:
    """The progress of a sale from its row and what was written down after."""
    sent = _earliest(_step_at(evidence, "SENT"), evidence.message_at)
    delivered = _earliest(_step_at(evidence, "ACCEPTED", "WRITTEN"), evidence.message_sent_at)
    applied, how = _applied(row, evidence)
    power = _power(row, evidence, applied)
    if applied is not None:  # who reads the token at the meter has it, whatever the messenger says
        delivered = _earliest(delivered, applied)
        sent = _earliest(sent, delivered)
    times = {
        Stage.QUOTED: row.quoted_at,
        Stage.PAID: row.paid_at,
        Stage.VENDED: row.vended_at,
        Stage.SENT: sent if row.vended_at else None,
        Stage.DELIVERED: delivered if row.vended_at else None,
        Stage.APPLIED: applied,
        Stage.POWER: power,
    }
    result = _meter_result(row, evidence)
    return Progress(
        _outcome(row, result, applied, power),
        tuple(StageTime(stage, times[stage]) for stage in Stage),
        result,
        how,
    )


def _applied(row: SaleRow, evidence: Evidence) -> tuple[datetime | None, str | None]:
    """When the credit is known to be in the meter, and how; the earliest word counts."""
    if row.vended_at is None:
        return None, None
    found: list[tuple[datetime, str]] = [
        (step.occurred_at, "answer")
        for step in evidence.command_steps
        if step.state == "VERIFIED" and (_word(step.detail) or "ACCEPT") in APPLIED_RESULTS
    ]
    found += [
        (fact.occurred_at, "report")
        for fact in _own_tokens(row, evidence)
        if _word(fact.detail) in APPLIED_RESULTS
    ]
    if not found:
        risen = _rise(row, evidence.balances)
        return (risen, "balance") if risen else (None, None)
    return min(found)


def _own_tokens(row: SaleRow, evidence: Evidence) -> list[MeterFact]:
    return [
        fact
        for fact in evidence.meter_facts
        if fact.code == "raseed.token" and row.tid is not None and str(fact.detail.get("tid")) == str(row.tid)
    ]


def _rise(row: SaleRow, balances: Iterable[Balance]) -> datetime | None:
    """When the balance rose by exactly the token's units, use in between counted in."""
    wanted = base_units(row.commodity, row.units_tenths)
    earlier: Balance | None = None
    for balance in balances:
        if earlier is not None and row.vended_at is not None and balance.occurred_at >= row.vended_at:
            used = balance.counter - earlier.counter
            if used >= 0 and balance.credit - earlier.credit + used == wanted:
                return balance.occurred_at
        earlier = balance
    return None


def _power(row: SaleRow, evidence: Evidence, applied: datetime | None) -> datetime | None:
    """When the relay is known to be closed with this credit in the meter."""
    if applied is None or row.paid_at is None:
        return None
    said = [
        (step.occurred_at, step.detail["relay"])
        for step in evidence.command_steps
        if step.state == "VERIFIED" and step.detail.get("relay") is not None
    ]
    said += [
        (fact.occurred_at, fact.detail["relay"])
        for fact in evidence.meter_facts
        if fact.code == "raseed.relay" and fact.detail.get("relay") is not None
    ]
    said += [(reading.occurred_at, reading.relay) for reading in evidence.relays]
    said.sort()
    before = [relay for at, relay in said if at <= applied]
    if before and before[-1] == RELAY_CONNECTED:
        return applied
    after = [at for at, relay in said if at > applied and relay == RELAY_CONNECTED]
    if after:
        return after[0]
    return applied if not said and evidence.relay_now == RELAY_CONNECTED else None


def _meter_result(row: SaleRow, evidence: Evidence) -> str | None:
    """The meter's newest word about this token."""
    words = [(step.occurred_at, _word(step.detail)) for step in evidence.command_steps]
    words += [(fact.occurred_at, _word(fact.detail)) for fact in _own_tokens(row, evidence)]
    said = [(at, word) for at, word in words if word is not None]
    return max(said)[1] if said else None


def _word(detail: dict[str, Any]) -> str | None:
    """The name of the TokenResult in a meter's answer or report."""
    result = detail.get("result")
    return str(result).upper() if result else None


def _outcome(row: SaleRow, result: str | None, applied: datetime | None, power: datetime | None) -> Outcome:
    # Confirmed and not PAID: no token time was left for it, the money is held and a person looks at it.
    unpaid = {"DECLINED": Outcome.DECLINED, "EXPIRED": Outcome.EXPIRED, "CONFIRMED": Outcome.REFUSED}
    by_vend = {
        "PAID": Outcome.ISSUING,
        "REQUESTED": Outcome.ISSUING,
        "UNKNOWN": Outcome.UNKNOWN,
        "REFUSED": Outcome.REFUSED,
        "REFUNDED": Outcome.REFUNDED,
        "REVERSED": Outcome.REVERSED,
    }
    if row.vend_state == "QUOTED":
        if row.payment_state is None:
            return Outcome.QUOTED
        return unpaid.get(row.payment_state, Outcome.PAYING)
    if row.vend_state in by_vend:
        return by_vend[row.vend_state]
    if power is not None:
        return Outcome.POWERED
    if applied is not None:
        return Outcome.APPLIED
    if result is not None:
        return Outcome.REJECTED
    held = {"HELD": Outcome.KEY_CHANGE, "STOPPED": Outcome.KEY_REFUSED}
    return held.get(row.held_state or "", Outcome.ISSUED)


def _step_at(evidence: Evidence, *states: str) -> datetime | None:
    return min((s.occurred_at for s in evidence.command_steps if s.state in states), default=None)


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)
