"""The control port: a small HTTP server on this machine only, for the town page, tests and the command line."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

log = logging.getLogger(__name__)
HOST: Final = "127.0.0.1"
MAX_HEAD_BYTES: Final = 8 * 1024
MAX_BODY_BYTES: Final = 4 * 1024  # the largest body is a token and a name
MAX_CONNECTIONS: Final = 64
TIMEOUT_S: Final = 10.0
# A page of another site can make a browser POST here, but cannot add this header without being asked first.
CONTROL_HEADER: Final = "x-raseed-control"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
}


class Refused(Exception):
    """A request that is answered with an error status and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """Method, path parts without the leading slash, and the JSON object of the body (empty without one)."""

    method: str
    path: tuple[str, ...]
    body: dict[str, Any]


Handler = Callable[[ControlRequest], Awaitable[Any]]


class ControlServer:
    """Serves `handler`, whose return value becomes JSON; it raises Refused for everything else."""

    def __init__(self, handler: Handler, port: int) -> None:
        self._handler = handler
        self._port = port
        self._server: asyncio.Server | None = None
        self._open = 0

    @property
    def port(self) -> int:
        """The port that is really listened on."""
        if self._server is None or not self._server.sockets:
            return self._port
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen on the loopback address. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._talk, HOST, self._port, limit=MAX_HEAD_BYTES)

    async def stop(self) -> None:
        """Close the listener."""
        if self._server:
            self._server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > MAX_CONNECTIONS:
                return
            status, answer = await self._answer(reader)
            payload = json.dumps(answer, ensure_ascii=False).encode()
            head = (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(payload)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + payload)
            await asyncio.wait_for(writer.drain(), TIMEOUT_S)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # the caller went away
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, Any]:
        try:
            request = await asyncio.wait_for(read_request(reader), TIMEOUT_S)
            return 200, await self._handler(request)
        except Refused as refused:
            return refused.status, {"error": str(refused)}
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            raise
        except Exception:
            log.exception("the control port failed")
            return 500, {"error": "the simulator failed; its log says why"}


async def read_request(reader: asyncio.StreamReader) -> ControlRequest:
    """Read one request. Raises Refused for what is not a plain small request from this machine."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise Refused(431, "the request's head is too long") from None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        raise Refused(400, "no HTTP request")
    method, target, _ = words
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    # A page whose name was made to point at this machine sends its own name here.
    if headers.get("host", HOST).rsplit(":", 1)[0] not in (HOST, "localhost", "[::1]"):
        raise Refused(403, "this port serves its own machine only")
    if method == "POST":
        if CONTROL_HEADER not in headers:
            raise Refused(403, "a POST needs the header X-Raseed-Control: 1")
    elif method != "GET":
        raise Refused(405, "GET or POST")
    body = await _read_body(reader, headers)
    return ControlRequest(method, tuple(part for part in target.split("?")[0].split("/") if part), body)


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> dict[str, Any]:
    if "transfer-encoding" in headers:
        raise Refused(400, "send a Content-Length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Refused(400, "Content-Length is a number")
    if len(length) > 9 or int(length) > MAX_BODY_BYTES:
        raise Refused(413, "the body is too long")
    raw = await reader.readexactly(int(length))
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body is a JSON object")
    return body
