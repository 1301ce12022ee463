"""MISTY1 against RFC 2994 and the published token block."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_engine.errors import InvalidKey
from token_engine.misty1 import _s9_entry, misty1_decrypt, misty1_encrypt


@pytest.mark.parametrize(
    ("key", "plain", "cipher"),
    [
        ("00112233445566778899aabbccddeeff", 0x0123456789ABCDEF, 0x8B1DA5F56AB3D07C),
        ("929bd3a415c9420a05ec5ee9f3ce91c3", 0x05014EEC00013188, 0x2D98A5617B45BE2E),
    ],
)
def test_published_blocks(key, plain, cipher):
    assert misty1_encrypt(bytes.fromhex(key), plain) == cipher
    assert misty1_decrypt(bytes.fromhex(key), cipher) == plain


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1))
@settings(max_examples=40, deadline=None)
def test_every_block_comes_back(key, block):
    assert misty1_decrypt(key, misty1_encrypt(key, block)) == block


def test_s9_is_a_permutation_that_begins_as_the_rfc_prints_it():
    table = [_s9_entry(x) for x in range(512)]
    assert sorted(table) == list(range(512))
    assert table[:16] == [
        *(0x1C3, 0x0CB, 0x153, 0x19F, 0x1E3, 0x0E9, 0x0FB, 0x035),
        *(0x181, 0x0B9, 0x117, 0x1EB, 0x133, 0x009, 0x02D, 0x0D3),
    ]


@pytest.mark.parametrize("size", [0, 8, 15, 17])
def test_a_key_of_another_size_is_refused(size):
    for function in (misty1_encrypt, misty1_decrypt):
        with pytest.raises(InvalidKey):
            function(bytes(size), 0)
