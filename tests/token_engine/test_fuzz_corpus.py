"""Replays what the fuzzer found worth keeping, without the fuzzer: each input, and all of them together."""

import typing

import pytest

from tests.fuzz.token_fuzz import read_corpus, run_input
from token_engine.token_effect import TokenEffect
from token_engine.token_result import TokenResult

INPUTS = read_corpus()


@pytest.mark.parametrize("data", INPUTS, ids=lambda data: f"{len(data)}-{data[:6].hex()}")
def test_no_invariant_breaks(data):
    assert run_input(data)


def test_the_corpus_reaches_every_answer_and_every_effect():
    """A harness that got nowhere would pass every input above."""
    words = {word for data in INPUTS for behaviour in run_input(data) for word in behaviour.split()}
    assert {result.value for result in TokenResult} <= words
    assert {effect.__name__ for effect in typing.get_args(TokenEffect)} <= words
