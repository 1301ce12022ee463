"""The batch makes exactly what one at a time makes."""

import random

import pytest

from token_engine import openpaygo_batch
from token_engine.errors import InvalidAmount, InvalidField
from token_engine.openpaygo import PaygoDevice, PaygoKey, PaygoType, issue
from token_engine.openpaygo_batch import issue_all


def fleet(size):
    seeded = random.Random(14)
    return [
        PaygoDevice(PaygoKey(seeded.randbytes(16)), seeded.randrange(10**9), seeded.random() < 0.5)
        for _ in range(size)
    ]


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("token_type", list(PaygoType))
def test_batch_and_single_agree(extended, token_type):
    devices = fleet(40)
    seeded = random.Random(7)
    values = [seeded.randrange(996) for _ in devices]
    counts = [seeded.choice([0, 1, 2, 7, 30]) for _ in devices]
    single = [
        issue(device, token_type, value, count, extended=extended)
        for device, value, count in zip(devices, values, counts, strict=True)
    ]
    assert issue_all(devices, token_type, values, counts, extended=extended) == single


def test_every_published_token_in_one_batch(vectors):
    for extended in (False, True):
        for token_type in PaygoType:
            rows = [
                entry
                for entry in vectors["openpaygo"]
                if entry["inputs"]["extended_token"] is extended
                and entry["inputs"]["token_type"] == token_type
            ]
            inputs = [row["inputs"] for row in rows]
            devices = [
                PaygoDevice(PaygoKey.from_hex(i["key"]), i["starting_code"], i["restricted_digit_set"])
                for i in inputs
            ]
            made = issue_all(
                devices,
                token_type,
                [i["value_raw"] for i in inputs],
                [i["count"] for i in inputs],
                extended=extended,
            )
            assert [(token.digits, token.new_count) for token in made] == [
                (row["expected"]["token"], row["expected"]["new_count"]) for row in rows
            ]


def test_an_empty_batch():
    assert issue_all([], PaygoType.ADD_TIME, [], []) == []


def test_batches_are_bounded_and_even(monkeypatch):
    devices = fleet(2)
    with pytest.raises(InvalidField, match="as many"):
        issue_all(devices, PaygoType.ADD_TIME, [1], [1, 1])
    with pytest.raises(InvalidAmount):
        issue_all(devices, PaygoType.ADD_TIME, [1, 996], [1, 1])
    monkeypatch.setattr(openpaygo_batch, "MAX_BATCH", 1)
    with pytest.raises(InvalidField, match="at most 1"):
        issue_all(devices, PaygoType.ADD_TIME, [1, 1], [1, 1])
