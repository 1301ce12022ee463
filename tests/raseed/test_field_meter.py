"""Readings as typed, and words for every refusal that the field's verbs can give."""

import re
from pathlib import Path

import pytest

from raseed import field_commission, field_meter, field_words
from raseed.field_bus import FieldRefused

TOP = Path(__file__).resolve().parents[2]
VERBS = ("install", "take_stock", "remove_meter", "replace_meter", "checklist", "commission")


@pytest.mark.parametrize(
    ("typed", "commodity", "value"),
    [
        ("800", "electricity", 800_000),
        ("4,25", "electricity", 4_250),
        ("-0.5", "electricity", -500),
        ("1.5", "water", 1_500_000),
    ],
)
def test_what_a_display_shows(typed, commodity, value):
    assert field_meter.amount(typed, commodity) == value


@pytest.mark.parametrize("typed", ["", "many", "0.0001", "NaN", "1e30"])
def test_what_no_display_shows(typed):
    with pytest.raises(FieldRefused):
        field_meter.amount(typed, "electricity")


@pytest.mark.parametrize("verb", VERBS)
def test_every_refusal_has_words(verb):
    body = (TOP / "portal" / "field" / f"{verb}.py").read_text("utf-8")
    for reason in set(re.findall(r'InstallRefused\("([a-z_]+)"\)', body)) | set(
        re.findall(r'return "((?:critical|tamper|no_|link_|not_)[a-z_]*)"', body)
    ):
        assert field_words.refusal_text(reason) != reason, reason


def test_what_is_checked_by_hand_is_of_the_checklist():
    from portal.field.take_draft import HAND_ITEMS

    assert set(field_commission.BY_HAND) <= HAND_ITEMS
