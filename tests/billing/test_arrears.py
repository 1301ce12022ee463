"""Deductions before energy: the published vector, the floor, and what must hold for any claim."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.arrears import DEDUCTION_ORDER, Claims, Deduction, arrears_of, take_deductions
from billing.errors import BooksBroken


def test_the_vector_of_the_field_rules():
    # field.md 4.6.5: P 10.000, fee 0, EC 1.000, debt 30.000, cap 20 % -> arrears 2.000, energy + tax 7.000
    lines = take_deductions(10_000, Claims(debt=30_000, emergency_credit=1_000), cap_percent=20)
    assert lines == (Deduction("emergency_credit", 1_000), Deduction("arrears", 2_000))
    assert 10_000 - sum(line.amount_minor for line in lines) == 7_000


@pytest.mark.parametrize(
    ("amount", "debt", "cap", "arrears"),
    [
        (10_000, 0, 20, 0),
        (10_000, 1_500, 20, 1_500),
        (10_000, 30_000, 20, 2_000),
        (999, 30_000, 20, 199),
        (10_000, 30_000, 0, 0),
        (10_000, -5, 20, 0),
        (10_001, 30_000, 100, 5_000),
    ],
)
def test_arrears_alone(amount, debt, cap, arrears):
    assert arrears_of(amount, debt, cap_percent=cap) == arrears


def test_a_weekly_cap_and_a_fee_count():
    claims = Claims(debt=30_000, channel_fee=100, weekly_cap_left=700)
    assert take_deductions(10_000, claims, cap_percent=20) == (
        Deduction("channel_fee", 100),
        Deduction("arrears", 700),
    )


def test_nonsense_is_refused():
    for amount, claims, cap in (
        (-1, Claims(), 20),
        (1_000, Claims(), 101),
        (1_000, Claims(fixed_charge=-1), 20),
    ):
        with pytest.raises(BooksBroken):
            take_deductions(amount, claims, cap_percent=cap)


claims = st.builds(
    Claims,
    debt=st.integers(0, 100_000),
    channel_fee=st.integers(0, 300),
    emergency_credit=st.integers(0, 5_000),
    fixed_charge=st.integers(0, 5_000),
    weekly_cap_left=st.none() | st.integers(0, 5_000),
)


@given(st.integers(300, 100_000), claims, st.integers(0, 100))
def test_energy_always_keeps_its_half(amount, claim, cap):
    lines = take_deductions(amount, claim, cap_percent=cap)
    assert 2 * sum(line.amount_minor for line in lines) <= amount
    assert [line.name for line in lines] == [
        name for name in DEDUCTION_ORDER if name in {line.name for line in lines}
    ]
    arrears = sum(line.amount_minor for line in lines if line.name == "arrears")
    assert arrears <= min(claim.debt, cap * amount // 100)
