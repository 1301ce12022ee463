"""The line to the simulator: what it reads, and how it fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from portal import control_link
from portal.control_link import ControlLink, MeterDark, NotInTown, SimulatorUnavailable
from tests.portal.street import Street, open_street

WRONG = "11112222333344445555"


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    with open_street() as opened:
        yield opened


async def test_reads_every_face_and_every_switch(street: Street) -> None:
    link = ControlLink(street.url)
    faces = await link.list_faces()
    assert {face.drn for face in faces} == set(street.town.meter_by_drn)
    one = await link.get_face(faces[0].drn)
    assert one.display[0].startswith("CREDIT ")
    assert one.flows == (one.relay == 1)
    power = await link.list_power()
    assert set(power) == set(street.town.node_by_code)
    assert all(power.values())


async def test_a_typed_token_gets_the_meters_answer(street: Street) -> None:
    drn = street.town.installed[0].drn
    answer = await ControlLink(street.url).press_keypad(drn, WRONG)
    assert not answer.result.startswith("ACCEPT")
    assert 1 <= answer.code <= 15
    assert (await ControlLink(street.url).get_face(drn)).last_token_result == answer.result


async def test_power_is_cut_and_restored_and_a_dark_meter_has_no_keypad(street: Street) -> None:
    link = ControlLink(street.url)
    node = street.town.node_by_code["TX-2"]
    drn = next(m.drn for m in street.town.meters_under("TX-2"))
    await link.set_power(node.code, on=False)
    try:
        dark = await link.get_face(drn)
        assert (dark.powered, dark.flows, dark.display, dark.lamp) == (False, False, [], "off")
        assert not (await link.list_power())["TX-2"]
        with pytest.raises(MeterDark):
            await link.press_keypad(drn, WRONG)
    finally:
        await link.set_power(node.code, on=True)
    assert (await link.get_face(drn)).powered


@pytest.mark.parametrize("name", ["00000000000", "../network", "a b", ""])
async def test_what_is_not_in_town_is_said_so(street: Street, name: str) -> None:
    link = ControlLink(street.url)
    with pytest.raises(NotInTown):
        await link.press_keypad(name, WRONG)
    with pytest.raises(NotInTown):
        await link.set_power(name or "?", on=True)


async def test_nobody_there_is_its_own_error() -> None:
    for url in ("", "http://127.0.0.1:9"):
        with pytest.raises(SimulatorUnavailable):
            await ControlLink(url).list_faces()


@pytest.fixture
def odd_port() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A port that answers with whatever the test says, or not at all."""
    answers: dict[str, bytes] = {}
    release = threading.Event()

    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "silence" in answers:
                release.wait(5)
                return
            self.send_response(int(answers.get("status", b"200")))
            self.end_headers()
            self.wfile.write(answers.get("body", b""))

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    release.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body"), [(b"200", b"{}"), (b"200", b"not json"), (b"200", b'[{"drn": 1}]'), (b"500", b"[]")]
)
async def test_an_answer_that_is_not_understood_is_unavailable(
    odd_port: tuple[str, dict[str, bytes]], status: bytes, body: bytes
) -> None:
    url, answers = odd_port
    answers.update(status=status, body=body)
    with pytest.raises(SimulatorUnavailable):
        await ControlLink(url).list_faces()


async def test_a_silent_port_is_given_up(
    odd_port: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers = odd_port
    answers["silence"] = b"1"
    monkeypatch.setattr(control_link, "TIMEOUT_S", 0.2)
    async with asyncio.timeout(2):
        with pytest.raises(SimulatorUnavailable, match="Timeout"):
            await ControlLink(url).list_faces()
