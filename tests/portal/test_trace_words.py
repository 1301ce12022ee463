"""Everything that the trace and the probe of a bus can say has a sentence in both languages."""

from __future__ import annotations

import re

import pytest

from meter_gateway.bus import bus_trace, survey
from meter_gateway.bus.bus_trace import Frame, crc16
from portal.field.trace_words import KIND_WORDS, failure_words, reason_words, trace_words
from tests.portal.small_town import languages

ARABIC = re.compile(r"[\u0600-\u06ff]")


def rtu(*data):
    body = bytes(data)
    return body + crc16(body)


ASK = rtu(7, 3, 0x10, 0, 0, 2)
ANSWERS = {
    "answer": rtu(7, 3, 4, 0, 1, 0, 2),
    "exception": rtu(7, 0x83, 2),
    "wrong_unit": rtu(8, 3, 4, 0, 1, 0, 2),
    "garbled": b"\x07\x03\x04\x00",
    "other function": rtu(7, 4, 4, 0, 1, 0, 2),
    "too short": rtu(7, 3, 2, 0, 1),
    "silence": b"",
}
EXPECTED = {
    "answer": "Unit 7 answered: 9 bytes after 20 ms.",
    "exception": "Unit 7 refuses: it has no register at this address (exception 2).",
    "wrong_unit": "Unit 8 answered though unit 7 was asked.",
    "garbled": "An answer came that cannot be read: 4 bytes after 20 ms.",
    "other function": "Unit 7 answered something else than it was asked for.",
    "too short": "Unit 7 answered 2 bytes instead of 4.",
    "silence": "Unit 7 did not answer in time.",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_went_over_the_wire_is_a_sentence(name):
    frames = [Frame(1000, True, ASK)]
    if ANSWERS[name]:
        frames.append(Frame(1020, False, ANSWERS[name]))
    asked, came = bus_trace.describe(frames, is_rtu=True)
    english, arabic = languages()["en"], languages()["ar"]
    assert trace_words(asked.told(), english) == "Asked unit 7 for 2 registers from 0x1000."
    assert trace_words(came.told(), english) == EXPECTED[name]
    said = trace_words(came.told(), arabic)
    assert ARABIC.search(said) and not re.search(r"[A-Za-z]{3,} [a-z]{2,}", said)
    assert came.kind in KIND_WORDS


def test_other_lines_fall_back_to_their_kind():
    arabic = languages()["ar"]
    frames = [
        Frame(0, True, rtu(7, 16, 0x20, 0, 0, 4, 8, *range(8))),
        Frame(9, False, rtu(7, 16, 0x20, 0, 0, 4)),
    ]
    for line in bus_trace.describe(frames, is_rtu=True):
        assert ARABIC.search(trace_words(line.told(), arabic))
    assert "4" in trace_words(bus_trace.describe(frames, is_rtu=True)[0].told(), arabic)
    assert ARABIC.search(trace_words({"kind": "new", "text": "something of tomorrow"}, arabic))


def test_every_reason_of_a_probe_has_words():
    codes = set(re.findall(r'Reason\(\s*"(\w+)"', open(survey.__file__, encoding="utf-8").read()))  # noqa: PTH123, SIM115
    assert {"serial_is_drn", "refuses"} <= codes
    for code in codes:
        for points in (10, -10):
            reason = {"code": code, "points": points, "register": "credit", "value": 5}
            words = reason_words(reason, languages()["ar"])
            assert ARABIC.search(words)
            assert "يرجّحه" not in words and "ينفيه" not in words, f"{code} has no sentence of its own"


def test_a_failure_says_what_to_do():
    for reason in ("bus_down", "no_answer", "restarted", "never heard"):
        assert ARABIC.search(failure_words({"reason": reason}, languages()["ar"]))
