"""An MQTT 5 broker of our own for the demo: its settings, its command line, and when it serves.

The broker is rumqttd, from the wheel iotcore. It keeps its queues in memory only and has no users, so it is
bound to 127.0.0.1; who needs more puts a real broker behind MQTT_URL.
"""

import asyncio
import contextlib
import importlib.util
import sys
from pathlib import Path

from raseed import broker_child, processes
from raseed.supervisor import ChildSpec

HOST = "127.0.0.1"
# 10,000 meters that speak MQTT themselves, their gateways, and room for tools.
MAX_CONNECTIONS = 12_100
MAX_PAYLOAD_BYTES = 256 * 1024
# Unacknowledged QoS 1 messages per connection, unless the client asks for fewer (Receive Maximum).
MAX_INFLIGHT = 200
# Each subscription filter keeps its last messages for slow and sleeping clients: 16 segments of 1 MiB hold
# 80,000 readings, 8 minutes of 10,000 meters, and cost at most 40 MB with their bookkeeping.
SEGMENT_BYTES = 1024 * 1024
SEGMENTS = 16
# A client that does not finish its CONNECT in this time is dropped.
CONNECT_TIMEOUT_MS = 10_000
READY_TIMEOUT_S = 15.0
READY_POLL_S = 0.05

_CONFIG = """\
id = 0
[router]
id = 0
max_connections = {max_connections}
max_outgoing_packet_count = 200
max_segment_size = {segment_bytes}
max_segment_count = {segments}
[v5.1]
name = "v5"
listen = "{host}:{port}"
next_connection_delay_ms = 0
[v5.1.connections]
connection_timeout_ms = {connect_timeout_ms}
max_payload_size = {max_payload}
max_inflight_count = {max_inflight}
dynamic_filters = true
"""
# CONNECT of MQTT 5 (3.1): clean start, keep alive 5 s, no properties, client id "raseed-probe".
_CONNECT = b"\x10\x19\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x0craseed-probe"
_DISCONNECT = b"\xe0\x00"
_CONNACK = 0x20


class BrokerUnavailable(Exception):
    """The embedded broker cannot be used here; the text says what to do."""


class EmbeddedBroker:
    """One broker for MQTT 5 on 127.0.0.1:`port`; its settings file is all it keeps in `folder`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder.absolute()
        self.port = port
        self._native = find_native_module()

    @property
    def mqtt_url(self) -> str:
        """Address of the broker."""
        return f"mqtt://{HOST}:{self.port}"

    @property
    def config_file(self) -> Path:
        """The broker's settings (TOML), written before each start."""
        return self.folder / "broker.toml"

    def argv(self) -> list[str]:
        """Command line of the broker: one process without the site packages, half as large for it."""
        return [sys.executable, "-I", "-S", broker_child.__file__, str(self._native), str(self.config_file)]

    def child_spec(self, name: str = "broker") -> ChildSpec:
        """How the supervisor runs it."""
        return ChildSpec(
            name=name,
            argv=self.argv(),
            prepare=self.prepare,
            ready=self.wait_ready,
            ready_timeout_s=READY_TIMEOUT_S,
            stop_timeout_s=3.0,
        )

    async def prepare(self) -> None:
        """Before each start: write the settings; raises BrokerUnavailable if folder or port refuse."""
        text = _CONFIG.format(
            max_connections=MAX_CONNECTIONS,
            segment_bytes=SEGMENT_BYTES,
            segments=SEGMENTS,
            host=HOST,
            port=self.port,
            connect_timeout_ms=CONNECT_TIMEOUT_MS,
            max_payload=MAX_PAYLOAD_BYTES,
            max_inflight=MAX_INFLIGHT,
        )
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.config_file.write_text(text, encoding="ascii")
        except OSError as error:
            raise BrokerUnavailable(f"cannot write to {self.folder}: {error}") from error
        if processes.is_port_taken(HOST, self.port):
            raise BrokerUnavailable(f"port {self.port} is in use: choose another for the broker")

    async def wait_ready(self, limit_s: float = READY_TIMEOUT_S) -> None:
        """Return as soon as the broker accepts an MQTT 5 session; raises BrokerUnavailable."""
        deadline = asyncio.get_running_loop().time() + limit_s
        while not await _accepts_session(self.port):
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerUnavailable(
                    f"the broker did not serve on {HOST}:{self.port} within {limit_s:g} s"
                )
            await asyncio.sleep(READY_POLL_S)


def find_native_module() -> Path:
    """The wheel's native module, found without importing the package; raises BrokerUnavailable."""
    spec = importlib.util.find_spec("iotcore")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(place).glob("iotcore*.so")):
            return file
    raise BrokerUnavailable("iotcore is not installed: install it, or give MQTT_URL")


async def _accepts_session(port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(_CONNECT)
                accepted = (await reader.read(1))[:1] == bytes([_CONNACK])
                writer.write(_DISCONNECT)
                return accepted
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
