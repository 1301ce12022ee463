"""Results and the display codes of one meter."""

from token_engine.token_result import TokenResult


def test_every_result_has_a_display_code_of_the_meter():
    assert {result.display_code for result in TokenResult} == set(range(1, 16))
    assert TokenResult.LOCKED_OUT.display_code == 15
    assert TokenResult.CRC_ERROR.display_code == 13


def test_only_taking_a_token_counts_as_accepted():
    accepted = {result for result in TokenResult if result.is_accepted}
    assert accepted == {
        TokenResult.ACCEPT,
        TokenResult.FIRST_KCT,
        TokenResult.SECOND_KCT,
        TokenResult.THIRD_KCT,
        TokenResult.FOURTH_KCT,
    }
