"""Vending keys in this process's memory: for simulated meters and tests, never for live supply groups."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from token_engine.cipher import PRODUCTION, StaTables
from token_engine.decoder_key import VendingKey, derive
from token_engine.errors import InvalidKey, VaultDamaged, VaultRefused
from token_engine.identifiers import MeterKeyIdentity, SupplyGroup, check_key_revision
from token_engine.issuing_vault import IssuingVault
from token_engine.key_material import DecoderKey
from token_engine.vending_key_file import (
    MAX_FILE_BYTES,
    MAX_KEYS,
    TEST_NOTE,
    KeyAddress,
    format_keys,
    parse_keys,
)


class SoftwareVault(IssuingVault):
    """A vault over keys in memory; it never times out."""

    def __init__(self, vending_keys: Mapping[KeyAddress, VendingKey], tables: StaTables = PRODUCTION) -> None:
        super().__init__(tables)
        self._keys = _checked_keys(vending_keys)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._keys)} keys>"

    @property
    def check_values(self) -> dict[KeyAddress, str]:
        """Which keys are here, each with its check value: never the keys."""
        return {address: key.check_value for address, key in self._keys.items()}

    def check_value(self, meter: MeterKeyIdentity) -> str:
        """The check value of the vending key this meter needs. Raises VaultRefused("unknown_key")."""
        return self._key_of(meter).check_value

    def decoder_key_for(self, meter: MeterKeyIdentity) -> DecoderKey:
        """The key to put into a simulated meter: for the meter maker. Raises VaultRefused, InvalidKey."""
        return derive(self._key_of(meter), meter)

    @classmethod
    def from_file(cls, path: Path, tables: StaTables = PRODUCTION) -> Self:
        """Read a JSON file of vending keys. Raises VaultDamaged without repeating what it read."""
        return cls(parse_keys(read_bounded(path).decode("utf-8", "replace"), path.name), tables)

    async def _decoder_key(self, meter: MeterKeyIdentity) -> DecoderKey:
        return self.decoder_key_for(meter)

    def _key_of(self, meter: MeterKeyIdentity) -> VendingKey:
        key = self._keys.get((meter.sgc, meter.krn, meter.kt))
        if key is None:
            raise VaultRefused(
                "unknown_key",
                f"no vending key for supply group {meter.sgc} revision {meter.krn} {meter.kt.name}",
            )
        return key


def _checked_keys(vending_keys: Mapping[KeyAddress, VendingKey]) -> dict[KeyAddress, VendingKey]:
    if len(vending_keys) > MAX_KEYS:
        raise VaultRefused("too_many_keys", f"a software vault holds at most {MAX_KEYS} keys")
    for (sgc, krn, kt), key in vending_keys.items():
        SupplyGroup(sgc)
        check_key_revision(krn)
        if key.kt is not kt:
            raise InvalidKey(f"the key filed under {kt.name} is for {key.kt.name}")
    return dict(vending_keys)


def read_bounded(path: Path) -> bytes:
    """The bytes of a key file. Raises VaultDamaged when it cannot be read or is too large to be one."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError:
        raise VaultDamaged(f"{path.name} cannot be read") from None
    if len(content) > MAX_FILE_BYTES:
        raise VaultDamaged(f"{path.name} is larger than a key file can be")
    return content


def replace_file(path: Path, content: bytes) -> None:
    """Write beside the file, then put it in place at once: a reader sees the old one or the new one whole.

    Readable by its owner only. Raises OSError.
    """
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, opened with its mode
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_key_file(path: Path, keys: Mapping[KeyAddress, VendingKey], note: str = TEST_NOTE) -> None:
    """Write a file of TEST keys in the clear, readable by its owner only. Raises OSError."""
    replace_file(path, format_keys(keys, note).encode("utf-8"))
