"""The signed talk with a provider: what is taken, what is refused, and by which word."""

import json
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import PaymentMismatch, ProviderUnavailable, WebhookRejected
from billing.payment_store import Payment
from billing.states import PaymentEvent, PaymentState
from billing.take_payment import (
    LINK_LIFETIME,
    check_amount,
    check_signed,
    read_link,
    read_status,
    read_webhook,
    redirect_url,
    sign,
    status_headers,
    webhook_body,
    webhook_headers,
)
from tests.billing.world import NOW

SECRET = "s3cret"
ID = UUID(int=99)
PAYMENT = Payment(ID, UUID(int=1), "k", "sandbox", 5_000, PaymentState.PENDING, "ar", NOW, None, None)


def lower(headers):
    return {name.lower(): value for name, value in headers.items()}


def link_params():
    url = redirect_url(
        PAYMENT,
        provider_url="http://bank/",
        provider_secret=SECRET,
        return_url="http://us/my?x=1&y=2",
        now=NOW,
    )
    assert url.startswith("http://bank/pay?")
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def test_a_link_says_what_it_was_made_for():
    link = read_link(link_params(), SECRET, NOW)
    assert (link.payment_id, link.amount_minor, link.language, link.return_url) == (
        ID,
        5_000,
        "ar",
        "http://us/my?x=1&y=2",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"amount": "1"},
        {"payment": str(UUID(int=5))},
        {"return_url": "http://evil/"},
        {"signature": ""},
        {"expires": "9"},
    ],
)
def test_a_changed_link_is_refused(change):
    with pytest.raises(WebhookRejected) as refused:
        read_link(link_params() | change, SECRET, NOW)
    assert refused.value.code == "link_signature"


def test_a_link_ends():
    with pytest.raises(WebhookRejected) as refused:
        read_link(link_params(), SECRET, NOW + LINK_LIFETIME + timedelta(seconds=1))
    assert refused.value.code == "link_expired"


def test_a_webhook_is_read():
    body = webhook_body("evt_1", ID, "confirmed", 5_000)
    event = read_webhook(lower(webhook_headers(SECRET, body, NOW)), body, secret=SECRET, now=NOW)
    assert (event.event_id, event.payment_id, event.status, event.amount_minor) == (
        "evt_1",
        ID,
        PaymentEvent.CONFIRMED,
        5_000,
    )


def test_a_webhook_is_refused_by_name():
    body = webhook_body("evt_1", ID, "confirmed", 5_000)
    good = lower(webhook_headers(SECRET, body, NOW))
    late = NOW + timedelta(minutes=6)
    cases = [
        ({}, body, NOW, "webhook_unsigned"),
        (good, body + b" ", NOW, "webhook_signature"),
        (lower(webhook_headers("other", body, NOW)), body, NOW, "webhook_signature"),
        (good | {"x-provider-timestamp": str(int(late.timestamp()))}, body, late, "webhook_signature"),
        (good, body, late, "webhook_stale"),
        (good, body, NOW - timedelta(minutes=6), "webhook_stale"),
    ]
    for headers, sent, now, code in cases:
        with pytest.raises(WebhookRejected) as refused:
            read_webhook(headers, sent, secret=SECRET, now=now)
        assert refused.value.code == code


@pytest.mark.parametrize(
    "change",
    [
        {"event_id": ""},
        {"event_id": "e" * 101},
        {"event_id": 5},
        {"payment_id": "x"},
        {"status": "maybe"},
        {"amount_minor": "5000"},
        {"amount_minor": 5000.5},
        {"amount_minor": 0},
        {"amount_minor": -5},
        {"currency": "USD"},
    ],
)
def test_a_signed_webhook_that_makes_no_sense_is_unreadable(change):
    body = json.dumps(json.loads(webhook_body("evt_1", ID, "confirmed", 5_000)) | change).encode()
    with pytest.raises(WebhookRejected) as refused:
        read_webhook(lower(webhook_headers(SECRET, body, NOW)), body, secret=SECRET, now=NOW)
    assert refused.value.code == "webhook_unreadable"


@given(st.binary(max_size=200))
def test_any_signed_bytes_are_read_or_refused(body):
    with pytest.raises(WebhookRejected):
        read_webhook(lower(webhook_headers(SECRET, body, NOW)), body, secret=SECRET, now=NOW)


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_different_parts_never_share_a_signature(one, two):
    assert (sign(SECRET, "p", *one) == sign(SECRET, "p", *two)) == (one == two)
    assert sign(SECRET, "p", *one) != sign(SECRET, "q", *one)


def test_a_question_is_signed_for_its_payment():
    headers = lower(status_headers(SECRET, ID, NOW))
    said = headers["x-provider-timestamp"], headers["x-provider-signature"]
    check_signed(*said, SECRET, NOW, "status", str(ID))
    for purpose, payment_id in (("status", str(UUID(int=5))), ("webhook", str(ID))):
        with pytest.raises(WebhookRejected):
            check_signed(*said, SECRET, NOW, purpose, payment_id)


def answer(**said):
    return json.dumps(
        {"payment_id": str(ID), "status": "confirmed", "amount_minor": 5_000, "event_id": "evt_1"} | said
    ).encode()


def test_answers_are_read():
    event = read_status(ID, answer())
    assert event is not None
    assert (event.event_id, event.status, event.amount_minor) == ("evt_1", PaymentEvent.CONFIRMED, 5_000)
    assert read_status(ID, answer(status="pending", event_id=None)) is None
    assert read_status(ID, answer(status="unknown", amount_minor=None)) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        answer(payment_id=str(UUID(int=5))),
        answer(event_id=None),
        answer(amount_minor=None),
        b"\xff",
    ],
)
def test_answers_that_make_no_sense_leave_the_payment_open(body):
    with pytest.raises(ProviderUnavailable):
        read_status(ID, body)


def test_amounts_must_agree():
    event = read_status(ID, answer())
    check_amount(event, PAYMENT)
    with pytest.raises(PaymentMismatch):
        check_amount(event, replace(PAYMENT, amount_minor=5_001))
