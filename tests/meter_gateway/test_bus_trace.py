"""Frames in plain words, and never what is in them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_gateway.bus.bus_trace import MAX_LINES, Frame, crc16, describe, summary

TOKEN = bytes.fromhex("12345678901234567890")


def rtu(unit, pdu):
    frame = bytes([unit]) + pdu
    return frame + crc16(frame)


def tcp(unit, pdu, number=1):
    return number.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big") + bytes([unit]) + pdu


ASK = b"\x03\x10\x00\x00\x02"
ANSWER = b"\x03\x04\xca\xfe\xba\xbe"


@pytest.mark.parametrize(
    ("came", "kind", "text"),
    [
        ([rtu(7, ANSWER)], "answer", "answer of unit 7, 9 bytes, 106 ms"),
        ([rtu(7, ANSWER)[:4], rtu(7, ANSWER)[4:]], "answer", "answer of unit 7, 9 bytes, 106 ms"),
        ([], "silence", "unit 7 did not answer in time"),
        ([rtu(7, b"\x83\x02")], "exception", "exception 2: it has no register at this address"),
        ([rtu(9, ANSWER)], "wrong_unit", "unit 9 answered though unit 7 was asked"),
        ([rtu(7, ANSWER)[:-1] + b"!"], "garbled", "the checksum is wrong"),
        ([rtu(7, b"\x03\x02\xca\xfe")], "garbled", "2 bytes of values instead of 4"),
        ([rtu(7, b"\x04\x04\xca\xfe\xba\xbe")], "garbled", "function 4 instead of 3"),
    ],
)
def test_what_came(came, kind, text):
    frames = [Frame(1204, True, rtu(7, ASK)), *(Frame(1310, False, data) for data in came)]
    asked, told = describe(frames, is_rtu=True)
    assert asked.text == "asked unit 7 for 2 registers from 0x1000"
    assert told.kind == kind and text in told.text


def test_a_converter_and_what_nobody_asked_for():
    frames = [Frame(0, False, b"noise"), Frame(1, True, tcp(4, ASK)), Frame(5, False, tcp(4, b"\x83\x0b"))]
    lines = describe(frames, is_rtu=False)
    assert [line.kind for line in lines] == ["asked", "exception"] or [line.kind for line in lines] == [
        "garbled",
        "asked",
        "exception",
    ]
    assert "nobody answers behind the converter" in lines[-1].text


def test_the_digits_of_a_token_are_never_shown():
    write = b"\x10\x10\x50\x00\x05\x0a" + TOKEN
    lines = describe([Frame(0, True, rtu(7, write)), Frame(9, False, rtu(7, write[:5]))], is_rtu=True)
    assert [line.kind for line in lines] == ["written", "answer"]
    told = str(summary(lines))
    assert "contents not shown" in told and "1234" not in told.replace(" ", "")


def test_a_long_trace_is_counted_to_its_end():
    frames = [Frame(at, True, rtu(1 + at % 2, ASK)) for at in range(MAX_LINES + 10)]
    result = summary(describe(frames, is_rtu=True))
    assert (len(result["lines"]), result["dropped"]) == (MAX_LINES, MAX_LINES + 20)
    assert {line["unit"] for line in summary(describe(frames, is_rtu=True), unit=2)["lines"]} == {2}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=20)), max_size=12), st.booleans())
def test_no_noise_breaks_it(pieces, is_rtu):
    frames = [Frame(place, is_sent, data) for place, (is_sent, data) in enumerate(pieces)]
    lines = describe(frames, is_rtu=is_rtu)
    assert sum(line.kind in ("asked", "written") for line in lines) == sum(frame.is_sent for frame in frames)
