"""How long a scan takes, and how well profiles fit what was heard."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_gateway.bus import survey
from meter_gateway.bus.survey import Heard, Reason, Score
from meter_gateway.profile import load_profile, profile_names
from meter_gateway.site_task import check_argument

E1 = load_profile("raseed-prepaid-e1")
VALUES = {
    "serial": "04777000011",
    "credit": 5_000,
    "credit_unit": 0,
    "relay": 1,
    "counter": 1_234_500,
    "load": 800,
    "voltage": 238_000,
}


def heard(values=None, profile=E1, limit=125, **changed):
    words = dict.fromkeys(((3, address) for address in range(0x1000, 0x10E0)), 0)
    for address, word in profile.encode((VALUES if values is None else values) | changed).items():
        words[3, address] = word
    return Heard(words, {}, limit)


def test_silence_of_a_whole_bus_takes_bearable_time():
    argument = check_argument("scan", {}, framer="rtu")
    assert 50 < survey.estimate_s("scan", argument, framer="rtu") < 75
    four = check_argument("scan", {"bauds": [9600, 19200], "parities": ["E", "N"]}, framer="rtu")
    assert [str(line) for line in survey.scan_lines(four, baud=9600)] == [
        "9600 8N1",
        "19200 8N1",
        "9600 8E1",
        "19200 8E1",
    ]
    assert survey.estimate_s("trace", {"seconds": 7, "unit": 0}, framer="tcp") == 7
    assert survey.estimate_s("probe", {"unit": 1, "profiles": []}, framer="rtu") > 5


def test_the_right_profile_stands_out():
    score = survey.score_profile(E1, heard())
    assert not score.is_ruled_out and score.points >= survey.LIKELY
    assert {reason.code for reason in score.reasons} == {
        "serial_is_drn",
        "credit_unit",
        "plausible",
        "read_limit",
    }


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"voltage": 12_000}, "implausible"),
        ({"counter": 2**50}, "implausible"),
        ({"credit_unit": 1}, "credit_unit"),
        ({"serial": ""}, "serial_empty"),
    ],
)
def test_what_rules_a_profile_out(changed, code):
    score = survey.score_profile(E1, heard(**changed))
    assert score.is_ruled_out and any(reason.code == code and reason.points < 0 for reason in score.reasons)


def test_a_meter_of_another_maker_that_answers_with_exceptions():
    reads = survey.probe_reads(["raseed-prepaid-e1"])
    score = survey.score_profile(E1, Heard({}, dict.fromkeys(reads, 2)))
    assert score.is_ruled_out and all("exception 2" in reason.text for reason in score.reasons)


def test_a_wrong_check_digit_is_only_a_text():
    reasons = survey.score_profile(E1, heard(serial="04777000012")).reasons
    assert [reason.points for reason in reasons if reason.register == "serial"] == [10]


def score(name, points, ruled_out=False):
    return Score(name, name, points, ruled_out, (Reason("x", points, ""),))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], None),
        ([score("a", 90)], "a"),
        ([score("a", 50)], None),
        ([score("a", 90), score("b", 85)], None),
        ([score("a", 90), score("b", 70)], "a"),
        ([score("a", 90), score("b", 95, True)], "a"),
    ],
)
def test_one_is_named_only_when_it_stands_out(scores, expected):
    assert survey.likely(survey.rank(scores)) == expected


@pytest.mark.parametrize("name", profile_names())
def test_mailboxes_are_never_shown(name):
    profile = load_profile(name)
    assert not any(profile.registers[one].writable for one in survey.shown_names(profile))
    assert "token" not in survey.shown_names(profile)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1_234_500, "Wh", "1234.5 kWh"),
        (-5, "Wh", "-0.005 kWh"),
        (1_000_000, "mL", "1 m³"),
        (238_900, "mV", "238.9 V"),
        (None, "Wh", "no value"),
        ("none", "", "none"),
        (7, "", "7"),
    ],
)
def test_as_a_display_shows_it(value, unit, text):
    assert survey.show(value, unit) == text


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.integers(0x1000, 0x10DF), st.integers(0, 0xFFFF), max_size=60),
    st.sampled_from(profile_names()),
)
def test_any_words_get_a_score(words, name):
    found = survey.score_profile(load_profile(name), Heard({(3, at): word for at, word in words.items()}, {}))
    assert 0 <= found.points <= 100 and (found.points == 0 or not found.is_ruled_out)
