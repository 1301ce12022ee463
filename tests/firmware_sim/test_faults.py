"""Each fault does to an answer what its name says, and they combine."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.faults import (
    FAULTS,
    LATE_S,
    MAX_FAULTS,
    NOISE,
    SLOW_WRITE_S,
    FaultBook,
    Piece,
    UnknownFault,
    check_fault,
    distort,
)
from firmware_sim.modbus_frame import RtuFrames, crc16, rtu_frame, tcp_frame

PDU = bytes((3, 4, 1, 2, 3, 4))
GOOD = rtu_frame(7, PDU)


def valid(frame):
    return crc16(frame[:-2]) == frame[-2:]


@pytest.mark.parametrize(
    ("fault", "writing", "expected"),
    [
        (None, False, (Piece(0, GOOD),)),
        ("late", False, (Piece(LATE_S, GOOD),)),
        ("short", False, (Piece(0, GOOD[:-3]),)),
        ("doubled", False, (Piece(0, GOOD), Piece(0, GOOD))),
        ("garbage", False, (Piece(0, NOISE + GOOD),)),
        ("wrong_unit", False, (Piece(0, rtu_frame(8, PDU)),)),
        ("wrong_count", False, (Piece(0, rtu_frame(7, bytes((3, 2, 1, 2)))),)),
        ("busy", False, (Piece(0, rtu_frame(7, bytes((0x83, 6)))),)),
        ("slow_write", True, (Piece(SLOW_WRITE_S, GOOD),)),
        ("slow_write", False, (Piece(0, GOOD),)),
        ("mute_write", True, ()),
        ("mute_write", False, (Piece(0, GOOD),)),
        ("dead", False, ()),
        ("counter_zero", False, (Piece(0, GOOD),)),
    ],
)
def test_what_goes_onto_the_wire(fault, writing, expected):
    assert distort(7, PDU, rtu_frame, {fault} if fault else (), writing) == expected


def test_a_corrupt_answer_fails_its_checksum_or_its_header():
    (serial,) = distort(7, PDU, rtu_frame, {"corrupt"}, False)
    assert not valid(serial.data)
    (tcp,) = distort(7, PDU, partial(tcp_frame, 9), {"corrupt"}, False)
    assert tcp.data[2:4] != b"\x00\x00"


@settings(max_examples=60)
@given(st.sets(st.sampled_from(sorted(FAULTS)), max_size=5), st.booleans(), st.integers(1, 247))
def test_faults_combine_without_failing(faults, writing, unit):
    for piece in distort(unit, PDU, rtu_frame, faults, writing):
        assert piece.delay_s >= 0
        RtuFrames().feed(piece.data)


def test_a_book_forgets_what_has_ended():
    book = FaultBook().with_fault("late", 1_000, 0).with_fault("short", 2_000, 0)
    assert book.at(500) == {"late", "short"}
    assert book.at(1_000) == {"short"}
    assert book.with_fault("short", 9_000, 500).at(8_000) == {"short"}


def test_a_book_is_bounded():
    book = FaultBook()
    for name in list(FAULTS)[:MAX_FAULTS]:
        book = book.with_fault(name, 10, 0)
    with pytest.raises(UnknownFault):
        book.with_fault("tamper", 10, 0)


@pytest.mark.parametrize(
    ("name", "seconds"), [("sulking", 5), ("late", -1), ("late", 1e9), ("late", float("nan"))]
)
def test_other_faults_are_refused(name, seconds):
    with pytest.raises(UnknownFault):
        check_fault(name, seconds)
