"""There are names enough, each in both scripts, and none twice."""

import re

from firmware_sim import town_names
from firmware_sim.town import FREE_POINTS, HOUSEHOLDS

ARABIC = re.compile(r"[\u0600-\u06ff ]+")
PAIRS = [
    town_names.SUBSTATION,
    town_names.WATER_SOURCE,
    *town_names.FEEDERS,
    *town_names.TRANSFORMERS,
    *town_names.WATER_ZONES,
    *town_names.QUARTERS,
    *town_names.PEOPLE,
]


def test_every_name_stands_in_both_scripts():
    for english, arabic in PAIRS:
        assert english.isascii(), english
        assert ARABIC.fullmatch(arabic), arabic


def test_nobody_is_called_like_another():
    assert len({en for en, _ in town_names.PEOPLE}) == len(town_names.PEOPLE) == HOUSEHOLDS + FREE_POINTS
    assert len({ar for _, ar in town_names.PEOPLE}) == len(town_names.PEOPLE)
