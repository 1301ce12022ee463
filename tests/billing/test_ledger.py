"""Journal entries: each balances, and together they leave nobody short."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import ledger
from billing.errors import BooksBroken
from billing.ledger import Entry, Posting, Sale, balances

VEND, PAYMENT = UUID(int=1), UUID(int=2)


@st.composite
def sales(draw):
    parts = [draw(st.integers(0, 50_000)) for _ in range(3)]
    energy = draw(st.integers(1, 50_000))
    arrears, vat, change = parts
    commodity = draw(st.sampled_from(["electricity", "water"]))
    return Sale(VEND, 7, commodity, arrears + vat + energy + change, arrears, vat, energy, change)


@given(sales(), st.integers(-10, 100_000))
def test_a_sale_leaves_no_liability_and_no_debt_paid_twice(sale, debt):
    entries = [
        ledger.payment_entry(PAYMENT, 7, sale.amount_minor),
        *ledger.vend_entries(sale, debt_minor=debt),
    ]
    total = balances(entries)
    assert sum(total.values()) == 0
    assert total.get((ledger.PREPAID_LIABILITY, 7), 0) == 0
    assert total[ledger.PROVIDER_CLEARING, None] == sale.amount_minor
    assert total[ledger.REVENUE[sale.commodity], None] == -sale.energy_minor
    assert total.get((ledger.VAT_PAYABLE, None), 0) == -sale.vat_minor
    taken = -total.get((ledger.ARREARS_RECEIVABLE, 7), 0)
    assert taken == min(sale.arrears_minor, max(0, debt))
    change = -total.get((ledger.CUSTOMER_CHANGE, 7), 0)
    assert change + taken == sale.change_minor + sale.arrears_minor


@given(sales())
def test_a_reversal_undoes_its_entry(sale):
    entries = list(ledger.vend_entries(sale, debt_minor=10**9))
    undone = [ledger.reversal_entry(number, entry) for number, entry in enumerate(entries, 1)]
    assert balances([*entries, *undone]) == {}
    assert [entry.reverses for entry in undone] == list(range(1, len(entries) + 1))
    assert len({entry.idempotency_key for entry in [*entries, *undone]}) == 2 * len(entries)


def test_the_other_entries_by_hand():
    assert balances([ledger.suspense_entry(PAYMENT, 7, 500)]) == {
        (ledger.PROVIDER_CLEARING, None): 500,
        (ledger.SUSPENSE, 7): -500,
    }
    paid_back = [ledger.payment_entry(PAYMENT, 7, 500), ledger.refund_entry(VEND, 7, 500)]
    assert balances(paid_back) == {}
    assert balances([ledger.opening_entry(7, 900, source="old")]) == {
        (ledger.ARREARS_RECEIVABLE, 7): 900,
        (ledger.OPENING_BALANCE, None): -900,
    }


@pytest.mark.parametrize(
    "postings",
    [
        (Posting("provider_clearing", 5), Posting("vat_payable", -4)),
        (Posting("provider_clearing", 0),),
        (),
        (Posting("provider_clearing", 5), Posting("petty_cash", -5)),
        (Posting("provider_clearing", 5), Posting("prepaid_liability", -5)),
        (Posting("provider_clearing", 5, 7), Posting("vat_payable", -5)),
        (Posting("provider_clearing", 5), Posting("vat_payable", -5), Posting("vat_payable", 0)),
    ],
)
def test_an_entry_that_is_wrong_cannot_be_made(postings):
    with pytest.raises(BooksBroken):
        Entry("payment", "k", "r", postings)
