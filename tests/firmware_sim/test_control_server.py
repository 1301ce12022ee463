"""The control port answers its own machine, in JSON, within its limits."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from firmware_sim.control_server import MAX_BODY_BYTES, ControlServer, Refused

POST = "POST /a/b?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8095\r\nX-Raseed-Control: 1\r\n"


async def echo(request):
    if request.path == ("boom",):
        raise RuntimeError("secret detail")
    if request.path == ("no",):
        raise Refused(409, "no")
    return {"method": request.method, "path": request.path, "body": request.body}


@asynccontextmanager
async def running():
    server = ControlServer(echo, 0)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(raw):
    async with running() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(raw.encode() if isinstance(raw, str) else raw)
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), json.loads(body)


async def test_get_and_post():
    assert await ask("GET /meters HTTP/1.1\r\nHost: localhost\r\n\r\n") == (
        200,
        {"method": "GET", "path": ["meters"], "body": {}},
    )
    assert await ask(f'{POST}Content-Length: 8\r\n\r\n{{"on": 1}}'[:-1] + "}") == (
        400,
        {"error": "the body is not JSON"},
    )
    assert await ask(f'{POST}Content-Length: 9\r\n\r\n{{"on": 1}}') == (
        200,
        {"method": "POST", "path": ["a", "b"], "body": {"on": 1}},
    )


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("POST /a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}", 403),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        ("PUT / HTTP/1.1\r\n\r\n", 405),
        ("nonsense\r\n\r\n", 400),
        ("GET meters HTTP/1.1\r\n\r\n", 400),
        (f"{POST}Content-Length: -1\r\n\r\n", 400),
        (f"{POST}Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n", 413),
        (f"{POST}Content-Length: {'9' * 300}\r\n\r\n", 413),
        (f"{POST}Transfer-Encoding: chunked\r\n\r\n", 400),
        (f"{POST}Content-Length: 2\r\n\r\n[]", 400),
        (f"{POST}Content-Length: 4000\r\n\r\n{'[' * 4000}", 400),
        ("GET / HTTP/1.1\r\nX: " + "a" * 9_000 + "\r\n\r\n", 431),
        ("GET /no HTTP/1.1\r\n\r\n", 409),
        ("GET /boom HTTP/1.1\r\n\r\n", 500),
        (b"\xff\xfe\r\n\r\n", 400),
    ],
)
async def test_others_get_an_error_and_a_sentence(raw, status):
    got, body = await ask(raw)
    assert got == status
    assert body["error"]
    assert "secret" not in body["error"]
