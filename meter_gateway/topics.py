"""The MQTT contract, version 1: topic names, the messages on them, and how both become bytes and back."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

CONTRACT: Final = "rsd/1"
# All ingest processes are one group: each uplink goes to one of them.
SHARE_GROUP: Final = "ingest"
SHARED_UPLINKS: Final = f"$share/{SHARE_GROUP}/{CONTRACT}/up/+/+"
# A full batch of 500 records with room for a read-now answer; more is a fault or an attack.
MAX_MESSAGE_BYTES: Final = 256 * 1024
# Both low marks travel in one signed number of 64 bits, the first in its upper half.
LARGEST_MARK: Final = 2**31 - 1
# What one uplink may carry: a gateway cuts longer queues into several messages.
MAX_RECORDS: Final = 500
# A receipt names at most this many ranges; the rest follows in the next one.
MAX_RANGES: Final = 200
# A site has fewer devices than this (eight full buses of 247 units); their list fits into one message.
MAX_DEVICES: Final = 2000

# \Z, for Python's $ lets a newline pass behind it.
Edge = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Drn = Annotated[str, Meta(pattern=r"^[0-9]{11}([0-9]{2})?\Z")]
Code = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=200)]
Serial = Annotated[int, Meta(ge=0, le=2**62)]
# UTC epoch milliseconds, 1970 to 2100; whether the instant is believable is judged at ingest.
Millis = Annotated[int, Meta(ge=0, le=4_102_444_800_000)]
SignedValue = Annotated[int, Meta(ge=-(2**62), le=2**62)]
Detail = dict[str, Any]

Channel = Literal["counter", "credit", "load", "relay", "reverse"]
Quality = Literal["valid", "estimated", "suspect", "simulated"]
CommandKind = Literal["token", "relay_open", "relay_close", "read_now", "clock", "limits"]
ProgressState = Literal["ACCEPTED", "WRITTEN", "VERIFIED", "REJECTED", "EXPIRED", "UNKNOWN"]
TaskKind = Literal["scan", "probe", "registers", "words", "trace"]
TaskReportState = Literal["RUNNING", "DONE", "FAILED", "EXPIRED", "CANCELLED"]

# CIM EndDeviceEventType where there is one, ours where there is none.
LAST_GASP: Final = "3.26.0.85"
POWER_RESTORED: Final = "3.26.0.216"
TAMPER: Final = "3.12.0.257"
TOKEN: Final = "raseed.token"  # noqa: S105 - an event code, no secret
RELAY: Final = "raseed.relay"
LINK_DOWN: Final = "raseed.link_down"
LINK_UP: Final = "raseed.link_up"
UNKNOWN_METER: Final = "raseed.unknown_meter"
# Registers of a wired meter hold what its profile has no meaning for; the others are read all the same.
NO_MEANING: Final = "raseed.no_meaning"
# Said by an edge about its own disk: values of a meter were given up to make room, or are gone with a broken file.
DROPPED: Final = "raseed.dropped"
OUTBOX_LOST: Final = "raseed.outbox_lost"
# Said by the platform itself: counters began to contradict the last believed one; a person must look.
COUNTER_SUSPECT: Final = "raseed.counter_suspect"
COUNTER_BELIEVED: Final = "raseed.counter_believed"
# A person said that a counter began again, and from where it is believed.
COUNTER_REBASED: Final = "raseed.counter_rebased"
# The meter's own clock is off by more than two minutes; said when it begins and when it is over.
CLOCK_DRIFT: Final = "raseed.clock_drift"
# Said by the platform's check of readings: water that never stops, energy or water that flows back.
LEAK: Final = "raseed.leak"
REVERSE: Final = "3.26.93.219"
# Said by the platform itself: messages of an edge are missing, and the edge has nothing older left to say.
SEQUENCE_GAP: Final = "raseed.sequence_gap"


class PoisonMessage(ValueError):
    """A message that does not keep the contract; its text says where, and never holds the payload."""


# What comes by the thousand is left out of the search for garbage: out of JSON no circle is made.
class Reading(Struct, frozen=True, gc=False, tag_field="type", tag="reading"):
    """One measured value; units by channel: Wh|mL, Wh|mL, W|mL/h, DLMS relay state; reverse Wh|mL, cumulative."""

    meter: Drn
    channel: Channel
    at: Millis
    value: SignedValue
    quality: Quality = "valid"


class Event(Struct, frozen=True, gc=False, tag_field="type", tag="event"):
    """Something that happened to a meter; `detail` by code as docs/mqtt.md lists it."""

    meter: Drn
    code: Code
    at: Millis
    detail: Detail = {}


class Progress(Struct, frozen=True, gc=False, tag_field="type", tag="progress"):
    """How far a command came; the final states are VERIFIED, REJECTED and EXPIRED."""

    command: Serial
    meter: Drn
    state: ProgressState
    at: Millis
    detail: Detail = {}


class TaskReport(Struct, frozen=True, gc=False, tag_field="type", tag="task"):
    """How far a gateway is with an engineer's task; `result` by kind, as docs/decisions/0014 lists it."""

    task: Serial
    state: TaskReportState
    at: Millis
    progress: Annotated[int, Meta(ge=0, le=100)] = 0
    result: Detail = {}


MeterRecord = Reading | Event | Progress
Record = MeterRecord | TaskReport


class BornMeter(Struct, frozen=True):
    """One meter that an edge speaks for."""

    drn: Drn
    profile: Code


class Birth(Struct, frozen=True):
    """First message of a session; `boot` grows by each start, `session` by each connection within it.

    `backlog` counts the messages older than a minute that wait on the edge's disk.
    """

    edge: Edge
    kind: Literal["gateway", "meter"]
    boot: Serial
    session: Serial
    sent: Millis
    config_version: Serial = 0
    meters: Annotated[list[BornMeter], Meta(max_length=MAX_DEVICES)] = []
    backlog: Serial = 0


class Death(Struct, frozen=True):
    """The will of one session: only the death of the present session counts."""

    edge: Edge
    boot: Serial
    session: Serial


class Uplink(Struct, frozen=True, gc=False):
    """Records of one edge; (edge, boot, seq) names the message for ever. `seq` begins with 1 in each boot."""

    edge: Edge
    boot: Serial
    seq: Serial
    sent: Millis
    records: Annotated[list[Record], Meta(max_length=MAX_RECORDS)]
    historical: bool = False
    clock_ok: bool = True


class Command(Struct, frozen=True):
    """An order to one meter; the edge runs a `command` id once, whatever it is sent."""

    command: Serial
    meter: Drn
    kind: CommandKind
    argument: Annotated[str, Meta(max_length=64)]
    created: Millis
    expires: Millis

    def __repr__(self) -> str:
        """Leave the argument out: it may be a token."""
        return f"Command({self.command}, {self.meter}, {self.kind})"


class TaskOrder(Struct, frozen=True):
    """An engineer's task for one bus of a site; said again with `cancelled` it is to be stopped."""

    task: Serial
    bus: Code
    kind: TaskKind
    argument: Detail
    created: Millis
    expires: Millis
    cancelled: bool = False


class Receipt(Struct, frozen=True):
    """What the platform has stored: seq ranges, both ends included, of one boot."""

    boot: Serial
    ranges: Annotated[list[tuple[Serial, Serial]], Meta(max_length=MAX_RANGES)]


class Device(Struct, frozen=True):
    """One Modbus meter of a site: which profile, bus (a name of site.toml) and unit."""

    drn: Drn
    profile: Code
    bus: Code
    unit: Annotated[int, Meta(ge=1, le=247)]


class Config(Struct, frozen=True):
    """What a gateway serves; a newer version replaces the older wholly."""

    version: Serial
    poll_s: Annotated[float, Meta(ge=0.2, le=3600)]
    devices: Annotated[list[Device], Meta(max_length=MAX_DEVICES)]


class Rebirth(Struct, frozen=True):
    """Ask an edge for its birth again.

    `boot` is the last one the platform knows of it; an edge that bears a lower one, on a new disk with a late clock,
    goes on above it. 0: nothing to say about it.
    """

    reason: Text
    boot: Serial = 0


Up = Birth | Death | Uplink
Down = Command | Receipt | Config | Rebirth | TaskOrder

UP_KINDS: Final[dict[str, type[Up]]] = {"birth": Birth, "death": Death, "data": Uplink}
DOWN_KINDS: Final[dict[str, type[Down]]] = {
    "command": Command,
    "receipt": Receipt,
    "config": Config,
    "rebirth": Rebirth,
    "task": TaskOrder,
}
_UP_NAMES: Final = {kind: name for name, kind in UP_KINDS.items()}
_DOWN_NAMES: Final = {kind: name for name, kind in DOWN_KINDS.items()}
_EDGE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LIMITS: Final = re.compile(
    r"power=(?P<power_limit>[0-9]{1,10})|low=(?P<low_1>[0-9]{1,10}),(?P<low_2>[0-9]{1,10})"
)
_ENCODER: Final = msgspec.json.Encoder()
_DECODERS: Final[dict[type[Struct], msgspec.json.Decoder[Any]]] = {
    kind: msgspec.json.Decoder(kind) for kind in (*UP_KINDS.values(), *DOWN_KINDS.values())
}
_M = TypeVar("_M", bound=Struct)


def meter_records(uplink: Uplink) -> list[MeterRecord]:
    """Return what an uplink says of meters: all but the reports of an engineer's tasks."""
    return [record for record in uplink.records if not isinstance(record, TaskReport)]


def up_topic(edge: str, kind: type[Up]) -> str:
    """Return the topic on which `edge` says a message of this kind."""
    return f"{CONTRACT}/up/{_checked(edge)}/{_UP_NAMES[kind]}"


def down_topic(edge: str, kind: type[Down]) -> str:
    """Return the topic on which `edge` hears a message of this kind."""
    return f"{CONTRACT}/down/{_checked(edge)}/{_DOWN_NAMES[kind]}"


def up_filter(edge: str) -> str:
    """Return the topics on which an edge may speak."""
    return f"{CONTRACT}/up/{_checked(edge)}/+"


def shared_uplinks(group: str) -> str:
    """Return what every headend of a group subscribes to. Raises ValueError when the group is no plain word."""
    return f"$share/{_checked(group)}/{CONTRACT}/up/+/+"


def down_filter(edge: str) -> str:
    """Return what an edge subscribes to: everything sent down to it."""
    return f"{CONTRACT}/down/{_checked(edge)}/+"


def encode(message: Up | Down) -> bytes:
    """Return the JSON bytes of a message. Raises ValueError when it is larger than the contract allows."""
    payload = _ENCODER.encode(message)
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ValueError(f"{type(message).__name__} of {len(payload)} bytes is over {MAX_MESSAGE_BYTES}")
    return payload


def decode_up(topic: str, payload: bytes) -> Up:
    """Return the message an edge sent. Raises PoisonMessage when topic or payload breaks the contract."""
    edge, name = _split(topic, "up")
    kind = UP_KINDS.get(name)
    if kind is None:
        raise PoisonMessage(f"no message is called {name!r}")
    message: Up = decode(payload, kind)
    if message.edge != edge:
        raise PoisonMessage(f"topic of edge {edge!r} holds a message of edge {message.edge!r}")
    return message


def decode_down(topic: str, payload: bytes) -> Down:
    """Return the message sent down to an edge. Raises PoisonMessage as decode_up does."""
    _, name = _split(topic, "down")
    kind = DOWN_KINDS.get(name)
    if kind is None:
        raise PoisonMessage(f"no message is called {name!r}")
    message: Down = decode(payload, kind)
    return message


def decode(payload: bytes, kind: type[_M]) -> _M:
    """Return one message of a known kind. Raises PoisonMessage with the place of the fault."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise PoisonMessage(f"{len(payload)} bytes are over the limit of {MAX_MESSAGE_BYTES}")
    try:
        message: _M = _DECODERS[kind].decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonMessage(f"{kind.__name__}: {error}"[:300]) from None
    return message


def limits_of(argument: str) -> dict[str, int]:
    """Return what a limits command sets, by register name: `power=W` (0: none), or `low=FIRST,SECOND` in Wh or mL.

    Water has mL/h and mL. Raises ValueError for anything else, for a second mark above the first, and for a first one
    above LARGEST_MARK.
    """
    found = _LIMITS.fullmatch(argument)
    if found is None:
        raise ValueError("limits are power=W or low=FIRST,SECOND")
    limits = {name: int(text) for name, text in found.groupdict().items() if text is not None}
    if max(limits.values()) >= 2**32 or limits.get("low_2", 0) > limits.get("low_1", 0):
        raise ValueError("a limit fits 32 bits, and the second mark is not above the first")
    if limits.get("low_1", 0) > LARGEST_MARK:
        raise ValueError(f"the first mark is at most {LARGEST_MARK}")
    return limits


def _checked(edge: str) -> str:
    if not _EDGE.fullmatch(edge):
        raise ValueError(f"{edge!r} is no edge name")
    return edge


def _split(topic: str, direction: str) -> tuple[str, str]:
    parts = topic.split("/")
    if len(parts) != 5 or parts[:3] != [*CONTRACT.split("/"), direction] or not _EDGE.fullmatch(parts[3]):
        raise PoisonMessage(f"topic {topic[:100]!r} is not of this contract")
    return parts[3], parts[4]
