"""The text of a file of vending keys, for software vaults: who may read it is the vault's business."""

import json
from collections.abc import Mapping

from token_engine.decoder_key import VendingKey
from token_engine.errors import InvalidIdentity, InvalidKey, VaultDamaged
from token_engine.identifiers import BaseDate, KeyType, SupplyGroup, check_key_revision
from token_engine.key_material import VendingKeyMaterial

KeyAddress = tuple[str, int, KeyType]
FILE_FORMAT = "raseed-vending-keys/1"
TEST_NOTE = (
    "TEST KEYS for simulated meters only. Anyone may know them: never use them for a live supply group."
)
MAX_KEYS = 10_000  # a national utility has some hundred supply groups of nine revisions
MAX_FILE_BYTES = 4_000_000  # what MAX_KEYS of them need, doubled


def format_keys(keys: Mapping[KeyAddress, VendingKey], note: str = TEST_NOTE) -> str:
    """The text of a key file, each key with its check value; the keys are in the clear."""
    entries = [
        {
            "sgc": str(sgc),
            "krn": krn,
            "kt": kt.value,
            "base_date": key.base_date.value,
            "key": key.material.reveal().hex(),
            "kcv": key.check_value,
        }
        for (sgc, krn, kt), key in keys.items()
    ]
    return json.dumps({"format": FILE_FORMAT, "note": note, "keys": entries}, indent=1) + "\n"


def parse_keys(text: str, name: str) -> dict[KeyAddress, VendingKey]:
    """The vending keys of a key file's text; a `kcv` that is there must be right.

    Raises VaultDamaged, without repeating what was read.
    """
    try:
        content = json.loads(text)
        if content["format"] != FILE_FORMAT:
            raise VaultDamaged(f"{name} is not of format {FILE_FORMAT}")
        if len(content["keys"]) > MAX_KEYS:
            raise VaultDamaged(f"{name} holds more than {MAX_KEYS} keys")
        keys: dict[KeyAddress, VendingKey] = {}
        for entry in content["keys"]:
            kt = KeyType(entry["kt"])
            address = (str(SupplyGroup(entry["sgc"])), check_key_revision(entry["krn"]), kt)
            if address in keys:
                raise VaultDamaged(f"{name} holds two keys for one supply group, revision and type")
            key = VendingKey(VendingKeyMaterial.from_hex(entry["key"]), kt, BaseDate(entry["base_date"]))
            if entry.get("kcv", key.check_value) != key.check_value:
                raise VaultDamaged(f"{name} holds a key that does not match its check value")
            keys[address] = key
    except (ValueError, KeyError, TypeError, AttributeError, InvalidKey, InvalidIdentity):
        raise VaultDamaged(f"{name} is not a key file this version can read") from None
    return keys
