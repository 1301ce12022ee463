"""What issues tokens: requests with an id made by the caller, answers that can be asked for again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from token_engine.errors import VaultRefused, VaultTimeout
from token_engine.fields import largest_not_above
from token_engine.identifiers import MeterKeyIdentity

__all__ = [
    "MAX_REQUEST_ID",
    "BatchVault",
    "CreditRequest",
    "EngineeringVault",
    "IssuedKeyChange",
    "IssuedToken",
    "KeyChangeRequest",
    "ManagementRequest",
    "VaultRefused",
    "VaultTimeout",
    "VendingKeyVault",
    "largest_not_above",
]

MAX_REQUEST_ID = 128  # an id is a UUID or a vend number; longer is a mistake


@dataclass(frozen=True, slots=True)
class CreditRequest:
    """One credit token to issue: `amount` in tenths of kWh or m3, `rnd` 4 bits, `tid` already allocated."""

    request_id: str
    meter: MeterKeyIdentity
    subclass: int
    amount: int  # tenths of kWh or m3 (subclass 0/1)
    tid: int
    rnd: int


@dataclass(frozen=True, slots=True)
class ManagementRequest:
    """One class 2 token with a TID: `value` is its raw 16 bits (sts.md 3)."""

    request_id: str
    meter: MeterKeyIdentity
    subclass: int
    value: int
    tid: int
    rnd: int


@dataclass(frozen=True, slots=True)
class KeyChangeRequest:
    """The key-change set that takes one meter from `old` to `new`; `with_sgc` asks EA07 for a third token."""

    request_id: str
    old: MeterKeyIdentity
    new: MeterKeyIdentity
    with_sgc: bool = False


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token and what it really carries in tenths (of an engineering token: its raw 16-bit value).

    `key_check_value` names the vending key used. The digits stay out of repr: they are money until used.
    """

    request_id: str
    digits: str = field(repr=False)
    carried: int
    tid: int
    key_check_value: str


@dataclass(frozen=True, slots=True)
class IssuedKeyChange:
    """The 2, 3 or 4 tokens of a key change in the order to type them, and the check values of both keys."""

    request_id: str
    digits: tuple[str, ...] = field(repr=False)
    old_key_check_value: str
    new_key_check_value: str


class VendingKeyVault(Protocol):
    """Where vending keys live, in this process or across a network: the caller cannot tell."""

    async def issue_credit(self, request: CreditRequest) -> IssuedToken:
        """Issue, or give again what this request id already got.

        Raises VaultTimeout (outcome unknown: ask again under the same id) and VaultRefused (nothing issued;
        the same id with other content is refused too).
        """
        ...

    async def fetch_result(self, request_id: str) -> IssuedToken | None:
        """What a request id got, or None when the vault knows nothing of it. Raises VaultTimeout."""
        ...


class EngineeringVault(VendingKeyVault, Protocol):
    """A vault that also issues engineering tokens and key changes, under the same rules."""

    async def issue_management(self, request: ManagementRequest) -> IssuedToken:
        """One class 2 token with a TID. Raises VaultTimeout, VaultRefused."""
        ...

    async def issue_key_change(self, request: KeyChangeRequest) -> IssuedKeyChange:
        """One key-change set. Raises VaultTimeout, VaultRefused."""
        ...

    async def fetch_key_change(self, request_id: str) -> IssuedKeyChange | None:
        """The set a request id got, or None. Raises VaultTimeout."""
        ...


class BatchVault(VendingKeyVault, Protocol):
    """A vault that makes many credit tokens in one call."""

    async def issue_credits(self, requests: Sequence[CreditRequest]) -> list[IssuedToken | VaultRefused]:
        """Each as issue_credit gives it, a refused one as its refusal. Raises VaultTimeout."""
        ...
