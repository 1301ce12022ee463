import socket

import pytest

from meter_gateway.broker import mqtt_socket
from meter_gateway.broker.mqtt_socket import BurstSocket
from tests.meter_gateway.test_mqtt_packet import PINGRESP, publish


@pytest.fixture
def wire():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(2)
    taken = []
    yield BurstSocket(ours, taken.extend), theirs, taken
    ours.close()
    theirs.close()


def read_packet(burst):
    """As paho does: one byte, one byte, the rest."""
    head = burst.recv(1) + burst.recv(1)
    return head + (burst.recv(head[1]) if head[1] else b"")


def test_messages_are_taken_and_the_rest_is_pahos_in_its_order(wire):
    burst, broker, taken = wire
    connack = b"\x20\x03\x00\x00\x00"
    broker.sendall(
        publish("t", b"old", 1) + connack + publish("t", b"one", 2) + PINGRESP + publish("t", b"two", 3)
    )
    assert read_packet(burst) == connack
    assert [payload for _, payload, _ in taken] == [b"old"], (
        "what follows belongs to the connection just told of"
    )
    assert burst.pending(), "no select would tell of it"
    assert read_packet(burst) == PINGRESP
    assert [payload for _, payload, _ in taken] == [b"old", b"one"]
    with pytest.raises(BlockingIOError):
        burst.recv(1)
    assert [payload for _, payload, _ in taken] == [b"old", b"one", b"two"]
    assert not burst.pending()


def test_a_message_in_pieces_waits_for_its_end(wire):
    burst, broker, taken = wire
    whole = publish("t", b"x" * 500, 1)
    for piece in (whole[:1], whole[1:2], whole[2:100]):
        broker.sendall(piece)
        with pytest.raises(BlockingIOError):
            burst.recv(1)
        assert not burst.pending()
    broker.sendall(whole[100:])
    with pytest.raises(BlockingIOError):
        burst.recv(1)
    assert taken == [("t", b"x" * 500, 1)]


def test_the_end_of_the_connection_and_broken_bytes_reach_paho(wire):
    burst, broker, _ = wire
    broker.sendall(b"\x32\xff\xff\xff\xff\xff")
    with pytest.raises(ConnectionError):
        burst.recv(1)
    broker.close()
    assert burst.recv(1) == b""


def test_what_the_kernel_does_not_take_waits_in_its_order_and_is_bounded(wire, monkeypatch):
    burst, broker, _ = wire
    pieces = [bytes([number]) * 100_000 for number in range(20)]
    for piece in pieces:
        assert burst.send(piece) == len(piece)
    assert burst.has_unsent
    heard = b""
    while len(heard) < 2_000_000:
        heard += broker.recv(1 << 20)
        burst.flush()
    assert heard == b"".join(pieces)
    assert not burst.has_unsent
    monkeypatch.setattr(mqtt_socket, "MAX_UNSENT_BYTES", 1000)
    with pytest.raises(ConnectionError):
        for _ in range(100):
            burst.send(pieces[0])
