import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.client import MQTTv5

from meter_gateway.broker.mqtt_packet import BrokenPacket, packet_end, pubacks, publish_qos0, take_publishes

PINGRESP = b"\xd0\x00"


def publish(topic, payload, mid, *, properties=b"", head=0x32):
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + mid.to_bytes(2, "big") + length(len(properties)) + properties
    return bytes([head]) + length(len(body + payload)) + body + payload


def length(value):
    out = b""
    while value >= 128:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])


messages = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
        st.binary(max_size=300),
        st.integers(1, 65535),
    ),
    max_size=5,
)


@settings(max_examples=60)
@given(messages, st.integers(0, 2000))
def test_whole_messages_are_taken_and_the_broken_off_rest_stays(found, cut):
    data = b"".join(publish(*one) for one in found)
    cut = min(cut, len(data))
    taken, used = take_publishes(bytearray(data[:cut]))
    assert taken == found[: len(taken)]
    again, rest = take_publishes(data[used:])
    assert taken + again == found
    assert used + rest == len(data)


@settings(max_examples=200)
@given(st.binary(max_size=40))
def test_no_bytes_break_it_but_by_its_own_error(data):
    try:
        found, used = take_publishes(b"\x32" + data)
    except BrokenPacket:
        return
    assert used <= len(data) + 1
    assert all(isinstance(topic, str) for topic, _, _ in found)


def test_properties_are_passed_over_and_flags_do_not_matter():
    data = publish("t", b"one", 7, properties=b"\x02\x00\x00\x00\x3c", head=0x3B)
    assert take_publishes(data) == ([("t", b"one", 7)], len(data))


@pytest.mark.parametrize(
    "other", [PINGRESP, publish("t", b"", 1, head=0x30), publish("t", b"", 1, head=0x34)]
)
def test_it_ends_at_a_packet_of_another_kind(other):
    first = publish("t", b"one", 1)
    assert take_publishes(first + other + first) == ([("t", b"one", 1)], len(first))
    assert packet_end(first + other + first, len(first)) == len(first + other)
    assert packet_end(other[:-1]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x32\xff\xff\xff\xff\x01",
        b"\x32\x04\x00\x09ab",
        publish("t", b"", 1)[:-1] + b"\x05",
        b"\x32\x06\x00\x01\xff\x00\x01\x00",
    ],
)
def test_broken_packets_are_named(data):
    with pytest.raises(BrokenPacket):
        take_publishes(data)


def test_paho_reads_what_is_written():
    assert pubacks([1, 0x1234]) == b"\x40\x02\x00\x01\x40\x02\x12\x34"
    packet = publish_qos0("rsd/1/down/é/receipt", b"x" * 200, expiry_s=60)
    end = packet_end(packet)
    assert end == len(packet)
    read = _packet.decode_publish(packet[0], packet[3:], MQTTv5)
    assert (read.topic.decode(), bytes(read.payload), read.qos) == ("rsd/1/down/é/receipt", b"x" * 200, 0)
    assert read.properties.MessageExpiryInterval == 60
