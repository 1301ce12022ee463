"""Vending keys in this process's memory: for simulated meters and tests, never for live supply groups."""

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from token_engine.decoder_key import VendingKey, derive
from token_engine.encode import credit_token
from token_engine.errors import InvalidIdentity, InvalidKey, TokenEngineError, VaultDamaged, VaultRefused
from token_engine.fields import decode_amount, encode_amount
from token_engine.identifiers import (
    BaseDate,
    KeyType,
    MeterKeyIdentity,
    SupplyGroup,
    check_key_revision,
    check_tid,
    is_reserved_tid,
    key_expired,
)
from token_engine.key_material import DecoderKey, VendingKeyMaterial
from token_engine.vault import MAX_REQUEST_ID, CreditRequest, IssuedToken

KeyAddress = tuple[str, int, KeyType]
FILE_FORMAT = "raseed-vending-keys/1"
TEST_NOTE = (
    "TEST KEYS for simulated meters only. Anyone may know them: never use them for a live supply group."
)
MAX_KEYS = 10_000  # a national utility has some hundred supply groups of nine revisions
MAX_FILE_BYTES = 4_000_000  # what MAX_KEYS of them need, doubled
# A repeated request makes the same token again (nothing here is random), so forgetting an old one costs
# only the check that its content is the same; the database keeps that for good.
MAX_REMEMBERED = 100_000


class SoftwareVault:
    """A VendingKeyVault over keys in memory; idempotent by request id."""

    def __init__(self, vending_keys: Mapping[KeyAddress, VendingKey]) -> None:
        if len(vending_keys) > MAX_KEYS:
            raise VaultRefused("too_many_keys", f"a software vault holds at most {MAX_KEYS} keys")
        for (sgc, krn, kt), key in vending_keys.items():
            SupplyGroup(sgc)
            check_key_revision(krn)
            if key.kt is not kt:
                raise InvalidKey(f"the key filed under {kt.name} is for {key.kt.name}")
        self._keys = dict(vending_keys)
        self._issued: OrderedDict[str, tuple[CreditRequest, IssuedToken]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<SoftwareVault of {len(self._keys)} keys>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a vault is never pickled or copied")

    @property
    def addresses(self) -> tuple[KeyAddress, ...]:
        """Which keys are here: (SGC, KRN, KT), never the keys."""
        return tuple(self._keys)

    def check_value(self, meter: MeterKeyIdentity) -> str:
        """The check value of the vending key this meter needs. Raises VaultRefused("unknown_key")."""
        return self._key_of(meter).check_value

    async def issue_credit(self, request: CreditRequest) -> IssuedToken:
        """See VendingKeyVault.issue_credit; this one never times out."""
        known = self._issued.get(request.request_id)
        if known is not None:
            if known[0] != request:
                raise VaultRefused(
                    "other_content", f"request {request.request_id} was made with other content"
                )
            return known[1]
        issued = self._issue(request)
        self._issued[request.request_id] = (request, issued)
        if len(self._issued) > MAX_REMEMBERED:
            self._issued.popitem(last=False)
        return issued

    async def fetch_result(self, request_id: str) -> IssuedToken | None:
        """See VendingKeyVault.fetch_result."""
        known = self._issued.get(request_id)
        return known[1] if known else None

    def _issue(self, request: CreditRequest) -> IssuedToken:
        check_credit_request(request)
        vending_key = self._key_of(request.meter)
        try:
            digits = credit_token(
                derive(vending_key, request.meter),
                request.meter.ea,
                subclass=request.subclass,
                amount=request.amount,
                tid=request.tid,
                rnd=request.rnd,
            )
        except TokenEngineError as error:
            raise VaultRefused(error.code, str(error)) from None
        carried = decode_amount(encode_amount(request.amount))
        return IssuedToken(request.request_id, digits, carried, request.tid, vending_key.check_value)

    def _key_of(self, meter: MeterKeyIdentity) -> VendingKey:
        key = self._keys.get((meter.sgc, meter.krn, meter.kt))
        if key is None:
            raise VaultRefused(
                "unknown_key",
                f"no vending key for supply group {meter.sgc} revision {meter.krn} {meter.kt.name}",
            )
        return key

    def decoder_key_for(self, meter: MeterKeyIdentity) -> DecoderKey:
        """The key to put into a simulated meter: for the meter maker. Raises VaultRefused, InvalidKey."""
        return derive(self._key_of(meter), meter)

    @classmethod
    def from_file(cls, path: Path) -> "SoftwareVault":
        """Read a JSON file of vending keys. Raises VaultDamaged without repeating what it read."""
        return cls(read_key_file(path))


def check_credit_request(request: CreditRequest) -> None:
    """Refuse what no vault may issue, before any key is touched. Raises VaultRefused."""
    if not 0 < len(request.request_id) <= MAX_REQUEST_ID:
        raise VaultRefused("invalid_request_id", f"a request id has 1 to {MAX_REQUEST_ID} characters")
    if request.amount < 1:
        raise VaultRefused("invalid_amount", "a credit token carries at least one tenth")
    try:
        check_tid(request.tid)
        encode_amount(request.amount)
    except TokenEngineError as error:
        raise VaultRefused(error.code, str(error)) from None
    if is_reserved_tid(request.tid):
        raise VaultRefused("reserved_tid", "the TID of 00:01 is kept for special reserved tokens")
    if request.meter.kt is KeyType.DDTK:
        raise VaultRefused("ddtk_credit", "a meter under a default key (DDTK) takes no credit")
    if key_expired(request.tid, request.meter.ken):
        raise VaultRefused(
            "key_expired", f"the meter's key expired (KEN {request.meter.ken}): change the key first"
        )


def read_key_file(path: Path) -> dict[KeyAddress, VendingKey]:
    """The vending keys of a JSON file. Raises VaultDamaged without repeating what it read."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise VaultDamaged(f"{path.name} is larger than a key file can be")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise VaultDamaged(f"{path.name} cannot be read") from None
    return parse_key_file(text, path.name)


def parse_key_file(text: str, name: str) -> dict[KeyAddress, VendingKey]:
    """The vending keys of a key file's text. Raises VaultDamaged without repeating it."""
    try:
        content = json.loads(text)
        if content["format"] != FILE_FORMAT:
            raise VaultDamaged(f"{name} is not of format {FILE_FORMAT}")
        keys: dict[KeyAddress, VendingKey] = {}
        for entry in content["keys"]:
            kt = KeyType(entry["kt"])
            address = (SupplyGroup(entry["sgc"]), check_key_revision(entry["krn"]), kt)
            if address in keys:
                raise VaultDamaged(f"{name} holds two keys for one supply group, revision and type")
            material = VendingKeyMaterial.from_hex(entry["key"])
            keys[address] = VendingKey(material, kt, BaseDate(entry["base_date"]))
    except (ValueError, KeyError, TypeError, AttributeError, InvalidKey, InvalidIdentity):
        raise VaultDamaged(f"{name} is not a key file this version can read") from None
    return keys


def key_file_text(keys: Mapping[KeyAddress, VendingKey], note: str = TEST_NOTE) -> str:
    """The text of a key file; the keys are in the clear, which the note says."""
    entries = [
        {
            "sgc": str(sgc),
            "krn": krn,
            "kt": kt.value,
            "base_date": key.base_date.value,
            "key": key.material.reveal().hex(),
        }
        for (sgc, krn, kt), key in keys.items()
    ]
    return json.dumps({"format": FILE_FORMAT, "note": note, "keys": entries}, indent=1) + "\n"


def write_key_file(path: Path, keys: Mapping[KeyAddress, VendingKey], note: str = TEST_NOTE) -> None:
    """Write a file of TEST keys in the clear, readable by its owner only. Raises OSError."""
    path.touch(mode=0o600)
    path.write_text(key_file_text(keys, note), "utf-8")
