"""Every way billing says no, each with a stable code for callers to match on and say in words."""

from __future__ import annotations


class BillingError(Exception):
    """Any refusal by billing; `code` never changes between releases, `facts` fill the sentence around it."""

    def __init__(self, code: str, message: str, **facts: int | str) -> None:
        super().__init__(message)
        self.code = code
        self.facts = facts


class InvalidQuantity(BillingError):
    """What a person typed is not an amount: `quantity_empty`, `quantity_not_a_number`,
    `quantity_not_positive`, `quantity_too_precise`, `quantity_too_large`.
    """  # noqa: D205


class InvalidVend(BillingError):
    """The caller asks for a sale that cannot be: limits, expiry, a meter that takes no tokens."""


class NotFound(BillingError):
    """Nothing here of that name that this caller may see (another customer's is the same answer)."""


class IdempotencyConflict(BillingError):
    """The same key came with other content; nothing was changed."""


class WebhookRejected(BillingError):
    """A provider's message without a good signature, out of time or not readable; nothing was changed."""


class PaymentMismatch(BillingError):
    """A provider names another amount than the payment's; nothing was changed."""


class ProviderUnavailable(BillingError):
    """The payment provider did not answer, or not sensibly: the payment's outcome stays open."""


class BooksBroken(BillingError):
    """An entry would not balance or a state has no such step: a fault of ours, nothing was changed."""
