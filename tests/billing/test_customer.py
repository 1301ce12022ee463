"""Phone numbers as people type them, and names in two languages."""

import pytest

from billing.customer import Customer, parse_phone
from billing.errors import InvalidQuantity


@pytest.mark.parametrize(
    "typed",
    [
        "91234567",
        "9123 4567",
        "+968 9123 4567",
        "00968-9123-4567",
        "96891234567",
        "٩١٢٣٤٥٦٧",
        "\u200e+96891234567",
    ],
)
def test_one_number_is_written_one_way(typed):
    assert parse_phone(typed) == "+96891234567"


def test_other_countries_keep_their_code():
    assert parse_phone("+971 50 123 4567") == "+971501234567"


@pytest.mark.parametrize("typed", ["", "1234567", "phone", "+0123456789", "9" * 16, "9" * 500, "912345678"])
def test_what_is_no_number_is_refused(typed):
    with pytest.raises(InvalidQuantity) as refused:
        parse_phone(typed)
    assert refused.value.code == "phone_invalid"


def test_a_customer_has_a_name_a_language():
    customer = Customer(1, "C1", "Salim", "سالم", "+96891234567", "ar")
    assert (customer.name("ar"), customer.name("en")) == ("سالم", "Salim")
