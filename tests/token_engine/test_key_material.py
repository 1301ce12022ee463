"""Keys do not show: not in text, pickles, copies, data class dumps or error reports."""

import copy
import dataclasses
import json
import pickle
import traceback

import pytest

from token_engine.errors import InvalidKey
from token_engine.key_material import DecoderKey, VendingKeyMaterial

SECRET = "5ec2e75ec2e75ec2"


@pytest.fixture
def key():
    return DecoderKey.from_hex(SECRET)


def test_text_shows_only_the_check_value(key):
    for text in (repr(key), str(key), f"{key}", repr([key]), repr({"k": key})):
        assert SECRET not in text.lower()
        assert key.check_value in text
    assert len(key.check_value) == 6


def test_equal_keys_are_equal_and_hash_alike(key):
    same, other = DecoderKey.from_hex(SECRET), DecoderKey(bytes(8))
    assert key == same
    assert hash(key) == hash(same)
    assert key != other
    assert key != VendingKeyMaterial.from_hex(SECRET)
    assert key != SECRET


def test_pickling_is_refused_and_copying_keeps_the_one_object(key):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(key, protocol)
    assert copy.copy(key) is key
    assert copy.deepcopy(key) is key
    with pytest.raises(TypeError):
        json.dumps(key)


def test_a_dump_of_a_data_class_does_not_open_the_key(key):
    holder = dataclasses.make_dataclass("Holder", [("key", DecoderKey)])(key)
    assert SECRET not in str(dataclasses.asdict(holder)).lower()


@pytest.mark.parametrize("text", ["5ec2e75ec2e75e", "5ec2e75ec2e75ec2zz", "5ec2e75ec2e75ec25e", ""])
def test_a_wrong_key_is_refused_without_being_repeated(text):
    with pytest.raises(InvalidKey) as refusal:
        DecoderKey.from_hex(text)
    shown = "".join(traceback.format_exception(refusal.value))
    assert "5ec2e75ec2e75e" not in shown.lower().replace("from_hex(text)", "")
    assert refusal.value.code == "invalid_key"


def test_each_kind_has_its_sizes():
    for size in (8, 16, 20):
        assert VendingKeyMaterial(bytes(size)).reveal() == bytes(size)
    with pytest.raises(InvalidKey):
        DecoderKey(bytes(20))
