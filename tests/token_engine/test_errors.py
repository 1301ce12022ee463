"""Every refusal has a code of its own that callers may match on."""

import inspect

import pytest

from token_engine import errors
from token_engine.token_result import TokenResult

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.TokenEngineError) and kind.__module__ == errors.__name__
]


def test_codes_are_distinct_words():
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes) >= 10
    assert all(code.islower() and code.isidentifier() for code in codes)


@pytest.mark.parametrize(
    ("error", "attribute", "value"),
    [
        (errors.InvalidIdentity("ti_range", "text"), "rule", "ti_range"),
        (errors.InvalidTokenText("letter", "text"), "reason", "letter"),
        (errors.VaultRefused("unknown_key", "text"), "reason", "unknown_key"),
        (errors.TokenRejected(TokenResult.OLD_ERROR), "result", TokenResult.OLD_ERROR),
    ],
)
def test_details_ride_along(error, attribute, value):
    assert getattr(error, attribute) == value
    assert str(error)


def test_a_time_out_is_not_a_refusal():
    assert not issubclass(errors.VaultTimeout, errors.VaultRefused)
