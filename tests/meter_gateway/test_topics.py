import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_gateway import topics
from meter_gateway.topics import (
    Birth,
    BornMeter,
    Command,
    Config,
    Death,
    Device,
    Event,
    PoisonMessage,
    Progress,
    Reading,
    Rebirth,
    Receipt,
    Uplink,
    decode,
    decode_down,
    decode_up,
    down_topic,
    encode,
    up_topic,
)

DRN = "06000000011"
RECORDS = [
    Reading(DRN, "credit", 1, -5),
    Event(DRN, "raseed.token", 2, {"tid": 3, "result": "ACCEPT"}),
    Progress(9, DRN, "VERIFIED", 4, {"credit": 7}),
]
UPS = [
    Birth("site-1", "gateway", 2, 3, 4, 5, [BornMeter(DRN, "raseed-prepaid-e1")]),
    Death("site-1", 2, 3),
    Uplink("site-1", 2, 3, 4, RECORDS),
]
DOWNS = [
    Command(1, DRN, "token", "1" * 20, 5, 6),
    Receipt(1, [(1, 5), (7, 7)]),
    Config(3, 2.0, [Device(DRN, "raseed-prepaid-e1", "tcp-1", 9)]),
    Rebirth("why not"),
]


@pytest.mark.parametrize("message", UPS, ids=lambda m: type(m).__name__)
def test_up_and_back(message):
    topic = up_topic(message.edge, type(message))
    assert decode_up(topic, encode(message)) == message


@pytest.mark.parametrize("message", DOWNS, ids=lambda m: type(m).__name__)
def test_down_and_back(message):
    assert decode_down(down_topic("site-1", type(message)), encode(message)) == message


def test_the_published_form():
    assert up_topic("site-1", Uplink) == "rsd/1/up/site-1/data"
    assert down_topic(DRN, Command) == f"rsd/1/down/{DRN}/command"
    assert topics.down_filter("site-1") == "rsd/1/down/site-1/+"
    records = msgspec.json.decode(encode(UPS[2]))["records"]
    assert [record["type"] for record in records] == ["reading", "event", "progress"]
    assert msgspec.json.decode(encode(DOWNS[1])) == {"boot": 1, "ranges": [[1, 5], [7, 7]]}


def test_unknown_fields_of_a_later_version_are_let_pass():
    text = msgspec.json.encode({"edge": "site-1", "boot": 1, "session": 2, "mood": "good"})
    assert decode_up("rsd/1/up/site-1/death", text) == Death("site-1", 1, 2)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("rsd/1/up/site-1/data", b""),
        ("rsd/1/up/site-1/data", b'{"edge":"site-1","boot":1,"seq":1,"sent":1,"records":[{"type":"x"}]}'),
        ("rsd/1/up/site-1/death", b'{"edge":"site-2","boot":1,"session":1}'),
        ("rsd/1/up/site-1/death", b'{"edge":"site-1","boot":-1,"session":1}'),
        ("rsd/1/up/site-1/death", b'{"edge":"site-1","boot":1.5,"session":1}'),
        ("rsd/1/up/si te/death", b"{}"),
        (
            "rsd/1/up/a/birth",
            b'{"edge":"a","kind":"meter","boot":1,"session":1,"sent":1,"meters":[{"drn":"06000000011\\n","profile":"x"}]}',
        ),
        ("rsd/2/up/site-1/death", b'{"edge":"site-1","boot":1,"session":1}'),
        ("rsd/1/up/site-1/death", b" " * (topics.MAX_MESSAGE_BYTES + 1)),
    ],
)
def test_poison_is_named(topic, payload):
    with pytest.raises(PoisonMessage):
        decode_up(topic, payload)


def test_poison_does_not_show_the_payload():
    with pytest.raises(PoisonMessage) as caught:
        decode(b'{"command":1,"meter":"06000000011","kind":"token","argument":12345678901234567890}', Command)
    assert "1234567890" not in str(caught.value)


@pytest.mark.parametrize("edge", ["", "a/b", "a+", "#", "x" * 65, "سوق"])
def test_edge_names_cannot_leave_their_level(edge):
    with pytest.raises(ValueError):
        up_topic(edge, Birth)


def test_too_large_is_refused_before_it_leaves():
    with pytest.raises(ValueError):
        encode(Uplink("e", 1, 1, 1, [Event(DRN, "x", 1, {"a": "y" * topics.MAX_MESSAGE_BYTES})]))


def test_a_token_does_not_show_in_a_log():
    assert "1" * 20 not in repr(DOWNS[0])


@settings(max_examples=60)
@given(st.binary(max_size=200), st.sampled_from(["birth", "death", "data", "other"]))
def test_any_bytes_are_a_message_or_poison(payload, name):
    try:
        decode_up(f"rsd/1/up/site-1/{name}", payload)
    except PoisonMessage:
        return


@pytest.mark.parametrize("first", [2**31 - 1, 2**31, 3_000_000_000])
def test_both_low_marks_fit_into_one_signed_number(first):
    if first < 2**31:
        assert topics.limits_of(f"low={first},1") == {"low_1": first, "low_2": 1}
    else:
        with pytest.raises(ValueError, match="the first mark is at most 2147483647"):
            topics.limits_of(f"low={first},1")
