"""docs/asyncapi.yaml: the same as our structs, sound by the specification's own rules, its examples understood."""

import json
import re
from pathlib import Path

import pytest

from meter_gateway.broker.asyncapi import EXAMPLES, make_document, to_yaml
from meter_gateway.topics import DOWN_KINDS, UP_KINDS, decode_down, decode_up, down_topic, encode, up_topic

FILE = Path(__file__).resolve().parents[2] / "docs/asyncapi.yaml"
KINDS = {**UP_KINDS, **DOWN_KINDS}
# AsyncAPI 3.0.0, "Fixed Fields" of each object: what may stand there, and what must.
OBJECTS = {
    "document": (
        {"asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"},
        {"asyncapi", "info"},
    ),
    "info": (
        {"title", "version", "description", "termsOfService", "contact", "license", "tags", "externalDocs"},
        {"title", "version"},
    ),
    "server": (
        {"host", "protocol", "protocolVersion", "pathname", "description", "title", "summary", "variables"}
        | {"security", "tags", "externalDocs", "bindings"},
        {"host", "protocol"},
    ),
    "channel": (
        {"address", "messages", "title", "summary", "description", "servers", "parameters", "tags"}
        | {"externalDocs", "bindings"},
        {"address", "messages"},
    ),
    "operation": (
        {"action", "channel", "title", "summary", "description", "security", "tags", "externalDocs"}
        | {"bindings", "traits", "messages", "reply"},
        {"action", "channel"},
    ),
    "message": (
        {"headers", "payload", "correlationId", "contentType", "name", "title", "summary", "description"}
        | {"tags", "externalDocs", "bindings", "examples", "traits"},
        {"payload"},
    ),
    "parameter": ({"enum", "default", "description", "examples", "location"}, set()),
}


def read_yaml(text):
    """Read the blocks that our writer writes, by other code than its own."""
    lines = [
        (len(line) - len(line.lstrip()), line.strip())
        for line in text.splitlines()
        if line.strip() and not line.startswith("#")
    ]
    place = 0

    def pair(body):
        found = re.fullmatch(r'("(?:[^"\\]|\\.)*"|[A-Za-z0-9_]+):(?: (.*))?', body)
        assert found, body
        key = json.loads(found[1]) if found[1].startswith('"') else found[1]
        return key, found[2]

    def block(indent):
        nonlocal place
        if lines[place][1].startswith("- "):
            items = []
            while place < len(lines) and lines[place][0] == indent and lines[place][1].startswith("- "):
                body = lines[place][1][2:]
                if re.match(r'("(?:[^"\\]|\\.)*"|[A-Za-z0-9_]+):( |$)', body) or body.startswith("- "):
                    lines[place] = (indent + 2, body)
                    items.append(block(indent + 2))
                else:
                    items.append(json.loads(body))
                    place += 1
            return items
        found = {}
        while place < len(lines) and lines[place][0] == indent:
            key, rest = pair(lines[place][1])
            place += 1
            assert key not in found, f"{key} twice"
            found[key] = json.loads(rest) if rest is not None else block(lines[place][0])
        return found

    return block(0)


@pytest.fixture(scope="module")
def document():
    return read_yaml(FILE.read_text("utf-8"))


def refs(value):
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "$ref":
                yield one
            else:
                yield from refs(one)
    elif isinstance(value, list):
        for one in value:
            yield from refs(one)


def resolve(document, ref):
    assert ref.startswith("#/"), ref
    found = document
    for part in ref[2:].split("/"):
        assert part in found, f"{ref} leads nowhere"
        found = found[part]
    return found


def test_the_file_is_what_the_code_says():
    assert FILE.read_text("utf-8") == to_yaml(), "run: raseed gateway asyncapi > docs/asyncapi.yaml"


def test_what_stands_in_the_file_reads_back_as_what_was_meant(document):
    assert document == json.loads(json.dumps(make_document()))


def test_every_reference_leads_somewhere(document):
    assert len(set(refs(document))) > 20
    for ref in refs(document):
        resolve(document, ref)


def test_every_object_has_what_it_must_and_nothing_strange(document):
    found = {"document": [document], "info": [document["info"]], "server": document["servers"].values()}
    found |= {"channel": document["channels"].values(), "operation": document["operations"].values()}
    found |= {
        "message": document["components"]["messages"].values(),
        "parameter": document["components"]["parameters"].values(),
    }
    for kind, objects in found.items():
        allowed, required = OBJECTS[kind]
        for one in objects:
            assert required <= one.keys() <= allowed, (kind, one.keys())
    assert document["asyncapi"] == "3.0.0"
    names = [*document["channels"], *document["operations"], *document["components"]["schemas"]]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_channels_are_our_topics_and_operations_their_messages(document):
    addresses = {name: channel["address"] for name, channel in document["channels"].items()}
    expected = {name: up_topic("site-1", kind) for name, kind in UP_KINDS.items()}
    expected |= {name: down_topic("site-1", kind) for name, kind in DOWN_KINDS.items()}
    assert {name: one.format(edge="site-1") for name, one in addresses.items()} == expected
    for name, channel in document["channels"].items():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == channel["parameters"].keys(), name
    by_channel = {one["channel"]["$ref"].split("/")[-1]: one for one in document["operations"].values()}
    assert by_channel.keys() == KINDS.keys()
    for name, operation in by_channel.items():
        assert operation["action"] == ("receive" if name in UP_KINDS else "send")
        for ref in operation["messages"]:
            assert ref["$ref"].startswith(f"#/channels/{name}/messages/"), "messages are those of the channel"


@pytest.mark.parametrize("name", sorted(KINDS))
def test_its_examples_are_understood_as_messages(document, name):
    message = document["components"]["messages"][name]
    schema = resolve(document, message["payload"]["$ref"])
    for example in message["examples"]:
        payload = json.dumps(example["payload"]).encode()
        decode, topic = (decode_up, up_topic) if name in UP_KINDS else (decode_down, down_topic)
        assert decode(topic("site-1", KINDS[name]), payload) == EXAMPLES[name]
        assert json.loads(encode(EXAMPLES[name])) == example["payload"]
        assert set(schema["required"]) <= example["payload"].keys() <= schema["properties"].keys()


def test_a_change_of_a_struct_changes_the_document(document):
    schemas = document["components"]["schemas"]
    for kind in KINDS.values():
        assert list(schemas[kind.__name__]["properties"]) == list(kind.__struct_encode_fields__)
