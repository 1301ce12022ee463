"""Journal entries: who owes whom after a payment, a vend, a deduction, a refund; debit positive, sum zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from billing.errors import BooksBroken

PROVIDER_CLEARING = "provider_clearing"  # what payment providers hold for us
PREPAID_LIABILITY = "prepaid_liability"  # what customers paid and have no token for yet
VAT_PAYABLE = "vat_payable"
ARREARS_RECEIVABLE = "arrears_receivable"  # what customers owe from before
CUSTOMER_CHANGE = "customer_change"  # what a token could not carry: still the customer's
SUSPENSE = "suspense"  # money that no sale waits for
OPENING_BALANCE = "opening_balance"  # the other side of debts brought in from an older system
REVENUE = {"electricity": "revenue.electricity", "water": "revenue.water"}

ACCOUNTS = frozenset(
    {
        PROVIDER_CLEARING,
        PREPAID_LIABILITY,
        VAT_PAYABLE,
        ARREARS_RECEIVABLE,
        CUSTOMER_CHANGE,
        SUSPENSE,
        OPENING_BALANCE,
        *REVENUE.values(),
    }
)
CUSTOMER_ACCOUNTS = frozenset({PREPAID_LIABILITY, ARREARS_RECEIVABLE, CUSTOMER_CHANGE, SUSPENSE})


@dataclass(frozen=True, slots=True)
class Posting:
    """One line: debit positive, credit negative, in baisa; customer accounts name their customer."""

    account: str
    amount_minor: int
    customer_id: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A journal entry before it is stored. Raises BooksBroken at construction unless it balances."""

    kind: str
    idempotency_key: str
    reference: str
    postings: tuple[Posting, ...]
    reverses: int | None = None

    def __post_init__(self) -> None:
        total = sum(posting.amount_minor for posting in self.postings)
        if total or len(self.postings) < 2:
            raise BooksBroken("entry_unbalanced", f"{self.idempotency_key} sums to {total}")
        for posting in self.postings:
            named = posting.customer_id is not None
            if posting.account not in ACCOUNTS or named != (posting.account in CUSTOMER_ACCOUNTS):
                raise BooksBroken("entry_account", f"{posting.account} does not stand like that in the books")
            if posting.amount_minor == 0:
                raise BooksBroken("entry_zero", f"{self.idempotency_key} posts nothing to {posting.account}")


@dataclass(frozen=True, slots=True)
class Sale:
    """The money of one sale, in baisa: arrears + VAT + energy + change = amount."""

    vend_id: UUID
    customer_id: int
    commodity: str
    amount_minor: int
    arrears_minor: int
    vat_minor: int
    energy_minor: int
    change_minor: int


def payment_entry(payment_id: UUID, customer_id: int, amount_minor: int) -> Entry:
    """A confirmed payment: the provider owes us, we owe the customer."""
    return Entry(
        "payment",
        f"payment:{payment_id}",
        str(payment_id),
        (
            Posting(PROVIDER_CLEARING, amount_minor),
            Posting(PREPAID_LIABILITY, -amount_minor, customer_id),
        ),
    )


def vend_entries(sale: Sale, *, debt_minor: int) -> tuple[Entry, ...]:
    """An issued token: the liability becomes revenue, VAT and change, and on its own entry arrears.

    `debt_minor` is what the customer still owes now. A quote may have promised to take more (another sale
    came between): the surplus stays the customer's change, so that nobody pays a debt twice.
    """
    arrears = min(sale.arrears_minor, max(0, debt_minor))
    change = sale.change_minor + sale.arrears_minor - arrears
    lines = (
        Posting(PREPAID_LIABILITY, sale.amount_minor - arrears, sale.customer_id),
        Posting(REVENUE[sale.commodity], -sale.energy_minor),
        Posting(VAT_PAYABLE, -sale.vat_minor),
        Posting(CUSTOMER_CHANGE, -change, sale.customer_id),
    )
    entries = [Entry("vend", f"vend:{sale.vend_id}", str(sale.vend_id), _without_zeros(lines))]
    if arrears:
        taken = (
            Posting(PREPAID_LIABILITY, arrears, sale.customer_id),
            Posting(ARREARS_RECEIVABLE, -arrears, sale.customer_id),
        )
        entries.append(Entry("arrears", f"arrears:{sale.vend_id}", str(sale.vend_id), taken))
    return tuple(entries)


def suspense_entry(payment_id: UUID, customer_id: int, amount_minor: int) -> Entry:
    """Money that came after we had said no: held for a person, once a payment."""
    return Entry(
        "suspense",
        f"suspense:{payment_id}",
        str(payment_id),
        (Posting(PROVIDER_CLEARING, amount_minor), Posting(SUSPENSE, -amount_minor, customer_id)),
    )


def refund_entry(vend_id: UUID, customer_id: int, amount_minor: int) -> Entry:
    """The money of a vend that got no token goes back by the road it came."""
    return Entry(
        "refund",
        f"refund:{vend_id}",
        str(vend_id),
        (Posting(PREPAID_LIABILITY, amount_minor, customer_id), Posting(PROVIDER_CLEARING, -amount_minor)),
    )


def suspense_refund_entry(payment_id: UUID, customer_id: int, amount_minor: int) -> Entry:
    """Money in suspense goes back by the road it came, once a payment."""
    return Entry(
        "refund",
        f"refund:{payment_id}",
        str(payment_id),
        (Posting(SUSPENSE, amount_minor, customer_id), Posting(PROVIDER_CLEARING, -amount_minor)),
    )


def carry_entry(
    carry_id: UUID, customer_id: int, commodity: str, *, energy_minor: int, vat_minor: int
) -> Entry:
    """Units that stood on a meter taken down become the customer's money: the sale of them is taken back."""
    lines = (
        Posting(REVENUE[commodity], energy_minor),
        Posting(VAT_PAYABLE, vat_minor),
        Posting(CUSTOMER_CHANGE, -energy_minor - vat_minor, customer_id),
    )
    return Entry("carry", f"carry:{carry_id}", str(carry_id), _without_zeros(lines))


def opening_entry(customer_id: int, debt_minor: int, *, source: str) -> Entry:
    """A debt brought in from an older system, named by `source`."""
    return Entry(
        "opening",
        f"opening:{source}:{customer_id}",
        source,
        (Posting(ARREARS_RECEIVABLE, debt_minor, customer_id), Posting(OPENING_BALANCE, -debt_minor)),
    )


def reversal_entry(journal_id: int, entry: Entry) -> Entry:
    """The exact opposite of a stored entry, naming it: nothing is ever deleted."""
    opposite = tuple(Posting(p.account, -p.amount_minor, p.customer_id) for p in entry.postings)
    return Entry("reversal", f"reversal:{journal_id}", entry.reference, opposite, reverses=journal_id)


def balances(entries: Iterable[Entry]) -> Mapping[tuple[str, int | None], int]:
    """Baisa by (account, customer) over entries; accounts at zero are left out."""
    totals: dict[tuple[str, int | None], int] = {}
    for entry in entries:
        for posting in entry.postings:
            key = (posting.account, posting.customer_id)
            totals[key] = totals.get(key, 0) + posting.amount_minor
    return {key: total for key, total in totals.items() if total}


def _without_zeros(postings: Iterable[Posting]) -> tuple[Posting, ...]:
    return tuple(posting for posting in postings if posting.amount_minor)
