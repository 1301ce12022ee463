"""Digits as people type and paste them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_engine.errors import InvalidTokenText
from token_engine.token_text import MAX_TYPED, group_digits, normalise_digits

GOOD = "70630503470028726114"
ARABIC = "٧٠٦٣٠٥٠٣٤٧٠٠٢٨٧٢٦١١٤"
PERSIAN = "۷۰۶۳۰۵۰۳۴۷۰۰۲۸۷۲۶۱۱۴"


@pytest.mark.parametrize(
    "typed",
    [
        GOOD,
        ARABIC,
        PERSIAN,
        "७०६३०५०३४७००२८७२६११४",
        "৭০৬৩০৫০৩৪৭০০২৮৭২৬১১৪",
        ARABIC[:10] + PERSIAN[10:12] + GOOD[12:],
        "7063 0503 4700 2872 6114",
        " 7063-0503-4700-2872-6114\n",
        "7063\u00a00503\u00a04700\u00a02872\u00a06114",
        "\u20667063\u202f0503\u20074700–2872—6114\u2069",
        "\u200f٧٠٦٣ ٠٥٠٣ ٤٧٠٠ ٢٨٧٢ ٦١١٤\u200e",
        "7063.0503.4700.2872.6114",
    ],
)
def test_all_the_ways_to_write_one_token(typed):
    assert normalise_digits(typed) == GOOD


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "too_short"),
        ("   ", "too_short"),
        (GOOD[:-1], "too_short"),
        (GOOD + "1", "too_long"),
        (GOOD + " " * MAX_TYPED, "too_long"),
        ("7063O503470028726114", "letter"),
        ("+" + GOOD, "letter"),
        ("²" * 20, "letter"),
    ],
)
def test_what_is_no_token_says_why(typed, reason):
    with pytest.raises(InvalidTokenText) as refusal:
        normalise_digits(typed)
    assert refusal.value.reason == reason


@given(st.text(max_size=60))
@settings(max_examples=150)
def test_any_text_gives_twenty_digits_or_a_refusal(text):
    try:
        digits = normalise_digits(text)
    except InvalidTokenText:
        return
    assert len(digits) == 20
    assert digits.isascii()
    assert digits.isdigit()


def test_groups_stay_together_in_arabic():
    assert group_digits(GOOD) == "7063\u00a00503\u00a04700\u00a02872\u00a06114"
    assert group_digits(GOOD, "-") == "7063-0503-4700-2872-6114"
    assert normalise_digits(group_digits(GOOD)) == GOOD
