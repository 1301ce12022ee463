"""Frames against pymodbus as an independent peer, and against noise."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, WriteMultipleCoilsRequest, WriteSingleCoilRequest
from pymodbus.pdu.register_message import (
    MaskWriteRegisterRequest,
    ReadHoldingRegistersRequest,
    ReadWriteMultipleRegistersRequest,
    WriteMultipleRegistersRequest,
)

from firmware_sim.modbus_frame import (
    BrokenFrame,
    ModbusRefusal,
    Request,
    RtuFrames,
    TcpFrames,
    answer,
    crc16,
    is_write,
    rtu_frame,
    tcp_frame,
)

REQUESTS = [
    ReadHoldingRegistersRequest(address=0x1000, count=48, dev_id=17),
    WriteMultipleRegistersRequest(address=0x1050, registers=[1, 2, 3, 0xFFFF], dev_id=17),
]


# What no meter here knows must be refused, and for that its end must be found.
UNKNOWN = [
    ReadCoilsRequest(address=1, count=3, dev_id=17),
    WriteSingleCoilRequest(address=1, bits=[True], dev_id=17),
    WriteMultipleCoilsRequest(address=1, bits=[True] * 11, dev_id=17),
    MaskWriteRegisterRequest(address=1, dev_id=17),
    ReadWriteMultipleRegistersRequest(
        read_address=1, read_count=2, write_address=3, write_registers=[4, 5], dev_id=17
    ),
]


def pdu_of(request):
    return bytes((request.function_code,)) + request.encode()


@pytest.mark.parametrize("request_", [*REQUESTS, *UNKNOWN], ids=lambda r: type(r).__name__)
def test_frames_of_pymodbus_are_understood(request_):
    request_.transaction_id = 0x0102
    pdu = pdu_of(request_)
    assert RtuFrames().feed(FramerRTU(DecodePDU(True)).buildFrame(request_)) == [Request(17, pdu)]
    assert TcpFrames().feed(FramerSocket(DecodePDU(True)).buildFrame(request_)) == [Request(17, pdu, 0x0102)]


def test_the_checksum_of_the_published_example():
    assert crc16(bytes.fromhex("0207")) == bytes.fromhex("4112")  # Modbus over serial line 1.02, annex


@settings(max_examples=80)
@given(st.binary(max_size=40), st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3), st.data())
def test_requests_are_found_in_any_cut_and_after_noise(noise, requests, data):
    frames = RtuFrames()
    frames.feed(noise)
    frames.silence()
    stream = b"".join(rtu_frame(r.dev_id, pdu_of(r)) for r in requests)
    found = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += frames.feed(stream[:cut])
        stream = stream[cut:]
    assert found == [Request(r.dev_id, pdu_of(r)) for r in requests]


def test_a_request_behind_noise_is_found_without_a_pause():
    good = rtu_frame(5, bytes((3, 0x10, 0, 0, 1)))
    assert RtuFrames().feed(b"\x00\x03\xff" + good + b"\x01") == [Request(5, bytes((3, 0x10, 0, 0, 1)))]


@settings(max_examples=80)
@given(st.binary(max_size=600))
def test_noise_never_breaks_the_reader(noise):
    for request in RtuFrames().feed(noise):
        assert rtu_frame(request.unit, request.pdu) in noise
    with contextlib.suppress(BrokenFrame):
        TcpFrames().feed(noise)


@pytest.mark.parametrize("stream", ["000100010006010310000001", "00010000ffff01", "0001000000010103"])
def test_no_modbus_on_tcp_is_told(stream):
    with pytest.raises(BrokenFrame):
        TcpFrames().feed(bytes.fromhex(stream))


def test_two_requests_in_one_segment():
    one, two = tcp_frame(1, 3, b"\x03\x10\x00\x00\x01"), tcp_frame(2, 4, b"\x03\x10\x00\x00\x02")
    assert [r.transaction for r in TcpFrames().feed(one + two)] == [1, 2]


def refuse(*_):
    raise ModbusRefusal(2)


@pytest.mark.parametrize(
    ("pdu", "expected"),
    [
        ("0310000002", "03040064006a"),  # read
        ("0410000002", "04040064006a"),
        ("0310000000", "8303"),  # nothing asked
        ("031000007e", "8303"),  # 126 asked
        ("03100000", "8303"),  # cut
        ("1010500002040001ffff", "1010500002"),
        ("1010500002030001ffff", "9003"),  # wrong byte count
        ("1010500002040001ff", "9003"),
        ("0610500001", "8601"),  # single writes are not known
        ("2b0e01", "ab01"),
        ("", "8001"),
    ],
)
def test_answers(pdu, expected):
    def read(fc, address, count):
        assert (fc, address, count) == (int(pdu[:2], 16), 0x1000, 2)
        return [100, 106]

    written = []
    got = answer(bytes.fromhex(pdu), read, lambda address, words: written.append((address, words)))
    assert got.hex() == expected
    assert written == ([(0x1050, [1, 0xFFFF])] if expected == "1010500002" else [])


def test_a_refusal_becomes_an_exception():
    assert answer(bytes.fromhex("0310000002"), refuse, refuse).hex() == "8302"
    assert answer(bytes.fromhex("1010500001020001"), refuse, refuse).hex() == "9002"


def test_what_writes():
    assert [is_write(bytes((fc,))) for fc in (3, 4, 6, 16)] == [False, False, True, True]
