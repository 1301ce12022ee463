"""Open the vault that the settings name: a sealed file with its wrapping key, or the demo's file of test keys."""

from __future__ import annotations

from pathlib import Path

from token_engine.errors import InvalidKey, VaultDamaged
from token_engine.sealed_vault import SealedVault, WrappingKey
from token_engine.software_vault import SoftwareVault

MAX_KEY_TEXT = 4096  # 64 hexadecimal digits and what an editor leaves around them


def read_wrapping_key(path: str) -> WrappingKey:
    """The wrapping key in a file: 64 hexadecimal digits. Raises VaultDamaged without repeating them."""
    try:
        with Path(path).open(encoding="ascii") as file:
            return WrappingKey.from_hex(file.read(MAX_KEY_TEXT).strip())
    except (OSError, UnicodeDecodeError):
        raise VaultDamaged("the wrapping key's file cannot be read") from None
    except InvalidKey as error:
        raise VaultDamaged(f"the wrapping key's file does not hold one: {error}") from None


def open_vault(vault_file: str, wrapping_key_file: str = "") -> SoftwareVault:
    """The vault over a file. Raises VaultDamaged."""
    if wrapping_key_file:
        return SealedVault.load(Path(vault_file), read_wrapping_key(wrapping_key_file))
    return SoftwareVault.from_file(Path(vault_file))
