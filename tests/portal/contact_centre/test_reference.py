"""A reference survives the telephone: any single slip is caught, any digits are read."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.contact_centre.reference import InvalidReference, make_reference, normalise_reference

years = st.integers(2020, 2099)
numbers = st.integers(1, 999_999_999)


def accepted(text):
    try:
        return normalise_reference(text)
    except InvalidReference:
        return None


def test_the_shape():
    reference = make_reference(2026, 123)
    assert reference.startswith("R26-000123-")
    assert len(reference) == 12


@settings(max_examples=60)
@given(years, numbers)
def test_what_is_made_is_read(year, number):
    reference = make_reference(year, number)
    assert normalise_reference(reference) == reference


@pytest.mark.parametrize(
    ("year", "number"), [(2026, 123), (2030, 999_999), (2031, 1_000_000), (2099, 907_090)]
)
def test_every_single_wrong_character_is_caught(year, number):
    reference = make_reference(year, number)
    for place, char in enumerate(reference):
        if char == "-":
            continue
        for wrong in string.ascii_uppercase + string.digits:
            if wrong != char:
                assert accepted(reference[:place] + wrong + reference[place + 1 :]) is None


@settings(max_examples=80)
@given(years, numbers)
def test_every_swap_of_neighbours_is_caught(year, number):
    bare = make_reference(year, number).replace("-", "")
    for place in range(len(bare) - 1):
        first, second = bare[place], bare[place + 1]
        if first != second:
            assert accepted(bare[:place] + second + first + bare[place + 2 :]) is None


@pytest.mark.parametrize("zero", ["٠", "۰"])
def test_any_case_any_digits_any_separator(zero):
    reference = make_reference(2026, 123)
    digits = {str(n): chr(ord(zero) + n) for n in range(10)}
    typed = "".join(digits.get(char, char) for char in reference)
    assert normalise_reference(typed) == reference
    assert normalise_reference(f"  {reference.lower().replace('-', ' ')} ") == reference
    assert normalise_reference(reference.replace("-", "")) == reference


@pytest.mark.parametrize(
    "text", ["", "R", "R26-123-C", "12345", "R26-000123", "x" * 500, "R26-000123-I", "🙂"]
)
def test_other_text_is_not_a_reference(text):
    with pytest.raises(InvalidReference) as caught:
        normalise_reference(text)
    assert caught.value.reason in {"shape", "check_letter"}


@pytest.mark.parametrize(("year", "number"), [(1999, 1), (2100, 1), (2026, 0), (2026, 10**9)])
def test_numbers_that_do_not_fit_are_refused(year, number):
    with pytest.raises(ValueError, match="reference"):
        make_reference(year, number)
