"""The signed talk with a payment provider: links to its page, its webhooks, and its answers when asked.

Every signature is HMAC-SHA256 over a purpose word and the exact parts, so that one made for a link can never
pass for a webhook. Pure: bytes and `now` go in, events or an exception come out.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from billing.errors import PaymentMismatch, ProviderUnavailable, WebhookRejected
from billing.payment_store import Payment
from billing.states import PaymentEvent

PROVIDER = "sandbox"
CURRENCY = "OMR"
TIMESTAMP_HEADER = "X-Provider-Timestamp"
SIGNATURE_HEADER = "X-Provider-Signature"
# A replay of an old message dies after this; clocks of two companies differ by seconds, retries are signed anew.
TIMESTAMP_TOLERANCE = timedelta(minutes=5)
# The provider's page takes no payment after this; we ask about a silent one for longer.
LINK_LIFETIME = timedelta(minutes=20)
MAX_EVENT_ID = 100  # a provider's id is a UUID or a number with a prefix


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """What the provider says about a payment, by its own event id; amount in baisa."""

    event_id: str
    payment_id: UUID
    status: PaymentEvent
    amount_minor: int
    body_sha256: bytes
    provider: str = PROVIDER


@dataclass(frozen=True, slots=True)
class PayLink:
    """What a link to the provider's page says, once its signature was checked."""

    payment_id: UUID
    amount_minor: int
    language: str
    return_url: str
    expires_at: datetime


class _WebhookBody(msgspec.Struct):
    event_id: str
    payment_id: UUID
    status: Literal["confirmed", "declined"]
    amount_minor: int
    currency: str


class _StatusBody(msgspec.Struct):
    payment_id: UUID
    status: Literal["confirmed", "declined", "pending", "unknown"]
    amount_minor: int | None = None
    event_id: str | None = None


def sign(secret: str, purpose: str, *parts: str) -> str:
    """Hex HMAC-SHA256 over the purpose and the parts, each with its length before it."""
    message = b"".join(b"%d:%s" % (len(raw), raw) for raw in (part.encode() for part in (purpose, *parts)))
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


# -- the link to the provider's page ------------------------------------------------------------------------


def redirect_url(
    payment: Payment, *, provider_url: str, provider_secret: str, return_url: str, now: datetime
) -> str:
    """Where the customer pays: the provider's page with the payment's terms, signed."""
    link = PayLink(payment.id, payment.amount_minor, payment.language, return_url, now + LINK_LIFETIME)
    return f"{provider_url.rstrip('/')}/pay?{urlencode(link_params(link, provider_secret))}"


def link_params(link: PayLink, secret: str) -> dict[str, str]:
    """The query parameters of a link, with its signature."""
    params = {
        "payment": str(link.payment_id),
        "amount": str(link.amount_minor),
        "currency": CURRENCY,
        "language": link.language,
        "return_url": link.return_url,
        "expires": str(int(link.expires_at.timestamp())),
    }
    return {**params, "signature": sign(secret, "pay", *params.values())}


def read_link(params: Mapping[str, str], secret: str, now: datetime) -> PayLink:
    """Check a link's parameters. Raises WebhookRejected (`link_signature`, `link_expired`)."""
    names = ("payment", "amount", "currency", "language", "return_url", "expires")
    parts = [params.get(name, "") for name in names]
    if not _same(params.get("signature", ""), sign(secret, "pay", *parts)):
        raise WebhookRejected("link_signature", "this payment link was changed on its way")
    link = PayLink(
        UUID(parts[0]), int(parts[1]), parts[3], parts[4], datetime.fromtimestamp(int(parts[5]), UTC)
    )
    if now > link.expires_at:
        raise WebhookRejected("link_expired", "this payment link is too old")
    return link


# -- the provider speaks ------------------------------------------------------------------------------------


def webhook_headers(secret: str, body: bytes, now: datetime) -> dict[str, str]:
    """The headers a webhook needs, signed for the moment of this very attempt."""
    timestamp = str(int(now.timestamp()))
    return {
        "Content-Type": "application/json",
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: sign(secret, "webhook", timestamp, hashlib.sha256(body).hexdigest()),
    }


def webhook_body(event_id: str, payment_id: UUID, status: str, amount_minor: int) -> bytes:
    """The body of a webhook: the same words for the same event, whenever it is sent."""
    return msgspec.json.encode(
        {
            "event_id": event_id,
            "payment_id": payment_id,
            "status": status,
            "amount_minor": amount_minor,
            "currency": CURRENCY,
        }
    )


def read_webhook(headers: Mapping[str, str], body: bytes, *, secret: str, now: datetime) -> ProviderEvent:
    """Check and read a webhook; `headers` is case-insensitive or lower case.

    Raises WebhookRejected: `webhook_unsigned`, `webhook_signature`, `webhook_stale`, `webhook_unreadable`.
    """
    timestamp = headers.get(TIMESTAMP_HEADER.lower(), "")
    signature = headers.get(SIGNATURE_HEADER.lower(), "")
    check_signed(timestamp, signature, secret, now, "webhook", hashlib.sha256(body).hexdigest())
    try:
        said = msgspec.json.decode(body, type=_WebhookBody)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WebhookRejected("webhook_unreadable", f"not a webhook: {error}") from None
    if not 0 < len(said.event_id) <= MAX_EVENT_ID or said.currency != CURRENCY or said.amount_minor <= 0:
        raise WebhookRejected("webhook_unreadable", "event id, currency or amount is out of bounds")
    return ProviderEvent(
        said.event_id,
        said.payment_id,
        PaymentEvent(said.status),
        said.amount_minor,
        hashlib.sha256(body).digest(),
    )


def check_signed(
    timestamp: str, signature: str, secret: str, now: datetime, purpose: str, *parts: str
) -> None:
    """Check a signature and that it was made just now. Raises WebhookRejected."""
    if not timestamp or not signature:
        raise WebhookRejected("webhook_unsigned", "signature or timestamp is missing")
    if not _same(signature, sign(secret, purpose, timestamp, *parts)):
        raise WebhookRejected("webhook_signature", "the signature does not match")
    # Signed, so it is what our own partner wrote; still it may be no number.
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise WebhookRejected("webhook_stale", "the timestamp is no number of seconds")
    age = abs(now.timestamp() - int(timestamp))
    if age > TIMESTAMP_TOLERANCE.total_seconds():
        raise WebhookRejected("webhook_stale", "the message is too old, or from the future")


def check_amount(event: ProviderEvent, payment: Payment) -> None:
    """Refuse an event about another amount than the payment's. Raises PaymentMismatch."""
    if event.amount_minor != payment.amount_minor:
        raise PaymentMismatch(
            "payment_amount_differs",
            f"payment {payment.id} is over {payment.amount_minor}, the provider says {event.amount_minor}",
        )


# -- we ask the provider ------------------------------------------------------------------------------------


def status_path(payment_id: UUID) -> str:
    """The path that answers how a payment stands."""
    return f"/payments/{payment_id}"


def status_headers(secret: str, payment_id: UUID, now: datetime) -> dict[str, str]:
    """The headers that let us ask."""
    timestamp = str(int(now.timestamp()))
    signature = sign(secret, "status", timestamp, str(payment_id))
    return {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: signature}


def read_status(payment_id: UUID, body: bytes) -> ProviderEvent | None:
    """What the provider answers: an event, or None while nothing is decided there.

    Raises ProviderUnavailable when the answer makes no sense or is about another payment.
    """
    try:
        said = msgspec.json.decode(body, type=_StatusBody)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProviderUnavailable("provider_unreadable", f"not an answer: {error}") from None
    if said.payment_id != payment_id:
        raise ProviderUnavailable("provider_unreadable", "the answer is about another payment")
    if said.status in {"pending", "unknown"}:
        return None
    if said.amount_minor is None or not said.event_id or len(said.event_id) > MAX_EVENT_ID:
        raise ProviderUnavailable("provider_unreadable", "a decided payment comes with amount and event id")
    return ProviderEvent(
        said.event_id,
        payment_id,
        PaymentEvent(said.status),
        said.amount_minor,
        hashlib.sha256(body).digest(),
    )
