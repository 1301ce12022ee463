"""Vending keys in this process's memory: for simulated meters and tests, never for live supply groups."""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, Self, TypeVar

from token_engine.decoder_key import VendingKey, derive
from token_engine.encode import KeyChange, credit_token, key_change_tokens, management_token
from token_engine.errors import InvalidKey, TokenEngineError, VaultDamaged, VaultRefused
from token_engine.fields import decode_amount, encode_amount
from token_engine.identifiers import (
    KeyType,
    MeterKeyIdentity,
    SupplyGroup,
    check_key_revision,
    is_reserved_tid,
    key_expired,
)
from token_engine.key_material import DecoderKey
from token_engine.vault import (
    MAX_REQUEST_ID,
    CreditRequest,
    IssuedKeyChange,
    IssuedToken,
    KeyChangeRequest,
    ManagementRequest,
)
from token_engine.vending_key_file import (
    MAX_FILE_BYTES,
    MAX_KEYS,
    TEST_NOTE,
    KeyAddress,
    format_keys,
    parse_keys,
)

# A repeated request makes the same token again (nothing here is random), so forgetting an old one costs
# only the check that its content is the same; the database keeps that for good.
MAX_REMEMBERED = 100_000

Request = CreditRequest | ManagementRequest | KeyChangeRequest
RequestT = TypeVar("RequestT", CreditRequest, ManagementRequest, KeyChangeRequest)
ResultT = TypeVar("ResultT", IssuedToken, IssuedKeyChange)


class SoftwareVault:
    """An EngineeringVault over keys in memory; idempotent by request id."""

    def __init__(self, vending_keys: Mapping[KeyAddress, VendingKey]) -> None:
        self._keys = _checked_keys(vending_keys)
        self._issued: OrderedDict[str, tuple[Request, IssuedToken | IssuedKeyChange]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._keys)} keys>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a vault is never pickled or copied")

    @property
    def check_values(self) -> dict[KeyAddress, str]:
        """Which keys are here, each with its check value: never the keys."""
        return {address: key.check_value for address, key in self._keys.items()}

    def check_value(self, meter: MeterKeyIdentity) -> str:
        """The check value of the vending key this meter needs. Raises VaultRefused("unknown_key")."""
        return self._key_of(meter).check_value

    async def issue_credit(self, request: CreditRequest) -> IssuedToken:
        """See VendingKeyVault.issue_credit; this one never times out."""
        return self._once(request, self._credit, IssuedToken)

    async def issue_management(self, request: ManagementRequest) -> IssuedToken:
        """See EngineeringVault.issue_management."""
        return self._once(request, self._management, IssuedToken)

    async def issue_key_change(self, request: KeyChangeRequest) -> IssuedKeyChange:
        """See EngineeringVault.issue_key_change."""
        return self._once(request, self._key_change, IssuedKeyChange)

    async def fetch_result(self, request_id: str) -> IssuedToken | None:
        """See VendingKeyVault.fetch_result."""
        _, result = self._issued.get(request_id, (None, None))
        return result if isinstance(result, IssuedToken) else None

    async def fetch_key_change(self, request_id: str) -> IssuedKeyChange | None:
        """See EngineeringVault.fetch_key_change."""
        _, result = self._issued.get(request_id, (None, None))
        return result if isinstance(result, IssuedKeyChange) else None

    def decoder_key_for(self, meter: MeterKeyIdentity) -> DecoderKey:
        """The key to put into a simulated meter: for the meter maker. Raises VaultRefused, InvalidKey."""
        return derive(self._key_of(meter), meter)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a JSON file of vending keys. Raises VaultDamaged without repeating what it read."""
        return cls(parse_keys(read_bounded(path).decode("utf-8", "replace"), path.name))

    def _once(self, request: RequestT, make: Callable[[RequestT], ResultT], kind: type[ResultT]) -> ResultT:
        if not 0 < len(request.request_id) <= MAX_REQUEST_ID:
            raise VaultRefused("invalid_request_id", f"a request id has 1 to {MAX_REQUEST_ID} characters")
        known, result = self._issued.get(request.request_id, (None, None))
        if known is not None:
            if known != request or not isinstance(result, kind):
                raise VaultRefused(
                    "other_content", f"request {request.request_id} was made with other content"
                )
            return result
        try:
            made = make(request)
        except VaultRefused:
            raise
        except TokenEngineError as error:
            raise VaultRefused(error.code, str(error)) from None
        self._issued[request.request_id] = (request, made)
        if len(self._issued) > MAX_REMEMBERED:
            self._issued.popitem(last=False)
        return made

    def _credit(self, request: CreditRequest) -> IssuedToken:
        if request.amount < 1:
            raise VaultRefused("invalid_amount", "a credit token carries at least one tenth")
        if request.meter.kt is KeyType.DDTK:
            raise VaultRefused("ddtk_credit", "a meter under a default key (DDTK) takes no credit")
        carried = decode_amount(encode_amount(request.amount))
        _check_tid(request.tid, request.meter)
        vending_key = self._key_of(request.meter)
        digits = credit_token(
            derive(vending_key, request.meter),
            request.meter.ea,
            subclass=request.subclass,
            amount=request.amount,
            tid=request.tid,
            rnd=request.rnd,
        )
        return IssuedToken(request.request_id, digits, carried, request.tid, vending_key.check_value)

    def _management(self, request: ManagementRequest) -> IssuedToken:
        _check_tid(request.tid, request.meter)
        vending_key = self._key_of(request.meter)
        digits = management_token(
            derive(vending_key, request.meter),
            request.meter.ea,
            subclass=request.subclass,
            value=request.value,
            tid=request.tid,
            rnd=request.rnd,
        )
        return IssuedToken(request.request_id, digits, request.value, request.tid, vending_key.check_value)

    def _key_change(self, request: KeyChangeRequest) -> IssuedKeyChange:
        old, new = self._key_of(request.old), self._key_of(request.new)
        change = KeyChange(
            request.old, request.new, derive(old, request.old), derive(new, request.new), request.with_sgc
        )
        return IssuedKeyChange(
            request.request_id, key_change_tokens(change), old.check_value, new.check_value
        )

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


def _check_tid(tid: int, meter: MeterKeyIdentity) -> None:
    if is_reserved_tid(tid):
        raise VaultRefused("reserved_tid", "the TID of 00:01 is kept for special reserved tokens")
    if key_expired(tid, meter.ken):
        raise VaultRefused("key_expired", f"the meter's key expired (KEN {meter.ken}): change the key first")


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
