"""The contract of the wire as an AsyncAPI 3.0 document, made from the structs of topics.py so that it cannot drift."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from meter_gateway.topics import (
    CONTRACT,
    DOWN_KINDS,
    LINK_DOWN,
    UP_KINDS,
    Birth,
    BornMeter,
    Command,
    Config,
    Death,
    Device,
    Down,
    Event,
    Progress,
    Reading,
    Rebirth,
    Receipt,
    TaskOrder,
    TaskReport,
    Up,
    Uplink,
)

# How long the headend lets each kind of its messages wait at the broker, seconds; it says them again by itself.
EXPIRY_S: Final[Mapping[str, int]] = {"command": 15, "receipt": 60, "config": 300, "rebirth": 60, "task": 15}
# Said again at the next uplink that repeats, so that nothing is lost with one; all else goes at QoS 1.
AT_MOST_ONCE: Final = frozenset({"receipt"})
_REF: Final = "#/components/schemas/{name}"
_DRN, _SITE, _AT = "06000000011", "site-1", 1_795_346_400_000

EXAMPLES: Final[Mapping[str, Up | Down]] = {
    "birth": Birth(_SITE, "gateway", 1_795_300_000, 1, _AT, 7, [BornMeter(_DRN, "raseed-prepaid-e1")], 0),
    "death": Death(_SITE, 1_795_300_000, 1),
    "data": Uplink(
        _SITE,
        1_795_300_000,
        42,
        _AT,
        [
            Reading(_DRN, "counter", _AT, 70_250),
            Event(_DRN, LINK_DOWN, _AT, {"cause": "silence"}),
            Progress(311, _DRN, "VERIFIED", _AT, {"result": "ACCEPT", "tid": 1_000_311, "credit": 15_000}),
            TaskReport(12, "RUNNING", _AT, 40),
        ],
    ),
    "command": Command(311, _DRN, "relay_open", "", _AT, _AT + 600_000),
    "receipt": Receipt(1_795_300_000, [(1, 40), (42, 42)]),
    "config": Config(7, 2.0, [Device(_DRN, "raseed-prepaid-e1", "tcp-1", 1)]),
    "rebirth": Rebirth("the broker forgot us"),
    "task": TaskOrder(12, "tcp-1", "scan", {"first": 1, "last": 32}, _AT, _AT + 600_000),
}

_PROMISES: Final = (
    "Spoken alike by a site's gateway (edge = the site's code) and by an MQTT meter (edge = its DRN). MQTT 5, "
    "nothing is retained. A broker's acknowledgement is no proof: an edge keeps an uplink on its own disk until a "
    "receipt names its (boot, seq), and says it again after a reconnect and after 5, 10, 20, 40, 60, 60 ... seconds. "
    "Times are UTC epoch milliseconds. docs/mqtt.md has the promises, the codes and the details."
)


def make_document() -> dict[str, Any]:
    """Return the document, seen by the headend: it receives what goes up and sends what goes down."""
    kinds = {**UP_KINDS, **DOWN_KINDS}
    _, schemas = msgspec.json.schema_components(kinds.values(), ref_template=_REF)
    return {
        "asyncapi": "3.0.0",
        "id": "urn:raseed:wire:1",
        "info": {"title": "Raseed, the wire", "version": "1.0.0", "description": _PROMISES},
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "broker.example:8883",
                "protocol": "mqtts",
                "protocolVersion": "5",
                "description": "Any MQTT 5 broker. Rules for mosquitto are written by `raseed gateway acl`.",
                "security": [
                    {"$ref": "#/components/securitySchemes/certificate"},
                    {"$ref": "#/components/securitySchemes/password"},
                ],
            }
        },
        "channels": {name: _channel(name, way) for name, way in _ways()},
        "operations": {_operation_name(name, way): _operation(name, way) for name, way in _ways()},
        "components": {
            "messages": {name: _message(name, kind) for name, kind in kinds.items()},
            "schemas": {name: _tidy(schema) for name, schema in sorted(schemas.items())},
            "parameters": {
                "edge": {
                    "description": "A site's code, or the DRN of an MQTT meter",
                    "examples": [_SITE, _DRN],
                }
            },
            "securitySchemes": {
                "certificate": {
                    "type": "X509",
                    "description": "A client certificate whose common name is the edge, or the headend's name.",
                },
                "password": {
                    "type": "userPassword",
                    "description": "The edge as user name, for meters that cannot hold a certificate.",
                },
            },
        },
    }


def _ways() -> Iterator[tuple[str, str]]:
    yield from ((name, "up") for name in UP_KINDS)
    yield from ((name, "down") for name in DOWN_KINDS)


def _operation_name(name: str, way: str) -> str:
    return f"{'receive' if way == 'up' else 'send'}{name.capitalize()}"


def _channel(name: str, way: str) -> dict[str, Any]:
    return {
        "address": f"{CONTRACT}/{way}/{{edge}}/{name}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "parameters": {"edge": {"$ref": "#/components/parameters/edge"}},
    }


def _operation(name: str, way: str) -> dict[str, Any]:
    binding: dict[str, Any] = {"qos": 0 if name in AT_MOST_ONCE else 1, "retain": False}
    if way == "down":
        binding["messageExpiryInterval"] = EXPIRY_S[name]
    return {
        "action": "receive" if way == "up" else "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        "bindings": {"mqtt": {**binding, "bindingVersion": "0.2.0"}},
    }


def _message(name: str, kind: type[Up | Down]) -> dict[str, Any]:
    return {
        "name": name,
        "title": kind.__name__,
        "summary": inspect.getdoc(kind),
        "contentType": "application/json",
        "payload": {"$ref": _REF.format(name=kind.__name__)},
        "examples": [{"name": name, "payload": msgspec.to_builtins(EXAMPLES[name])}],
    }


def _tidy(schema: Any) -> Any:
    """Return a schema of msgspec as AsyncAPI writes it: no OpenAPI discriminator, plain text, ECMA's patterns."""
    if isinstance(schema, dict):
        return {
            # What Python calls \Z is $ in the dialect of JSON Schema, which knows no \Z.
            key: value.replace(r"\Z", "$") if key == "pattern" else _tidy(value)
            for key, value in schema.items()
            if key != "discriminator"
        }
    if isinstance(schema, list):
        return [_tidy(value) for value in schema]
    return inspect.cleandoc(schema) if isinstance(schema, str) else schema


_HEAD: Final = "# Written by `raseed gateway asyncapi`: edit meter_gateway/broker/asyncapi.py instead.\n"
# What YAML reads as text, whichever of its versions.
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def to_yaml() -> str:
    """Return the document as YAML: of its ways of writing only blocks, and JSON's own for texts and numbers."""
    return _HEAD + "\n".join(_lines(make_document(), 0)) + "\n"


def _lines(value: Any, depth: int) -> Iterator[str]:
    pad = "  " * depth
    pairs = [(f"{_key(key)}:", one) for key, one in value.items()] if isinstance(value, dict) else None
    for head, one in pairs if pairs is not None else [("-", one) for one in value]:
        if not isinstance(one, dict | list) or not one:
            yield f"{pad}{head} {json.dumps(one, ensure_ascii=False)}"
        elif pairs is not None:
            yield f"{pad}{head}"
            yield from _lines(one, depth + 1)
        else:
            first, *rest = _lines(one, depth + 1)
            yield f"{pad}- {first.strip()}"
            yield from rest


def _key(key: str) -> str:
    return key if _PLAIN.fullmatch(key) and key.lower() not in _WORDS else json.dumps(key)
