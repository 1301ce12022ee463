"""A serial line as bytes, on a real pseudo terminal."""

import asyncio
import os
import tty

import pytest

from meter_gateway.bus.serial_line import open_line
from meter_gateway.bus.site_file import BusAddress
from tests.meter_gateway.roles import until


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}


class Heard:
    def __init__(self):
        self.data, self.ends = b"", []

    def data_received(self, data):
        self.data += data

    def connection_lost(self, exc):
        self.ends.append(exc)


class Pty:
    def __init__(self):
        self.near, self.far = os.openpty()
        tty.setraw(self.far)
        self.address = BusAddress("r", "rtu", "", 0, os.ttyname(self.far), 9600, 0.2, 0.2)

    def hang_up(self):
        for end in (self.near, self.far):
            os.close(end)


@pytest.fixture
def pty():
    return Pty()


async def test_bytes_go_and_come(pty):
    heard = Heard()
    line = open_line(pty.address, heard)
    line.write(b"question")
    assert os.read(pty.near, 100) == b"question"
    os.write(pty.near, b"ans")
    os.write(pty.near, b"wer")

    async def all_here():
        return heard.data == b"answer"

    await until(all_here)
    line.close()
    line.close()
    assert heard.ends == [None]
    pty.hang_up()


async def test_what_came_before_a_question_is_forgotten(pty):
    heard = Heard()
    line = open_line(pty.address, heard)
    os.write(pty.near, b"late")
    line.discard()
    await asyncio.sleep(0.02)
    assert heard.data == b""
    line.close()
    pty.hang_up()


async def test_a_line_that_is_pulled_out_is_told_once(pty):
    heard = Heard()
    line = open_line(pty.address, heard)
    pty.hang_up()

    async def told():
        return bool(heard.ends)

    await until(told)
    line.write(b"nobody")
    line.discard()
    assert len(heard.ends) == 1


async def test_one_owner(pty):
    line = open_line(pty.address, Heard())
    with pytest.raises(OSError, match="lock"):
        open_line(pty.address, Heard())
    line.close()
    open_line(pty.address, Heard()).close()
    pty.hang_up()


async def test_a_line_that_is_not_there_or_takes_no_such_setting_is_an_os_error(pty, monkeypatch):
    import termios

    from serial import Serial

    pty.hang_up()
    with pytest.raises(OSError):
        open_line(pty.address, Heard())

    def refuse(*_):
        raise termios.error(22, "Invalid argument")

    monkeypatch.setattr(Serial, "open", refuse)
    with pytest.raises(OSError, match="Invalid argument"):
        open_line(pty.address, Heard())
