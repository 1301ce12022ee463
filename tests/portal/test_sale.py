"""Progress of a sale: a table of what was written down, and what may be said from it."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from portal.sale import (
    Balance,
    CommandStep,
    Evidence,
    MeterFact,
    Outcome,
    RelayReading,
    SaleRow,
    Stage,
    derive,
)
from tests.billing.world import NOW


def at(seconds):
    return NOW + timedelta(seconds=seconds)


ROW = SaleRow(
    vend_id=UUID(int=1), vend_state="VENDED", meter_id=1, drn="06000000011", commodity="electricity", link="mqtt",
    tid=777, base_date=2014, receipt_number=5, quote_id=UUID(int=2), customer_id=3, customer_agreement_id=4,
    amount_minor=5_000, arrears_minor=0, vat_minor=238, energy_minor=4_761, change_minor=1, units_tenths=3_401,
    steps=(), quoted_at=at(-60), payment_id=UUID(int=6), payment_state="CONFIRMED", provider="sandbox",
    payment_created_at=at(-30), settled_at=at(0), paid_at=at(0), requested_at=at(1), vended_at=at(2), token_id=1,
    digits="1" * 20, issued_at=at(2),
)  # fmt: skip
SENT = CommandStep("SENT", at(3))
ACCEPTED = CommandStep("ACCEPTED", at(4))
WRITTEN = CommandStep("WRITTEN", at(5))


def verified(seconds=6, result="ACCEPT", **more):
    return CommandStep("VERIFIED", at(seconds), {"result": result, "tid": 777, **more})


def rejected(result):
    return CommandStep("REJECTED", at(6), {"result": result})


def report(seconds, result="ACCEPT", tid=777):
    return MeterFact("raseed.token", at(seconds), {"tid": tid, "result": result, "carrier": "keypad"})


def relay(seconds, state):
    return MeterFact("raseed.relay", at(seconds), {"relay": state})


def test_a_sale_by_wire_from_quote_to_power():
    progress = derive(
        ROW,
        Evidence(
            command_state="VERIFIED",
            command_steps=[SENT, ACCEPTED, WRITTEN, verified(6, relay=0)],
            meter_facts=[relay(9, 1)],
            message_at=at(2),
            message_sent_at=at(4),
        ),
    )
    assert [(line.stage, line.at) for line in progress.stages] == [
        (Stage.QUOTED, at(-60)),
        (Stage.PAID, at(0)),
        (Stage.VENDED, at(2)),
        (Stage.SENT, at(2)),
        (Stage.DELIVERED, at(4)),
        (Stage.APPLIED, at(6)),
        (Stage.POWER, at(9)),
    ]
    assert (progress.paid_to_applied_s, progress.paid_to_power_s) == (6, 9)
    assert (progress.outcome, progress.evidence, progress.reached) == (Outcome.POWERED, "answer", Stage.POWER)
    assert progress.is_over


@pytest.mark.parametrize(
    ("evidence", "outcome", "how"),
    [
        (Evidence(), Outcome.ISSUED, None),
        (Evidence(command_steps=[SENT, ACCEPTED, WRITTEN]), Outcome.ISSUED, None),
        (Evidence(command_steps=[SENT, CommandStep("UNKNOWN", at(9))]), Outcome.ISSUED, None),
        (Evidence(command_steps=[verified(result="USED_ERROR")]), Outcome.APPLIED, "answer"),
        (Evidence(command_steps=[rejected("crc_error")]), Outcome.REJECTED, None),
        (Evidence(command_steps=[rejected("overflow_error")], meter_facts=[report(30)]), Outcome.APPLIED, "report"),
        (Evidence(meter_facts=[report(20)]), Outcome.APPLIED, "report"),
        (Evidence(meter_facts=[report(20, "ACCEPT")]), Outcome.APPLIED, "report"),
        (Evidence(command_steps=[verified(result="USED_ERROR")]), Outcome.APPLIED, "answer"),
        (Evidence(command_steps=[rejected("CRC_ERROR")]), Outcome.REJECTED, None),
        (Evidence(meter_facts=[report(20, "USED_ERROR")]), Outcome.APPLIED, "report"),
        (Evidence(meter_facts=[report(20, "old_error")]), Outcome.REJECTED, None),
        (Evidence(meter_facts=[report(20, tid=778)]), Outcome.ISSUED, None),
        (Evidence(message_at=at(2), message_sent_at=at(3)), Outcome.ISSUED, None),
        (Evidence(relay_now=1), Outcome.ISSUED, None),
    ],
)  # fmt: skip
def test_only_the_meters_word_is_applied(evidence, outcome, how):
    progress = derive(ROW, evidence)
    assert (progress.outcome, progress.evidence) == (outcome, how)
    assert (progress.paid_to_applied_s is not None) == (how is not None)


def test_the_meters_newest_word_is_shown_by_its_name():
    evidence = Evidence(command_steps=[rejected("OVERFLOW_ERROR")], meter_facts=[report(20, "ACCEPT")])
    assert derive(ROW, evidence).meter_result == "ACCEPT"
    assert derive(ROW, Evidence(command_steps=[SENT])).meter_result is None


def test_a_keypad_meter_ends_delivered():
    row = replace(ROW, link="keypad")
    progress = derive(row, Evidence(message_at=at(2), message_sent_at=at(4)))
    assert (progress.reached, progress.outcome, progress.is_over) == (Stage.DELIVERED, Outcome.ISSUED, False)


@pytest.mark.parametrize(
    ("balances", "applied"),
    [
        ([Balance(at(-9), 0, 100), Balance(at(60), 340_100, 100)], at(60)),
        ([Balance(at(-9), 500, 100), Balance(at(60), 340_200, 500)], at(60)),
        ([Balance(at(-9), 0, 100), Balance(at(60), 340_000, 100)], None),
        ([Balance(at(-9), 0, 100), Balance(at(1), 340_100, 100)], None),
        ([Balance(at(60), 340_100, 100)], None),
        ([Balance(at(-9), 0, 500), Balance(at(60), 340_500, 100)], None),
        ([Balance(at(-9), 0, 100), Balance(at(9), 0, 100), Balance(at(60), 340_100, 100)], at(60)),
    ],
)  # fmt: skip
def test_a_balance_that_rose_by_the_token_is_proof(balances, applied):
    progress = derive(ROW, Evidence(balances=balances))
    assert progress.at(Stage.APPLIED) == applied
    assert progress.evidence == ("balance" if applied else None)


@pytest.mark.parametrize(
    ("facts", "relays", "now", "power"),
    [
        ([], [], None, None),
        ([], [], 1, 6),
        ([], [], 0, None),
        ([relay(-50, 1)], [], None, 6),
        ([relay(-50, 0)], [], 1, None),
        ([relay(-50, 0), relay(8, 1)], [], None, 8),
        ([relay(-50, 0), relay(8, 2), relay(30, 1)], [], None, 30),
        ([relay(-50, 1), relay(90, 0)], [], 0, 6),
        ([], [RelayReading(at(-30), 0), RelayReading(at(10), 1)], None, 10),
        ([], [RelayReading(at(-30), 1)], 0, 6),
    ],
)
def test_power_is_a_closed_relay_with_the_credit_in(facts, relays, now, power):
    progress = derive(
        ROW, Evidence(command_steps=[verified(6)], meter_facts=facts, relays=relays, relay_now=now)
    )
    assert progress.at(Stage.POWER) == (None if power is None else at(power))
    assert progress.paid_to_power_s == power


@pytest.mark.parametrize(
    ("vend_state", "payment_state", "outcome", "over"),
    [
        ("QUOTED", None, Outcome.QUOTED, False),
        ("QUOTED", "CREATED", Outcome.PAYING, False),
        ("QUOTED", "PENDING", Outcome.PAYING, False),
        ("QUOTED", "DECLINED", Outcome.DECLINED, True),
        ("QUOTED", "EXPIRED", Outcome.EXPIRED, True),
        ("QUOTED", "CONFIRMED", Outcome.REFUSED, False),
        ("PAID", "CONFIRMED", Outcome.ISSUING, False),
        ("REQUESTED", "CONFIRMED", Outcome.ISSUING, False),
        ("UNKNOWN", "CONFIRMED", Outcome.UNKNOWN, False),
        ("REFUSED", "CONFIRMED", Outcome.REFUSED, False),
        ("REFUNDED", "CONFIRMED", Outcome.REFUNDED, True),
        ("REVERSED", "CONFIRMED", Outcome.REVERSED, True),
    ],
)
def test_before_the_token(vend_state, payment_state, outcome, over):
    paid = None if vend_state == "QUOTED" else ROW.paid_at
    row = replace(
        ROW, vend_state=vend_state, payment_state=payment_state, paid_at=paid, vended_at=None, digits=None
    )
    progress = derive(row, Evidence(message_at=at(2), message_sent_at=at(4)))
    assert (progress.outcome, progress.is_over) == (outcome, over)
    assert progress.reached is (Stage.QUOTED if paid is None else Stage.PAID)
    assert progress.paid_to_applied_s is None


def test_digits_do_not_show_in_logs():
    assert "1" * 20 not in repr(ROW)
