"""Readings as typed, and words for every refusal that the field's verbs can give."""

import argparse
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from portal.field.install import InstallRefused
from raseed import field_commission, field_meter, field_words
from raseed.field_bus import FieldRefused
from tests.billing.world import NOW
from tests.portal.swap_world import FINAL, make_old, take_down
from tests.portal.test_remove_meter import sell_token

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


def order(**said):
    nothing = {"counter": None, "credit": None, "silent": None, "tokens": None, "key": "", "yes": True}
    return argparse.Namespace(**nothing | said)


async def test_an_order_that_was_carried_out_needs_no_reading_again(pool):
    old = await make_old(pool)
    gone = await take_down(pool, old.meter_id, key="lost-line")
    later = NOW + timedelta(hours=1)
    async with pool.connection() as conn:
        final = await field_meter.final_of(conn, order(key="lost-line"), old.meter_id, later)
        with pytest.raises(InstallRefused, match="reading_needed"):
            await field_meter.final_of(conn, order(key="another"), old.meter_id, later)
    again = await take_down(pool, old.meter_id, final, key="lost-line", now=later)
    assert (again.carry.id, again.is_repeat) == (gone.carry.id, True)


async def test_a_word_names_the_tokens_that_it_speaks_of(pool, capsys):
    old = await make_old(pool)
    await sell_token(pool, old.house)
    said = order(counter="1234.56", credit="4.25", silent="taken")
    async with pool.connection() as conn:
        dry = await field_meter.final_of(conn, order(**vars(said) | {"yes": False}), old.meter_id, NOW)
        assert f"not reported back: token {dry.shown[0]}, " in capsys.readouterr().out
        with pytest.raises(FieldRefused, match=f"--tokens {dry.shown[0]}"):
            await field_meter.final_of(conn, said, old.meter_id, NOW)
        named = await field_meter.final_of(conn, order(**vars(said) | {"tokens": (7,)}), old.meter_id, NOW)
    assert (named, dry) == (
        replace(FINAL, silent="taken", shown=(7,)),
        replace(named, shown=dry.shown),
    )
