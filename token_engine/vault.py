"""What issues tokens: requests with an id made by the caller, answers that can be asked for again."""

from dataclasses import dataclass
from typing import Protocol

from token_engine.errors import VaultRefused, VaultTimeout
from token_engine.fields import largest_not_above
from token_engine.identifiers import MeterKeyIdentity

__all__ = [
    "MAX_REQUEST_ID",
    "CreditRequest",
    "IssuedToken",
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
    amount: int
    tid: int
    rnd: int


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token and what it really carries in tenths; `key_check_value` names the vending key used."""

    request_id: str
    digits: str
    carried: int
    tid: int
    key_check_value: str

    def __repr__(self) -> str:
        """Without the digits: they are money until they are used."""
        return f"<IssuedToken {self.request_id}: {self.carried} tenths, tid {self.tid}>"


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
