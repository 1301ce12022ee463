"""Decoder key generation at its published points, and every combination that cannot be made."""

from dataclasses import replace

import pytest

from token_engine.decoder_key import VendingKey, control_block, derive, dkga04_message, pan_block
from token_engine.errors import InvalidKey
from token_engine.identifiers import (
    BaseDate,
    EncryptionAlgorithm,
    KeyGeneration,
    KeyType,
    MeterKeyIdentity,
    MeterPan,
)
from token_engine.key_material import VendingKeyMaterial

VK20 = "abababababababab949494949494949401234567"


def key_of(text, kt=KeyType.DUTK, base_date=BaseDate.Y2014):
    return VendingKey(VendingKeyMaterial.from_hex(text), kt, base_date)


@pytest.fixture
def dkga02_meter():
    return MeterKeyIdentity(
        pan="600727000000000009",
        sgc="123456",
        ti=1,
        krn=1,
        kt=KeyType.DUTK,
        ken=255,
        ea=EncryptionAlgorithm.STA,
        dkga=KeyGeneration.DKGA02,
        base_date=BaseDate.Y1993,
    )


def test_dkga02_published(dkga02_meter):
    assert pan_block(dkga02_meter.pan, KeyType.DUTK).hex() == "0072700000000000"
    assert control_block(dkga02_meter).hex() == "2123456011ffffff"
    key = derive(key_of("abababababababab", base_date=BaseDate.Y1993), dkga02_meter)
    assert key.reveal().hex() == "e653341f9d5bf36f"


def test_dkga04_published(meter, misty_meter):
    assert dkga04_message(meter).hex() == (
        "04023034023134023037023031000406323031343537013201311236303037323730303030303030303030303900000040"
    )
    assert derive(key_of(VK20), meter).reveal().hex() == "87f3ecbb2e46b48f"
    assert derive(key_of(VK20), misty_meter).reveal().hex() == "929bd3a415c9420a05ec5ee9f3ce91c3"


def test_pan_block_of_both_forms_and_of_a_common_key():
    assert pan_block(MeterPan.of("600727", "12345678903"), KeyType.DUTK).hex() == "0072712345678903"
    assert pan_block("000001000000000082", KeyType.DUTK).hex() == "0000100000000008"
    assert pan_block("000001000000000082", KeyType.DCTK).hex() == "0000000000000000"
    assert pan_block("600727000000000009", KeyType.DCTK).hex() == "0072700000000000"


def test_dkga03_is_two_key_triple_des_xor_its_message(dkga02_meter):
    """One reading without a vector: with both halves alike it must be DKGA02 without its last xor."""
    half = "abababababababab"
    old = derive(key_of(half, base_date=BaseDate.Y1993), dkga02_meter).reveal()
    new = derive(
        key_of(half * 2, base_date=BaseDate.Y1993), replace(dkga02_meter, dkga=KeyGeneration.DKGA03)
    ).reveal()
    assert int.from_bytes(old, "big") ^ int.from_bytes(new, "big") == int(half, 16)


@pytest.mark.parametrize(
    ("change", "vending_key", "says"),
    [
        ({"dkga": 1}, key_of(VK20), "DKGA01"),
        ({}, key_of("ab" * 8), "20 bytes"),
        ({"dkga": 2}, key_of(VK20), "8 bytes"),
        ({"dkga": 3}, key_of(VK20), "16 bytes"),
        ({"kt": 1}, key_of(VK20), "DDTK"),
        ({"base_date": "35"}, key_of(VK20), "Y2035"),
        ({"kt": 3}, key_of(VK20, KeyType.DCTK), "DCTK"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(meter, change, vending_key, says):
    with pytest.raises(InvalidKey, match=says):
        derive(vending_key, replace(meter, **change))


def test_no_vending_key_makes_a_ditk():
    with pytest.raises(InvalidKey, match="manufacturer"):
        key_of(VK20, KeyType.DITK)


def test_a_common_key_is_the_same_for_two_meters(dkga02_meter):
    vending_key = key_of("abababababababab", KeyType.DCTK, BaseDate.Y1993)
    one = replace(dkga02_meter, kt=KeyType.DCTK)
    other = replace(one, pan="600727111111111153")
    assert derive(vending_key, one) == derive(vending_key, other)


def test_a_vending_key_shows_only_its_check_value():
    vending_key = key_of(VK20)
    assert VK20 not in repr(vending_key)
    assert vending_key.check_value == vending_key.material.check_value
