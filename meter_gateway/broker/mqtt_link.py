"""One MQTT 5 connection that comes back by itself: messages in by a bounded queue, acked when the caller says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from meter_gateway.broker.broker_login import BrokerLogin, Proof
from meter_gateway.broker.mqtt_packet import Publish, pubacks, publish_qos0

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

    from meter_gateway.broker.mqtt_socket import BurstClient, BurstSocket

log = logging.getLogger(__name__)

KEEPALIVE_S: Final = 30
# The network thread waits this long for room in the queue, well under the keep-alive, then drops the
# connection: what was not acked comes again.
ROOM_WAIT_S: Final = 10.0
# What waits in the queue is bounded in bytes too: an uplink has 150 bytes or, after a long outage, 100 kB.
QUEUE_BYTES: Final = 8 * 1024 * 1024
# First wait before a reconnect, and the most: spread by chance so that a herd does not return at once.
RECONNECT_MIN_S: Final = 0.5
RECONNECT_MAX_S: Final = 20.0
# paho holds at most this many unsent messages in memory; ours wait in the outbox or in the database.
MAX_HELD: Final = 1000
# A look at the network thread this often: should it die of a fault, it is started again.
WATCH_S: Final = 2.0


class InvalidMqttUrl(ValueError):
    """The MQTT address does not look like mqtt://user:password@host:port."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The link is up; `generation` counts connections, `session` is the number in the will."""

    generation: int
    session_present: bool
    session: int = 0


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The link is down; it comes back by itself."""

    reason: str


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A message that waits for its acknowledgement."""

    topic: str
    payload: bytes
    generation: int
    mid: int
    qos: int


LinkEvent = Connected | Disconnected | Incoming
# Called with the number of the connection about to be made; returns topic and payload of its will.
MakeWill = Callable[[int], tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class MqttAddress:
    """A broker's address, as an URL names it."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None


def parse_url(url: str) -> MqttAddress:
    """Return the parts of an MQTT URL. Raises InvalidMqttUrl."""
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise InvalidMqttUrl("an MQTT address looks like mqtt://127.0.0.1:1883")
    tls = parts.scheme == "mqtts"
    try:
        port = parts.port or (8883 if tls else 1883)
    except ValueError:
        raise InvalidMqttUrl("the port of the MQTT address is no number") from None
    user = unquote(parts.username) if parts.username else None
    return MqttAddress(parts.hostname, port, tls, user, unquote(parts.password) if parts.password else None)


class MqttLink:
    """A connection under a fixed client id. Use `start`, then `next_event` for ever, then `stop`."""

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        subscriptions: Sequence[str],
        session_expiry_s: int = 86_400,
        receive_maximum: int = 1000,
        queue_size: int = 2000,
        queue_bytes: int = QUEUE_BYTES,
        make_will: MakeWill | None = None,
        login: BrokerLogin | None = None,
    ) -> None:
        """Raises InvalidMqttUrl, and InvalidLogin when a file of `login` cannot be used."""
        self._address = parse_url(url)
        self._proof = Proof(login or BrokerLogin(), is_tls=self._address.tls)
        self._client_id = client_id
        self._subscriptions = [(topic, 1) for topic in subscriptions]
        self._session_expiry_s = session_expiry_s
        self._receive_maximum = receive_maximum
        self._make_will = make_will
        self._queue_size = queue_size
        self._queue_bytes = queue_bytes
        self._room = threading.Condition()
        self._held = 0
        self._held_bytes = 0
        self._events: deque[LinkEvent] = deque()
        self._arrived = asyncio.Event()
        self._client: BurstClient | None = None
        self._burst: BurstSocket | None = None  # of the present generation
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: asyncio.Task[None] | None = None
        self._attempt = 0
        self._generation = 0
        self._connected = False
        self._stopping = False

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the present connection."""
        return self._connected

    @property
    def waiting(self) -> int:
        """How many messages came and were not taken yet."""
        return self._held

    @property
    def session(self) -> int:
        """The number of the latest connection attempt: what its will carries."""
        return self._attempt

    async def start(self) -> None:
        """Begin to connect, and keep at it; returns at once."""
        from paho.mqtt.client import MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        from meter_gateway.broker.mqtt_socket import BurstClient

        self._loop = asyncio.get_running_loop()
        client = BurstClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTv5,
            manual_ack=True,
            take=self._take,
        )
        if self._address.user is not None:
            client.username_pw_set(self._address.user, self._address.password)
        self._proof.equip(client)
        client.max_queued_messages_set(MAX_HELD)
        client.max_inflight_messages_set(200)
        client.on_pre_connect = self._on_pre_connect
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        self._spread(client)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._session_expiry_s
        properties.ReceiveMaximum = self._receive_maximum
        client.connect_async(
            self._address.host,
            self._address.port,
            keepalive=KEEPALIVE_S,
            clean_start=False,
            properties=properties,
        )
        self._client = client
        client.loop_start()
        self._watch = asyncio.create_task(self._watch_thread())

    async def next_event(self) -> LinkEvent:
        """Return what happened next: a message, or the link going up or down."""
        await self._wait()
        return self._pop(1)[0]

    async def next_batch(self, limit: int, linger_s: float) -> list[LinkEvent]:
        """Return what has come, at least one event and at most `limit`.

        Who finds nothing there waits, and then `linger_s` more for what comes along with the first.
        """
        if not self._events:
            await self._wait()
            if len(self._events) < limit:
                await asyncio.sleep(linger_s)
        return self._pop(limit)

    async def _wait(self) -> None:
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()

    def _pop(self, limit: int) -> list[LinkEvent]:
        events = self._events
        batch = [events.popleft() for _ in range(min(limit, len(events)))]
        sizes = [len(event.payload) for event in batch if isinstance(event, Incoming)]
        with self._room:
            self._held -= len(sizes)
            self._held_bytes -= sum(sizes)
            self._room.notify()
        return batch

    def ack(self, message: Incoming) -> None:
        """Tell the broker that a message is stored. An acknowledgement of an earlier connection is dropped."""
        self.ack_all((message,))

    def ack_all(self, messages: Iterable[Incoming]) -> None:
        """Acknowledge messages in the order in which they came, with one write."""
        burst, generation = self._burst, self._generation
        if burst is None or self._client is None:
            return
        mine = [message for message in messages if message.generation == generation]
        # A burst belongs to one connection: should that end meanwhile, these bytes end with it.
        self._write(burst, pubacks(message.mid for message in mine if message.qos == 1))
        for message in mine:
            if message.qos > 1:
                self._client.ack(message.mid, message.qos)

    def send_all(self, messages: Iterable[tuple[str, bytes]], *, expiry_s: int) -> None:
        """Say (topic, payload) pairs at QoS 0, with one write: for what is said again when it is not heard."""
        burst = self._burst  # once: the network thread may take it away at any moment
        if burst is not None:
            packets = [publish_qos0(topic, payload, expiry_s=expiry_s) for topic, payload in messages]
            self._write(burst, b"".join(packets))

    @staticmethod
    def _write(burst: BurstSocket, data: bytes) -> None:
        if data:
            with contextlib.suppress(OSError):  # the network thread finds out by itself
                burst.send(data)

    def publish(self, topic: str, payload: bytes, *, expiry_s: int | None = None) -> bool:
        """Hand a message to the broker at QoS 1; False when the link is down or its memory full.

        True is no proof of arrival: whoever needs proof waits for the receiver's own word.
        """
        from paho.mqtt.enums import MQTTErrorCode
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        if self._client is None or not self._connected:
            return False
        properties = None
        if expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = max(1, expiry_s)
        info = self._client.publish(topic, payload, qos=1, properties=properties)
        return info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    async def stop(self, *, farewell: tuple[str, bytes] | None = None) -> None:
        """Leave in order, after one last message; the session and its queue stay at the broker."""
        self._stopping = True
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        client = self._client
        if client is None:
            return
        if farewell is not None and self._connected:
            info = client.publish(*farewell, qos=1)
            with contextlib.suppress(ValueError, RuntimeError):
                await asyncio.to_thread(info.wait_for_publish, 1.0)
        client.disconnect()
        with self._room:
            self._room.notify()
        await asyncio.to_thread(client.loop_stop)

    async def _watch_thread(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if self._client is not None:
                # Does nothing while the thread lives.
                self._client.loop_start()

    def _spread(self, client: Client) -> None:
        chance = random.uniform(0.8, 1.5)
        # The stub asks for whole seconds, the code takes any number.
        client.reconnect_delay_set(RECONNECT_MIN_S * chance, RECONNECT_MAX_S * chance)  # type: ignore[arg-type]

    def _put(self, *events: LinkEvent) -> None:
        self._events.extend(events)
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop may close between the two lines
                self._loop.call_soon_threadsafe(self._arrived.set)

    def _on_pre_connect(self, client: Client, _data: Any) -> None:
        self._attempt += 1
        self._proof.renew(client)
        if self._make_will is not None:
            topic, payload = self._make_will(self._attempt)
            client.will_set(topic, payload, qos=1)

    def _on_connect(self, client: Client, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("broker refuses the connection of %s: %s", self._client_id, reason)
            self._proof.refused(str(reason))
            return
        self._proof.accepted(client)
        self._generation += 1
        self._burst = self._client.burst if self._client is not None else None
        self._connected = True
        log.info("connected to the broker as %s", self._client_id)
        if self._subscriptions:
            client.subscribe(self._subscriptions)
        self._put(Connected(self._generation, bool(flags.session_present), self._attempt))

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        if self._attempt <= 1:
            log.warning("broker %s:%s does not answer, trying on", self._address.host, self._address.port)
        self._proof.refused()

    def _on_disconnect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self._connected and not self._stopping:
            log.warning("connection of %s to the broker is lost: %s", self._client_id, reason)
        elif not self._stopping:
            self._proof.refused()
        self._connected = False
        self._burst = None
        self._spread(client)
        self._put(Disconnected(str(reason)))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        # Only what is not QoS 1 comes this way; an exception here would end the network thread.
        try:
            self._take([(message.topic, bytes(message.payload), message.mid)], qos=message.qos)
        except Exception:
            log.exception("a message of %s could not be taken in", self._client_id)

    def _take(self, found: Sequence[Publish], qos: int = 1) -> None:
        """Queue what one read brought. Raises ConnectionError when there is no room: unacked, it comes again."""
        size = sum(len(payload) for _, payload, _ in found)
        with self._room:
            if not self._room.wait_for(self._has_room, ROOM_WAIT_S):
                log.warning("queue of %s is full, the connection is dropped", self._client_id)
                raise ConnectionError("the queue is full")
            if self._stopping:
                return
            self._held += len(found)
            self._held_bytes += size
        generation = self._generation
        self._put(*[Incoming(topic, payload, generation, mid, qos) for topic, payload, mid in found])

    def _has_room(self) -> bool:
        # One read may go over the bound: READ_BYTES at most.
        return self._stopping or (self._held < self._queue_size and self._held_bytes < self._queue_bytes)
