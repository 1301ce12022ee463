"""The wrapped vault file: whole and true, or not at all."""

import asyncio
import os
import stat

import pytest

from token_engine.errors import InvalidKey, VaultDamaged
from token_engine.identifiers import KeyType
from token_engine.sealed_vault import (
    HEADER_BYTES,
    SealedVault,
    WrappingKey,
    open_keys,
    read_sealed_file,
    rotate_wrapping_key,
    seal_keys,
    write_sealed_file,
)
from token_engine.vault import CreditRequest

WRAP = WrappingKey(bytes(range(32)))
OTHER = WrappingKey(bytes(range(1, 33)))
NONCE = bytes(12)


@pytest.fixture
def small(vending_keys):
    address = ("201457", 1, KeyType.DUTK)
    return {address: vending_keys[address]}


@pytest.fixture
def path(tmp_path, vending_keys):
    path = tmp_path / "vault.bin"
    write_sealed_file(path, vending_keys, WRAP)
    return path


def test_keys_come_back_and_are_not_in_the_file(path, vending_keys, meter):
    held = read_sealed_file(path, WRAP)
    assert (held.keys, held.generation) == (vending_keys, 1)
    raw = path.read_bytes()
    assert b"201457" not in raw
    assert vending_keys["201457", 1, KeyType.DUTK].material.reveal() not in raw
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    vault = SealedVault.load(path, WRAP)
    issued = asyncio.run(vault.issue_credit(CreditRequest("v", meter, 0, 1, 85740, 5)))
    assert issued.digits == "70630503470028726114"


def test_two_writes_differ(small):
    assert seal_keys(small, WRAP, 1, os.urandom(12)) != seal_keys(small, WRAP, 1, os.urandom(12))


def test_every_cut_is_refused(small):
    sealed = seal_keys(small, WRAP, 1, NONCE)
    for length in range(len(sealed)):
        with pytest.raises(VaultDamaged):
            open_keys(sealed[:length], WRAP)
    with pytest.raises(VaultDamaged):
        open_keys(sealed + b"\0", WRAP)


def test_every_changed_bit_is_refused(small):
    sealed = seal_keys(small, WRAP, 1, NONCE)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(VaultDamaged):
            open_keys(bytes(changed), WRAP)


def test_the_refusal_says_what_is_wrong(small):
    sealed = seal_keys(small, WRAP, 1, NONCE)
    for data, key, says in (
        (sealed, OTHER, "another key"),
        (b"x" + sealed[1:], WRAP, "not a whole vault file"),
        (sealed[:8] + b"\x02" + sealed[9:], WRAP, "version 2"),
        (sealed[: HEADER_BYTES + 20], WRAP, "changed or cut short"),
    ):
        with pytest.raises(VaultDamaged, match=says) as refusal:
            open_keys(data, key)
        assert key.reveal().hex() not in str(refusal.value)


def test_rotation_keeps_the_vending_keys_and_ends_the_old_wrapping_key(path, vending_keys):
    assert rotate_wrapping_key(path, WRAP, OTHER) == 2
    held = read_sealed_file(path, OTHER)
    assert (held.keys, held.generation) == (vending_keys, 2)
    with pytest.raises(VaultDamaged):
        read_sealed_file(path, WRAP)


def test_a_bad_file_leaves_the_keys_in_use(path, vending_keys, small):
    vault = SealedVault.load(path, WRAP)
    before = vault.check_values
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VaultDamaged):
        vault.reload(path, WRAP)
    assert (vault.check_values, vault.generation) == (before, 1)
    write_sealed_file(path, small, WRAP, 7)
    vault.reload(path, WRAP)
    assert (len(vault.check_values), vault.generation) == (1, 7)
    write_sealed_file(path, vending_keys, WRAP, 6)
    with pytest.raises(VaultDamaged, match="older"):
        vault.reload(path, WRAP)
    assert vault.generation == 7


def test_a_write_that_fails_leaves_the_old_file(path, vending_keys, monkeypatch):
    def broken(_descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no space"):
        write_sealed_file(path, {}, WRAP, 2)
    monkeypatch.undo()
    assert read_sealed_file(path, WRAP).keys == vending_keys


def test_a_wrapping_key_has_32_bytes():
    with pytest.raises(InvalidKey):
        WrappingKey(bytes(16))
