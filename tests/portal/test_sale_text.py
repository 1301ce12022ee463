"""What a sale says by SMS: both languages, the token on a line of its own, groups that cannot flip."""

import pytest

from portal import jobs, sale_text

TOKEN = {
    "drn": "06000000011",
    "commodity": "electricity",
    "digits": "12345678901234567890",
    "units_tenths": 3_401,
    "amount_minor": 5_000,
    "receipt_number": 17,
}


@pytest.mark.parametrize("language", ["ar", "en"])
def test_a_token_message(language):
    body = sale_text.token_body(language, arrears_minor=0, change_minor=0, **TOKEN)
    lines = body.split("\n")
    assert lines[1] == "1234\u00a05678\u00a09012\u00a03456\u00a07890"
    assert "340.1" in lines[0]
    assert "5.000" in lines[2]
    assert "17" in lines[2]
    assert len(lines) == 3


def test_deductions_and_change_are_told():
    body = sale_text.token_body("ar", arrears_minor=1_000, change_minor=1, **TOKEN)
    assert "خُصم منه 1.000" in body
    assert "0.001" in body
    assert "%(" not in body


@pytest.mark.parametrize("language", ["ar", "en"])
def test_money_in_suspense(language):
    assert "5.000" in sale_text.suspense_body(language, amount_minor=5_000)


def test_the_two_languages_are_two():
    assert sale_text.suspense_body("ar", amount_minor=1) != sale_text.suspense_body("en", amount_minor=1)


async def test_a_job_is_a_row_on_the_given_connection(conn):
    from uuid import UUID

    await jobs.defer_delivery(conn, UUID(int=3))
    row = await (await conn.execute("SELECT task_name, queue_name, args FROM procrastinate_jobs")).fetchone()
    assert row == (jobs.DELIVER_TOKEN, jobs.QUEUE, {"vend_id": str(UUID(int=3))})


def test_a_ticket_says_what_a_person_must_look_at():
    from tests.billing.world import NOW

    facts = {"drn": "06000000011", "amount_minor": 5_000, "receipt_number": 17}
    late = sale_text.late_ticket("en", paid_at=NOW, **facts)
    held = sale_text.late_ticket("en", paid_at=None, **facts)
    assert late[0] == "Paid, and no token yet"
    assert "5.000\u00a0OMR were paid at 13:00 for meter 06000000011 (receipt 17)" in late[1]
    assert held[0] == "Money without a sale"
    for spoken in (late, held):
        assert spoken != sale_text.late_ticket("ar", paid_at=NOW if spoken is late else None, **facts)


@pytest.mark.parametrize("language", ["ar", "en"])
def test_carried_credit_names_both_meters(language):
    body = sale_text.carry_body(
        language,
        old_drn="06000000029",
        drn=TOKEN["drn"],
        commodity="electricity",
        digits=TOKEN["digits"],
        units_tenths=43,
        first_tokens=[TOKEN["digits"]],
    )
    assert "06000000029" in body and TOKEN["drn"] in body and "4.3" in body and "%(" not in body
    assert body.count("1234\u00a05678") == 2
