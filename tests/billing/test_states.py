"""The state tables: every pair is decided, and the roads that cost money are the only ones there are."""

import itertools

import pytest

from billing.errors import BooksBroken
from billing.states import (
    OWED_STATES,
    PAYMENT_TABLE,
    UNFINISHED_STATES,
    VEND_TABLE,
    PaymentEffect,
    PaymentEvent,
    PaymentState,
    VendEvent,
    VendState,
    next_payment_state,
    next_vend_state,
)


def test_every_pair_is_decided():
    assert set(PAYMENT_TABLE) == set(itertools.product(PaymentState, PaymentEvent))
    assert set(VEND_TABLE) == set(itertools.product(VendState, VendEvent))


def test_money_moves_only_on_a_yes():
    for (state, event), (following, effect) in PAYMENT_TABLE.items():
        if effect in {PaymentEffect.SETTLE, PaymentEffect.SUSPENSE}:
            assert event is PaymentEvent.CONFIRMED
        if effect is PaymentEffect.SETTLE:
            assert following is PaymentState.CONFIRMED
            assert state is not PaymentState.CONFIRMED
        assert (following is PaymentState.CONFIRMED) == (
            state is PaymentState.CONFIRMED or effect is PaymentEffect.SETTLE
        )


@pytest.mark.parametrize("first", PaymentState)
def test_no_chain_of_events_settles_twice(first):
    for events in itertools.product(PaymentEvent, repeat=4):
        state, settled = first, 0
        for event in events:
            state, effect = next_payment_state(state, event)
            settled += effect is PaymentEffect.SETTLE
        assert settled <= 1


def test_no_chain_of_events_issues_twice_or_loses_money():
    for events in itertools.product(VendEvent, repeat=5):
        state, issued = VendState.QUOTED, 0
        for event in events:
            try:
                following = next_vend_state(state, event)
            except BooksBroken:
                break
            issued += following is VendState.VENDED and state is not VendState.VENDED
            if VendEvent.PAID in events[: events.index(event) + 1]:
                assert following is not VendState.QUOTED
            state = following
        assert issued <= 1


def test_what_is_unfinished_is_owed():
    assert set(UNFINISHED_STATES) < set(OWED_STATES)
    assert VendState.VENDED not in OWED_STATES


def test_asked_again_is_only_what_was_refused_and_returned_only_what_no_sale_waits_for():
    for state in VendState:
        retried, returned = VEND_TABLE[state, VendEvent.RETRIED], VEND_TABLE[state, VendEvent.RETURNED]
        if state is VendState.REFUSED:
            assert retried is VendState.REQUESTED
            assert retried in UNFINISHED_STATES
        else:
            assert retried in {state, None}
        assert (returned is VendState.REFUNDED) == (state in {VendState.QUOTED, VendState.REFUNDED})
    for gone in (VendState.QUOTED, VendState.REVERSED, VendState.REFUNDED):
        assert VEND_TABLE[gone, VendEvent.RETRIED] is None


def test_an_impossible_step_is_refused_loudly():
    with pytest.raises(BooksBroken):
        next_vend_state(VendState.QUOTED, VendEvent.ISSUED)
