"""What an operator's tools ask of a running role: its metrics, its health and its readiness, over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

from meter_gateway.vitals import Vitals

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

# A loop that does not answer within this is stuck: the process is alive to the kernel only.
ANSWER_S: Final = 3.0
# Until a role says what it is, and while it starts, it is not ready.
STARTING: Final = "starting"
STUCK: Final = f"the event loop did not answer within {ANSWER_S:g} s"
_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Exporter:
    """Answers /metrics, /health and /ready for one role, from a thread of its own.

    The vitals are taken inside the role's event loop, so that a loop that hangs is told from one that works.
    Without a port nothing listens, and `publish` may be called all the same.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        to_metrics: Callable[[Vitals], Iterable[Metric]],
        silent_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._to_metrics = to_metrics
        self._silent_s = silent_s
        self._clock = clock
        self._take: Callable[[], Vitals] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: ThreadingHTTPServer | None = None
        if port:
            self._server = ThreadingHTTPServer((host, port), _handler_of(self))
            self._server.daemon_threads = True

    @property
    def port(self) -> int:
        """The port it listens on; 0 when it does not."""
        return self._server.server_address[1] if self._server else 0

    def start(self) -> None:
        """Begin to answer."""
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, name="exporter", daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def publish(self, take: Callable[[], Vitals]) -> None:
        """Take the vitals by this call from now on; to be called inside the role's event loop."""
        self._loop = asyncio.get_running_loop()
        self._take = take

    def faults(self) -> list[str]:
        """Return why the role is not ready, in words."""
        vitals = self._vitals()
        if isinstance(vitals, str):
            return [vitals]
        return vitals.faults(self._clock(), silent_s=self._silent_s)

    def is_alive(self) -> bool:
        """Whether the role's loop still turns; true while it starts."""
        return self._vitals() != STUCK

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format: the process's own, and the role's once it works."""
        from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
        from prometheus_client.core import GaugeMetricFamily

        vitals = self._vitals()
        up = GaugeMetricFamily("raseed_ready", "1 when the role can do its work, 0 when not (see /ready)")
        ready = not isinstance(vitals, str) and not vitals.faults(self._clock(), silent_s=self._silent_s)
        up.add_metric([], float(ready))
        families = [up] if isinstance(vitals, str) else [up, *self._to_metrics(vitals)]
        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        registry.register(_Once(families))
        return generate_latest(registry)

    def _vitals(self) -> Vitals | str:
        """Return the vitals, or why there are none."""
        take, loop = self._take, self._loop
        if take is None or loop is None or loop.is_closed():
            return STARTING

        async def take_inside() -> Vitals:
            return take()

        coroutine = take_inside()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:  # it closed between the two lines
            coroutine.close()
            return STARTING
        try:
            return future.result(ANSWER_S)
        except CancelledError:
            return STARTING
        except TimeoutError:
            future.cancel()
            return STUCK


class _Once:
    """Metrics that were taken already, as a registry wants them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _handler_of(exporter: Exporter) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds: a caller that says nothing does not hold a thread

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._say(HTTPStatus.OK, _CONTENT_TYPE, exporter.metrics())
            elif self.path == "/health":
                self._json([] if exporter.is_alive() else [STUCK])
            elif self.path == "/ready":
                self._json(exporter.faults())
            else:
                self._say(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics, /health and /ready are here\n")

        def _json(self, faults: list[str]) -> None:
            status = HTTPStatus.SERVICE_UNAVAILABLE if faults else HTTPStatus.OK
            body = json.dumps({"status": "not ok" if faults else "ok", "faults": faults})
            self._say(status, "application/json", body.encode())

        def _say(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing: a scrape each few seconds is no news."""

    return Handler
