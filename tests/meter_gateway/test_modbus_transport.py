"""The bytes of a bus: whose answer is taken, what ends a connection, and how silent a line stays."""

import asyncio
import os
import socket
import threading
from contextlib import asynccontextmanager

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.modbus_frame import crc16, rtu_frame, tcp_frame
from meter_gateway.bus.modbus_link import BusLink
from meter_gateway.bus.modbus_transport import UNACKED_MS, BusTransport, Lost, Silent
from meter_gateway.bus.site_file import BusAddress
from meter_gateway.profile import Read
from tests.benchmarks.paced_line import PacedLine, silence_s, silences

ASK = b"\x03\x00\x10\x00\x02"
ANSWER = b"\x03\x04\x11\x22\x33\x44"
REFUSAL = b"\x83\x02"
WRITTEN = b"\x10\x00\x10\x00\x02"
QUESTIONS = 8


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def far_end(framer, *scripts):
    """An open transport whose n-th question gets the n-th script: pieces of bytes, and seconds to wait."""
    waiting = list(scripts)

    async def serve(reader, writer):
        number = 0
        while question := await reader.read(300):
            number += 1
            for piece in waiting.pop(0) if waiting else ():
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                elif piece is None:
                    writer.close()
                    return
                else:
                    writer.write(piece(question) if callable(piece) else piece)
                    await writer.drain()
                    await asyncio.sleep(0.002)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = BusTransport(BusAddress("b", framer, "127.0.0.1", port, "", 9600, 0.15, 0.0))
    await transport.open()
    yield transport
    transport.close()
    server.close()


def mbap(pdu, unit=1, back=0):
    return lambda question: tcp_frame(int.from_bytes(question[:2], "big") - back, unit, pdu)


@pytest.mark.parametrize(
    "pieces",
    [
        [mbap(ANSWER)],
        [mbap(ANSWER, back=1), mbap(ANSWER)],
        [mbap(REFUSAL, unit=2), mbap(ANSWER)],
        [lambda q: mbap(ANSWER)(q)[:3], lambda q: mbap(ANSWER)(q)[3:9], lambda q: mbap(ANSWER)(q)[9:]],
        [lambda q: mbap(REFUSAL, back=1)(q) + mbap(ANSWER)(q)],
    ],
    ids=["whole", "after a late one", "after another unit's", "in pieces", "two at once"],
)
async def test_of_tcp_frames_only_the_one_of_this_number_and_unit_counts(pieces):
    async with far_end("tcp", [mbap(ANSWER)], pieces) as transport:
        for _ in range(2):
            assert await transport.ask(1, ASK) == ANSWER


async def test_what_is_no_modbus_tcp_ends_the_connection():
    async with far_end("tcp", [b"HTTP/1.1 400 Bad Request\r\n"]) as transport:
        with pytest.raises(Lost):
            await transport.ask(1, ASK)
        assert not transport.is_open


async def test_a_frame_that_never_ends_ends_the_connection():
    async with far_end("tcp", [b"\x00\x01\x00\x00\xff\xff\x01" + bytes(300)]) as transport:
        with pytest.raises(Lost):
            await transport.ask(1, ASK)


@pytest.mark.parametrize(
    "pieces",
    [
        [rtu_frame(1, ANSWER)],
        [bytes((0x00, 0xFF, 0x55, 0x01, 0x03, 0x7E, 0xAA)), rtu_frame(1, ANSWER)],
        [rtu_frame(2, ANSWER), rtu_frame(1, ANSWER)],
        [rtu_frame(1, b"\x04" + ANSWER[1:]), rtu_frame(1, ANSWER)],
        [rtu_frame(1, ANSWER)[:-1] + b"\x00", rtu_frame(1, ANSWER)],
        [rtu_frame(1, ANSWER)[place : place + 1] for place in range(9)],
        [rtu_frame(1, ANSWER) + b"\xff\x00"],
    ],
    ids=["whole", "after noise", "another unit", "another function", "spoilt", "in pieces", "noise behind"],
)
async def test_of_an_rtu_line_only_a_whole_answer_of_this_unit_and_function_counts(pieces):
    async with far_end("rtu_over_tcp", pieces, pieces) as transport:
        for _ in range(2):
            assert await transport.ask(1, ASK) == ANSWER
            await asyncio.sleep(0.01)


async def test_refusals_and_the_answer_to_a_write_have_lengths_of_their_own():
    async with far_end("rtu_over_tcp", [rtu_frame(1, REFUSAL)], [rtu_frame(1, WRITTEN)]) as transport:
        assert await transport.ask(1, ASK) == REFUSAL
        assert await transport.ask(1, b"\x10\x00\x10\x00\x02\x04\x00\x00\x00\x00") == WRITTEN


@pytest.mark.parametrize("framer", ["tcp", "rtu_over_tcp"])
async def test_silence_is_not_for_ever_and_a_closed_connection_is_told(framer):
    async with far_end(framer, [], [None]) as transport:
        with pytest.raises(Silent):
            await transport.ask(1, ASK)
        with pytest.raises(Lost):
            await transport.ask(1, ASK)
        with pytest.raises(Lost):
            await transport.ask(1, ASK)


async def test_a_converter_that_lost_its_supply_is_given_up():
    async with far_end("tcp") as transport:
        link = transport._line.get_extra_info("socket")
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNACKED_MS


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_whatever_comes_is_no_answer_without_its_checksum_or_number(pieces, is_rtu):
    async def feed():
        framer = "rtu_over_tcp" if is_rtu else "tcp"
        transport = BusTransport(BusAddress("b", framer, "", 0, "", 9600, 1.0, 0.0))
        transport._unit, transport._function, transport._number = 1, 3, 7
        waiter = transport._waiter = asyncio.get_running_loop().create_future()
        for piece in pieces:
            transport.data_received(piece)
        if not waiter.done():
            return
        if waiter.exception() is None:
            whole = b"".join(pieces)
            pdu = waiter.result()
            assert (crc16(b"\x01" + pdu) if is_rtu else b"\x00\x07\x00\x00") in whole

    asyncio.run(feed())


def test_the_stamps_of_a_paced_line_show_the_silence_before_each_question(anyio_backend):
    """A bridge of its own process stamps every byte; a silence is never shorter than it says."""

    def answer_on(tty):
        far = os.open(tty, os.O_RDWR | os.O_NOCTTY)
        asked = b""
        while len(asked) < 8 * QUESTIONS:
            asked += os.read(far, 64)
            if len(asked) % 8 == 0:
                os.write(far, rtu_frame(1, ANSWER))
        os.close(far)

    async def read_on(tty):
        link = BusLink(BusAddress("r", "rtu", "", 0, tty, 9600, 1.0, 0.5))
        for _ in range(QUESTIONS):
            assert await link.read(1, Read(3, 16, 2)) == [0x1122, 0x3344]
        link.close()

    with PacedLine(9600) as line:
        meter = threading.Thread(target=answer_on, args=(line.far,), daemon=True)
        meter.start()
        uvloop.run(read_on(line.near)) if anyio_backend[1]["use_uvloop"] else asyncio.run(read_on(line.near))
        meter.join(5)
        gaps = silences(line.passed())
    assert len(gaps) == QUESTIONS - 1
    assert min(gaps) >= silence_s(9600)
