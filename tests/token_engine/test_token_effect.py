"""Effects are plain facts: equal when they say the same."""

import typing

from token_engine import token_effect
from token_engine.token_effect import CreditAdded, TestRequested, TokenEffect


def test_effects_compare_by_content_and_can_be_counted():
    assert CreditAdded(0, 10) == CreditAdded(0, 10)
    assert len({CreditAdded(0, 10), CreditAdded(0, 10), CreditAdded(1, 10)}) == 2
    assert TestRequested(0, 1, 0) != TestRequested(1, 1, 0)


def test_the_union_names_every_effect_of_the_module():
    classes = {
        thing
        for thing in vars(token_effect).values()
        if getattr(thing, "__module__", "") == token_effect.__name__
    }
    assert set(typing.get_args(TokenEffect)) == {c for c in classes if isinstance(c, type)}
