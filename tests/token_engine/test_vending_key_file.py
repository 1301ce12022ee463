"""The text of a key file: reads back, and refuses every damage without repeating a key."""

import json

import pytest

from token_engine import vending_key_file
from token_engine.errors import VaultDamaged
from token_engine.vending_key_file import format_keys, parse_keys


@pytest.fixture
def content(vending_keys):
    return json.loads(format_keys(vending_keys))


def test_keys_come_back(vending_keys):
    assert parse_keys(format_keys(vending_keys), "a file") == vending_keys


def test_a_check_value_may_be_left_out(content, vending_keys):
    for entry in content["keys"]:
        del entry["kcv"]
    assert parse_keys(json.dumps(content), "a file") == vending_keys


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.update(format="raseed-vending-keys/2"),
        lambda c: c.pop("format"),
        lambda c: c.pop("keys"),
        lambda c: c.update(keys={"a": 1}),
        lambda c: c.update(keys=3),
        lambda c: c["keys"].append(c["keys"][0]),
        lambda c: c["keys"][0].update(key="zz"),
        lambda c: c["keys"][0].update(key="ab" * 19),
        lambda c: c["keys"][0].update(key=5),
        lambda c: c["keys"][0].update(kcv="000000"),
        lambda c: c["keys"][0].update(kt=0),
        lambda c: c["keys"][0].update(kt=7),
        lambda c: c["keys"][0].update(krn=0),
        lambda c: c["keys"][0].update(krn="one"),
        lambda c: c["keys"][0].update(sgc="12"),
        lambda c: c["keys"][0].update(sgc=201457),
        lambda c: c["keys"][0].update(base_date="99"),
        lambda c: c["keys"][0].pop("base_date"),
    ],
)
def test_damaged_files_are_refused_without_repeating_them(content, damage):
    damage(content)
    with pytest.raises(VaultDamaged) as refusal:
        parse_keys(json.dumps(content), "keys.json")
    assert "keys.json" in str(refusal.value)
    assert "abab" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "3", '"x"'])
def test_what_is_no_key_file(text):
    with pytest.raises(VaultDamaged):
        parse_keys(text, "keys.json")


def test_too_many_keys(content, monkeypatch):
    monkeypatch.setattr(vending_key_file, "MAX_KEYS", 1)
    with pytest.raises(VaultDamaged, match="more than"):
        parse_keys(json.dumps(content), "keys.json")
