"""One MQTT 5 connection on the asyncio loop: paho's client without its thread and without select()."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

log = logging.getLogger(__name__)
KEEPALIVE_S: Final = 30  # a radio link that is silent for longer than one and a half of this is dead
CONNECT_TIMEOUT_S: Final = 5.0
QOS: Final = 1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is, from mqtt://user:password@host:port or mqtts://."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read a URL. Raises ValueError when it is none of MQTT."""
        parts = urlsplit(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError("the broker's address is mqtt://host:port or mqtts://host:port")
        tls = parts.scheme == "mqtts"
        return cls(
            parts.hostname,
            parts.port or (8883 if tls else 1883),
            tls,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
        )

    def __repr__(self) -> str:
        """Without the password."""
        return f"<Endpoint {self.host}:{self.port}>"


class Speaker(Protocol):
    """Who uses a connection; all calls come on the loop's own thread."""

    def connected(self) -> None:
        """The broker took us."""

    def disconnected(self) -> None:
        """The connection ended, or never came to be."""

    def heard(self, topic: str, payload: bytes) -> None:
        """A message arrived."""


def _connects(client: Client, endpoint: Endpoint) -> bool:
    """Whether the broker could be called; on a thread. An error that left here would keep its frames alive."""
    try:
        client.connect(endpoint.host, endpoint.port, KEEPALIVE_S)
    except (OSError, ValueError):
        return False
    return True


class MqttConnection:
    """From `open` to the end of one session; a new session takes a new object."""

    def __init__(self, endpoint: Endpoint, client_id: str, will: tuple[str, bytes], speaker: Speaker) -> None:
        self._endpoint = endpoint
        self._speaker = speaker
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self.up = False
        client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.will_set(*will, qos=QOS)
        if endpoint.user:
            client.username_pw_set(endpoint.user, endpoint.password)
        if endpoint.tls:
            client.tls_set()
        client.on_socket_open = self._socket_open
        client.on_socket_close = self._socket_close
        client.on_socket_register_write = self._register_write
        client.on_socket_unregister_write = self._unregister_write
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        self._client = client

    async def open(self, threads: Executor) -> None:
        """Connect; the name look-up and the handshake block, so they run on a thread. Never raises OSError."""
        if not await self._loop.run_in_executor(threads, _connects, self._client, self._endpoint):
            self._end()

    def subscribe(self, topic: str) -> None:
        """Hear a topic from now on."""
        if not self._ended:
            self._client.subscribe(topic, QOS)

    def publish(self, topic: str, payload: bytes) -> None:
        """Hand a message to the broker; nothing is promised until the platform's receipt."""
        if not self._ended:
            self._client.publish(topic, payload, QOS)

    def tend(self) -> None:
        """Keep-alive; call about once a second."""
        if not self._ended:
            self._client.loop_misc()

    def drop(self) -> None:
        """Break the line without a word, as when the power goes; the broker then publishes the will."""
        sock = None if self._ended else self._client.socket()
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say goodbye, and ask for the will to be published: the meter is gone all the same."""
        if not self._ended:
            self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))

    def _end(self) -> None:
        if not self._ended:
            self._ended, self.up = True, False
            self._loop.call_soon(self._let_go)  # paho still stands in the middle of telling us
            self._speaker.disconnected()

    def _let_go(self) -> None:
        """Cut the ring of client and callbacks, so that its memory is free at once.

        A broker that dies makes ten thousand old clients in a second. The collector of rings looks at old ones
        only when a quarter more have come: until then they would stay beside their successors.
        """
        client = self._client
        client.on_socket_open = client.on_socket_close = None
        client.on_socket_register_write = client.on_socket_unregister_write = None
        client.on_connect = client.on_disconnect = client.on_message = None

    def _soon(self, work: Callable[[Any], None], sock: Any) -> None:
        """Bring paho's socket calls to our thread: it makes them on the connecting thread or on ours."""
        with contextlib.suppress(RuntimeError):  # the process stops and the loop is closed
            self._loop.call_soon_threadsafe(work, sock)

    def _socket_open(self, _client: Client, _data: Any, sock: Any) -> None:
        self._soon(self._add_reader, sock)

    def _socket_close(self, _client: Client, _data: Any, sock: Any) -> None:
        # The descriptor is closed right after this call, so it must leave the loop at once.
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)

    def _register_write(self, _client: Client, _data: Any, sock: Any) -> None:
        self._soon(self._add_writer, sock)

    def _unregister_write(self, _client: Client, _data: Any, sock: Any) -> None:
        self._soon(self._remove_writer, sock)

    def _add_reader(self, sock: Any) -> None:
        if sock.fileno() >= 0:  # it may have failed and closed meanwhile
            self._loop.add_reader(sock, self._readable)

    def _add_writer(self, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.add_writer(sock, self._writable)

    def _remove_writer(self, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock)

    def _readable(self) -> None:
        self._client.loop_read()

    def _writable(self) -> None:
        self._client.loop_write()

    def _on_connect(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("broker refused a meter: %s", reason)
            return
        self.up = True
        self._speaker.connected()

    def _on_disconnect(self, *_: Any) -> None:
        self._end()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            self._speaker.heard(message.topic, bytes(message.payload))
        except Exception:  # an exception here would leave paho half way through a packet
            log.exception("a message could not be handled")
