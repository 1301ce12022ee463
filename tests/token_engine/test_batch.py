"""The numpy batch makes exactly what one at a time makes."""

import random

import numpy as np
import pytest

from token_engine.batch import CHUNK, credit_tokens, digits_of, encode_amounts
from token_engine.cipher import SAMPLE
from token_engine.encode import credit_token, encrypt_block
from token_engine.errors import InvalidAmount, InvalidField, InvalidTid
from token_engine.fields import MAX_AMOUNT, MAX_TOKEN, encode_amount
from token_engine.identifiers import EncryptionAlgorithm
from token_engine.key_material import DecoderKey

EDGES = [0, 1, 16383, 16384, 180214, 180215, 180223, 180224, 1818524, 1818525, 1818623, 1818624, MAX_AMOUNT]


def columns(rows):
    seeded = random.Random(55)
    return (
        np.array([seeded.getrandbits(64) for _ in range(rows)], dtype=np.uint64),
        np.array(
            [seeded.choice([*EDGES, seeded.randrange(MAX_AMOUNT)]) for _ in range(rows)], dtype=np.int64
        ),
        np.array([seeded.getrandbits(24) for _ in range(rows)], dtype=np.int64),
        np.array([seeded.getrandbits(4) for _ in range(rows)], dtype=np.int64),
    )


@pytest.mark.parametrize("subclass", [0, 1, 3])
def test_batch_and_single_agree(subclass):
    keys, amounts, tids, rnds = columns(200)
    digits = digits_of(*credit_tokens(keys, subclass=subclass, amounts=amounts, tids=tids, rnds=rnds))
    for row, token in enumerate(digits):
        assert token == credit_token(
            DecoderKey(int(keys[row]).to_bytes(8, "big")),
            EncryptionAlgorithm.STA,
            subclass=subclass,
            amount=int(amounts[row]),
            tid=int(tids[row]),
            rnd=int(rnds[row]),
        )


def test_rows_beyond_one_chunk():
    rows = CHUNK + 3
    keys, amounts, tids, rnds = columns(rows)
    whole = digits_of(*credit_tokens(keys, subclass=0, amounts=amounts, tids=tids, rnds=rnds))
    tail = slice(CHUNK - 2, None)
    part = digits_of(
        *credit_tokens(keys[tail], subclass=0, amounts=amounts[tail], tids=tids[tail], rnds=rnds[tail])
    )
    assert whole[tail] == part
    assert len(set(whole)) == rows


def test_the_tables_can_be_swapped():
    keys, amounts, tids, rnds = columns(3)
    high, low = credit_tokens(keys, subclass=0, amounts=amounts, tids=tids, rnds=rnds, tables=SAMPLE)
    normal = credit_tokens(keys, subclass=0, amounts=amounts, tids=tids, rnds=rnds)
    assert (low != normal[1]).all()
    key = DecoderKey(int(keys[0]).to_bytes(8, "big"))
    assert encrypt_block(key, EncryptionAlgorithm.STA, 0, SAMPLE) != encrypt_block(
        key, EncryptionAlgorithm.STA, 0
    )
    assert high.max() <= 3


def test_the_decimal_text_of_the_ends_of_the_range():
    for token in (0, 1, 10**10 - 1, 10**10, 2**64 - 1, 2**64, MAX_TOKEN, 10**19, 20 * 10**18):
        high, low = np.array([token >> 64], dtype=np.uint64), np.array([token & 2**64 - 1], dtype=np.uint64)
        assert digits_of(high, low) == [f"{token:020d}"]


def test_amounts_code_alike():
    amounts = np.array(EDGES, dtype=np.int64)
    assert encode_amounts(amounts).tolist() == [encode_amount(amount) for amount in EDGES]


def test_an_empty_batch():
    none, empty = np.array([], dtype=np.int64), np.array([], dtype=np.uint64)
    assert digits_of(*credit_tokens(empty, subclass=0, amounts=none, tids=none, rnds=none)) == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"amounts": [-1]}, InvalidAmount),
        ({"amounts": [MAX_AMOUNT + 1]}, InvalidAmount),
        ({"tids": [-1]}, InvalidTid),
        ({"tids": [1 << 24]}, InvalidTid),
        ({"rnds": [16]}, InvalidField),
        ({"rnds": [-1]}, InvalidField),
        ({"rnds": [1, 1]}, InvalidField),
    ],
)
def test_any_bad_row_refuses_the_batch(changes, error):
    rows = {"amounts": [1], "tids": [1], "rnds": [1]} | changes
    arrays = {name: np.array(value, dtype=np.int64) for name, value in rows.items()}
    with pytest.raises(error):
        credit_tokens(np.array([1], dtype=np.uint64), subclass=0, **arrays)


def test_only_credit_in_units():
    one = np.array([1], dtype=np.int64)
    with pytest.raises(InvalidField):
        credit_tokens(one.astype(np.uint64), subclass=4, amounts=one, tids=one, rnds=one)
