"""A street of real simulated meters behind a control port, without wires: enough for the town's pages."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from firmware_sim import meter as rules
from firmware_sim.meter_face import display, face
from firmware_sim.meter_state import MeterState, new_meter
from firmware_sim.town import Town, build_town
from token_engine.key_material import DecoderKey


@dataclass
class Street:
    """The meters, the switches, and what was asked."""

    town: Town = field(default_factory=build_town)
    states: dict[str, MeterState] = field(default_factory=dict)
    off: set[str] = field(default_factory=set)
    placed: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        for meter in self.town.meters:
            key = DecoderKey(bytes(range(8 if meter.ea == "07" else 16)))
            state = new_meter(meter, key)
            self.states[meter.drn], _ = rules.step(state, self.now_ms, 0, 1_200)

    @property
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def face(self, drn: str) -> dict[str, Any]:
        meter = self.town.meter_by_drn[drn]
        node = self.town.node_of(meter)
        code = node.code if node else None
        if drn in self.placed:
            code = self.town.usage_point_by_code[self.placed[drn]].node_code
        return face(meter, self.states[drn], code, self.now_ms)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        match method, path.strip("/").split("/"):
            case "GET", ["meters"]:
                return 200, [self.face(drn) for drn in self.states]
            case "GET", ["meters", drn] if drn in self.states:
                return 200, self.face(drn)
            case "POST", ["meters", drn, "keypad"] if drn in self.states:
                try:
                    state, told, _ = rules.enter_token(
                        self.states[drn], body["digits"], "keypad", self.now_ms
                    )
                except rules.NoPower as error:
                    return 409, {"error": str(error)}
                self.states[drn] = state
                return 200, {
                    "result": told.result.name,
                    "code": told.result.display_code,
                    "display": display(state, self.now_ms),
                    "credit": state.credit,
                }
            case "POST", ["meters", drn, "button"] if drn in self.states:
                self.states[drn], _ = rules.press_button(self.states[drn], self.now_ms)
                return 200, self.face(drn)
            case "POST", ["meters", drn, "install"] if drn in self.states:
                if (
                    self.town.meter_by_drn[drn].usage_point_code
                    or body["usage_point"] in self.placed.values()
                ):
                    return 400, {"error": "not there"}
                self.placed[drn] = body["usage_point"]
                return 200, self.face(drn)
            case "GET", ["network"]:
                return 200, [{"code": node.code, "on": node.code not in self.off} for node in self.town.nodes]
            case "POST", ["network", code, "power"] if code in self.town.node_by_code:
                (self.off.discard if body["on"] else self.off.add)(code)
                for meter in self.town.installed:
                    path_off = any(meter in self.town.meters_under(node) for node in self.off)
                    self.states[meter.drn], _ = rules.power(self.states[meter.drn], not path_off, self.now_ms)
                return 200, {}
        return 404, {"error": "not here"}


@contextmanager
def open_street() -> Iterator[Street]:
    """Serve a street on a free port of this machine."""
    street = Street()

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET", {})

        def do_POST(self) -> None:
            if self.headers.get("X-Raseed-Control") != "1":
                self._send(403, {})
                return
            self._answer("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, method: str, body: dict[str, Any]) -> None:
            self._send(*street.answer(method, self.path, body))

        def _send(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    street.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield street
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
