"""The state machines of a payment and of a vend: tables in which every pair (state, event) is decided."""

from __future__ import annotations

from enum import StrEnum

from billing.errors import BooksBroken


class PaymentState(StrEnum):
    """Where a payment stands; PENDING with a silent provider is shown as unknown."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    DECLINED = "DECLINED"
    EXPIRED = "EXPIRED"


class PaymentEvent(StrEnum):
    """What happens to a payment."""

    REDIRECTED = "redirected"  # the customer was sent to the provider
    CONFIRMED = "confirmed"  # the provider says paid
    DECLINED = "declined"  # the provider says not paid
    GIVEN_UP = "given_up"  # the provider says that nothing happened, and time is over


class PaymentEffect(StrEnum):
    """What the books do with it."""

    NONE = "none"
    SETTLE = "settle"  # post to prepaid liability, vend PAID
    SUSPENSE = "suspense"  # money that no sale waits for: hold it for a person, tell the customer
    CONTRADICTED = "contradicted"  # a provider takes back its yes: kept as an event, a person looks


_S, _E, _F = PaymentState, PaymentEvent, PaymentEffect

PAYMENT_TABLE: dict[tuple[PaymentState, PaymentEvent], tuple[PaymentState, PaymentEffect]] = {
    (_S.CREATED, _E.REDIRECTED): (_S.PENDING, _F.NONE),
    (_S.CREATED, _E.CONFIRMED): (_S.CONFIRMED, _F.SETTLE),
    (_S.CREATED, _E.DECLINED): (_S.DECLINED, _F.NONE),
    (_S.CREATED, _E.GIVEN_UP): (_S.EXPIRED, _F.NONE),
    (_S.PENDING, _E.REDIRECTED): (_S.PENDING, _F.NONE),
    (_S.PENDING, _E.CONFIRMED): (_S.CONFIRMED, _F.SETTLE),
    (_S.PENDING, _E.DECLINED): (_S.DECLINED, _F.NONE),
    (_S.PENDING, _E.GIVEN_UP): (_S.EXPIRED, _F.NONE),
    (_S.CONFIRMED, _E.REDIRECTED): (_S.CONFIRMED, _F.NONE),
    (_S.CONFIRMED, _E.CONFIRMED): (_S.CONFIRMED, _F.NONE),
    (_S.CONFIRMED, _E.DECLINED): (_S.CONFIRMED, _F.CONTRADICTED),
    (_S.CONFIRMED, _E.GIVEN_UP): (_S.CONFIRMED, _F.NONE),
    (_S.DECLINED, _E.REDIRECTED): (_S.DECLINED, _F.NONE),
    # The customer was told no and may have bought again: a token now could be a second, unwanted sale.
    (_S.DECLINED, _E.CONFIRMED): (_S.DECLINED, _F.SUSPENSE),
    (_S.DECLINED, _E.DECLINED): (_S.DECLINED, _F.NONE),
    (_S.DECLINED, _E.GIVEN_UP): (_S.DECLINED, _F.NONE),
    (_S.EXPIRED, _E.REDIRECTED): (_S.EXPIRED, _F.NONE),
    # Nobody was told no: a late yes is honoured at the quote that was shown.
    (_S.EXPIRED, _E.CONFIRMED): (_S.CONFIRMED, _F.SETTLE),
    (_S.EXPIRED, _E.DECLINED): (_S.DECLINED, _F.NONE),
    (_S.EXPIRED, _E.GIVEN_UP): (_S.EXPIRED, _F.NONE),
}


class VendState(StrEnum):
    """Where a vend stands; UNKNOWN is asked again under the same id and never called failed."""

    QUOTED = "QUOTED"
    PAID = "PAID"
    REQUESTED = "REQUESTED"
    VENDED = "VENDED"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"
    REVERSED = "REVERSED"
    REFUNDED = "REFUNDED"


class VendEvent(StrEnum):
    """What happens to a vend."""

    PAID = "paid"
    ASKED = "asked"  # the vault is asked
    ISSUED = "issued"  # the vault gave the token
    REFUSED = "refused"  # the vault says no, nothing was issued
    TIMED_OUT = "timed_out"  # no answer: the outcome is unknown
    REVERSED = "reversed"  # the books take an issued token back (proven unused)
    REFUNDED = "refunded"  # the money went back to the customer
    RETURNED = "returned"  # so did money in suspense, which no token was ever owed for
    RETRIED = "retried"  # a person says that the reason of a refusal is gone: ask again, same id, same TID


_V, _W = VendState, VendEvent

# None: this cannot happen by any road through the code, and is refused loudly.
VEND_TABLE: dict[tuple[VendState, VendEvent], VendState | None] = {
    (_V.QUOTED, _W.PAID): _V.PAID,
    (_V.QUOTED, _W.ASKED): None,
    (_V.QUOTED, _W.ISSUED): None,
    (_V.QUOTED, _W.REFUSED): None,
    (_V.QUOTED, _W.TIMED_OUT): None,
    (_V.QUOTED, _W.REVERSED): None,
    (_V.QUOTED, _W.REFUNDED): None,
    (_V.QUOTED, _W.RETURNED): _V.REFUNDED,
    (_V.QUOTED, _W.RETRIED): None,
    (_V.PAID, _W.PAID): _V.PAID,
    (_V.PAID, _W.ASKED): _V.REQUESTED,
    (_V.PAID, _W.ISSUED): None,
    (_V.PAID, _W.REFUSED): None,
    (_V.PAID, _W.TIMED_OUT): None,
    (_V.PAID, _W.REVERSED): None,
    (_V.PAID, _W.REFUNDED): None,
    (_V.PAID, _W.RETURNED): None,
    (_V.PAID, _W.RETRIED): _V.PAID,
    (_V.REQUESTED, _W.PAID): _V.REQUESTED,
    (_V.REQUESTED, _W.ASKED): _V.REQUESTED,
    (_V.REQUESTED, _W.ISSUED): _V.VENDED,
    (_V.REQUESTED, _W.REFUSED): _V.REFUSED,
    (_V.REQUESTED, _W.TIMED_OUT): _V.UNKNOWN,
    (_V.REQUESTED, _W.REVERSED): None,
    (_V.REQUESTED, _W.REFUNDED): None,
    (_V.REQUESTED, _W.RETURNED): None,
    (_V.REQUESTED, _W.RETRIED): _V.REQUESTED,
    # Asked again, the customer still sees "unknown": only an answer ends it.
    (_V.UNKNOWN, _W.PAID): _V.UNKNOWN,
    (_V.UNKNOWN, _W.ASKED): _V.UNKNOWN,
    (_V.UNKNOWN, _W.ISSUED): _V.VENDED,
    (_V.UNKNOWN, _W.REFUSED): _V.REFUSED,
    (_V.UNKNOWN, _W.TIMED_OUT): _V.UNKNOWN,
    (_V.UNKNOWN, _W.REVERSED): None,
    (_V.UNKNOWN, _W.REFUNDED): None,
    (_V.UNKNOWN, _W.RETURNED): None,
    (_V.UNKNOWN, _W.RETRIED): _V.UNKNOWN,
    # Two workers may bring the same answer: the second one changes nothing.
    (_V.VENDED, _W.PAID): _V.VENDED,
    (_V.VENDED, _W.ASKED): _V.VENDED,
    (_V.VENDED, _W.ISSUED): _V.VENDED,
    (_V.VENDED, _W.REFUSED): _V.VENDED,
    (_V.VENDED, _W.TIMED_OUT): _V.VENDED,
    (_V.VENDED, _W.REVERSED): _V.REVERSED,
    (_V.VENDED, _W.REFUNDED): None,
    (_V.VENDED, _W.RETURNED): None,
    (_V.VENDED, _W.RETRIED): _V.VENDED,
    (_V.REFUSED, _W.PAID): _V.REFUSED,
    (_V.REFUSED, _W.ASKED): _V.REFUSED,
    (_V.REFUSED, _W.ISSUED): None,
    (_V.REFUSED, _W.REFUSED): _V.REFUSED,
    (_V.REFUSED, _W.TIMED_OUT): _V.REFUSED,
    (_V.REFUSED, _W.REVERSED): None,
    (_V.REFUSED, _W.REFUNDED): _V.REFUNDED,
    (_V.REFUSED, _W.RETURNED): None,
    # Not PAID: the answer to an attempt that is still on its way must find its place.
    (_V.REFUSED, _W.RETRIED): _V.REQUESTED,
    (_V.REVERSED, _W.PAID): _V.REVERSED,
    (_V.REVERSED, _W.ASKED): _V.REVERSED,
    (_V.REVERSED, _W.ISSUED): _V.REVERSED,
    (_V.REVERSED, _W.REFUSED): _V.REVERSED,
    (_V.REVERSED, _W.TIMED_OUT): _V.REVERSED,
    (_V.REVERSED, _W.REVERSED): _V.REVERSED,
    (_V.REVERSED, _W.REFUNDED): _V.REFUNDED,
    (_V.REVERSED, _W.RETURNED): None,
    (_V.REVERSED, _W.RETRIED): None,
    (_V.REFUNDED, _W.PAID): _V.REFUNDED,
    (_V.REFUNDED, _W.ASKED): _V.REFUNDED,
    (_V.REFUNDED, _W.ISSUED): None,
    (_V.REFUNDED, _W.REFUSED): _V.REFUNDED,
    (_V.REFUNDED, _W.TIMED_OUT): _V.REFUNDED,
    (_V.REFUNDED, _W.REVERSED): None,
    (_V.REFUNDED, _W.REFUNDED): _V.REFUNDED,
    (_V.REFUNDED, _W.RETURNED): _V.REFUNDED,
    (_V.REFUNDED, _W.RETRIED): None,
}

# Money is in, no token is out: these are what the prepaid liability is owed for.
OWED_STATES = (VendState.PAID, VendState.REQUESTED, VendState.UNKNOWN, VendState.REFUSED, VendState.REVERSED)
# The worker goes on with these until an answer comes.
UNFINISHED_STATES = (VendState.PAID, VendState.REQUESTED, VendState.UNKNOWN)


def next_payment_state(state: PaymentState, event: PaymentEvent) -> tuple[PaymentState, PaymentEffect]:
    """The state after `event` and what the books do."""
    return PAYMENT_TABLE[state, event]


def next_vend_state(state: VendState, event: VendEvent) -> VendState:
    """The state after `event`. Raises BooksBroken for a pair that no road leads to."""
    following = VEND_TABLE[state, event]
    if following is None:
        raise BooksBroken("vend_step_impossible", f"a vend that is {state} cannot be {event}")
    return following
