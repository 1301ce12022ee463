"""Vending keys on disk, wrapped with AES-GCM: a vault file that is read whole and true, or not at all."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from token_engine.cipher import PRODUCTION, StaTables
from token_engine.decoder_key import VendingKey
from token_engine.errors import VaultDamaged
from token_engine.key_material import CHECK_VALUE_BYTES, KeyMaterial
from token_engine.software_vault import SoftwareVault, read_bounded, replace_file
from token_engine.vending_key_file import KeyAddress, format_keys, parse_keys

MAGIC = b"RASEEDKV"
VERSION = 1
NONCE_BYTES = 12
GENERATION_BYTES = 4
SEALED_NOTE = "wrapped"
# magic, version, check value of the wrapping key, generation: readable, and bound to the content by the tag
HEADER_BYTES = len(MAGIC) + 1 + CHECK_VALUE_BYTES + GENERATION_BYTES


class WrappingKey(KeyMaterial):
    """The 32-byte key that wraps a vault file: in the settings of the process, never beside the file."""

    __slots__ = ()
    sizes = (32,)
    what = "a wrapping key"


@dataclass(frozen=True, slots=True)
class SealedKeys:
    """What a vault file holds; `generation` grows with every write, so an older file is recognised."""

    keys: dict[KeyAddress, VendingKey]
    generation: int


def seal_keys(
    keys: Mapping[KeyAddress, VendingKey], wrapping_key: WrappingKey, generation: int, nonce: bytes
) -> bytes:
    """The bytes of a vault file. `nonce` is 12 bytes, never used twice under one wrapping key."""
    header = MAGIC + bytes([VERSION]) + bytes.fromhex(wrapping_key.check_value)
    header += generation.to_bytes(GENERATION_BYTES, "big")
    content = format_keys(keys, SEALED_NOTE).encode("utf-8")
    return header + nonce + AESGCM(wrapping_key.reveal()).encrypt(nonce, content, header)


def open_keys(sealed: bytes, wrapping_key: WrappingKey, name: str = "the vault file") -> SealedKeys:
    """The keys of a vault file. Raises VaultDamaged when cut, changed, of another version or key."""
    header, rest = sealed[:HEADER_BYTES], sealed[HEADER_BYTES:]
    if len(rest) <= NONCE_BYTES or not header.startswith(MAGIC):
        raise VaultDamaged(f"{name} is not a whole vault file")
    if header[len(MAGIC)] != VERSION:
        raise VaultDamaged(f"{name} is of version {header[len(MAGIC)]}, this program reads {VERSION}")
    if header[len(MAGIC) + 1 : -GENERATION_BYTES].hex().upper() != wrapping_key.check_value:
        raise VaultDamaged(f"{name} is wrapped with another key than {wrapping_key.check_value}")
    try:
        content = AESGCM(wrapping_key.reveal()).decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], header)
    except InvalidTag:
        raise VaultDamaged(f"{name} was changed or cut short") from None
    generation = int.from_bytes(header[-GENERATION_BYTES:], "big")
    return SealedKeys(parse_keys(content.decode("utf-8"), name), generation)


def read_sealed_file(path: Path, wrapping_key: WrappingKey) -> SealedKeys:
    """Read a vault file. Raises VaultDamaged."""
    return open_keys(read_bounded(path), wrapping_key, path.name)


def write_sealed_file(
    path: Path, keys: Mapping[KeyAddress, VendingKey], wrapping_key: WrappingKey, generation: int = 1
) -> None:
    """Write a vault file in one step: a reader meanwhile sees the old or the new one. Raises OSError."""
    replace_file(path, seal_keys(keys, wrapping_key, generation, os.urandom(NONCE_BYTES)))


def rotate_wrapping_key(path: Path, old: WrappingKey, new: WrappingKey) -> int:
    """Wrap the same vending keys with a new key; the new generation. Raises VaultDamaged, OSError."""
    held = read_sealed_file(path, old)
    write_sealed_file(path, held.keys, new, held.generation + 1)
    return held.generation + 1


class SealedVault(SoftwareVault):
    """A software vault over a vault file. A file that does not open leaves the keys in use as they are."""

    def __init__(self, held: SealedKeys, tables: StaTables = PRODUCTION) -> None:
        super().__init__(held.keys, tables)
        self._generation = held.generation

    @property
    def generation(self) -> int:
        """The generation of the file the keys came from."""
        return self._generation

    @classmethod
    def load(cls, path: Path, wrapping_key: WrappingKey, tables: StaTables = PRODUCTION) -> Self:
        """Open a vault file. Raises VaultDamaged."""
        return cls(read_sealed_file(path, wrapping_key), tables)

    def reload(self, path: Path, wrapping_key: WrappingKey) -> None:
        """Take the keys of a newer file, all or none. Raises VaultDamaged, also for an older generation."""
        held = read_sealed_file(path, wrapping_key)
        if held.generation < self._generation:
            raise VaultDamaged(f"{path.name} is older (generation {held.generation}) than the keys in use")
        checked = SoftwareVault(held.keys)
        self._keys, self._generation = checked._keys, held.generation  # noqa: SLF001 - its own class
