import psycopg
import pytest

from billing import errors as billing
from meter_gateway import errors as gateway
from portal import errors
from portal.i18n import load_languages
from portal.rate_limit import TooManyAttempts
from token_engine.errors import InvalidTokenText

LANGUAGES = load_languages()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (billing.NotFound("quote_not_found", "x"), 404),
        (billing.InvalidVend("quote_expired", "x"), 409),
        (billing.InvalidQuantity("quantity_empty", "x"), 422),
        (billing.IdempotencyConflict("payment_key_reused", "x"), 409),
        (billing.ProviderUnavailable("provider_unreadable", "x"), 502),
        (billing.BooksBroken("x", "x"), 500),
        (gateway.MeterHasNoLink("x"), 409),
        (gateway.CommandNotFound("x"), 404),
        (TooManyAttempts(5), 429),
        (psycopg.DataError("x"), 422),
        (psycopg.errors.NumericValueOutOfRange("x"), 422),
        (psycopg.OperationalError("x"), 503),
        (psycopg.InterfaceError("the connection is closed"), 503),
        (RuntimeError("x"), 500),
    ],
)
def test_every_error_has_its_answer(error, status) -> None:
    assert errors.answer_for(error).status == status


@pytest.mark.parametrize(("status", "given"), [(404, 404), (405, 405), (413, 413), (418, 418), (502, 500)])
def test_a_bare_status_keeps_its_number(status, given) -> None:
    assert errors.answer_for_status(status).status == given


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=list(LANGUAGES))
def test_a_field_error_is_in_words_with_its_numbers(language) -> None:
    low = errors.field_error(billing.InvalidVend("amount_below_minimum", "x", minimum_minor=500), language)
    assert "0.500" in low
    assert errors.field_error(InvalidTokenText("too_short", "x"), language) != ""
    unknown = errors.field_error(billing.InvalidVend("never_heard_of", "secret detail"), language)
    assert "secret" not in unknown
    assert unknown
    numberless = errors.field_error(billing.InvalidVend("amount_below_minimum", "x"), language)
    assert "%(" not in numberless
