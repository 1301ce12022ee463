"""`raseed money` as an operator types it: a dry run first, a person of the office, once, and the customer is told."""

import asyncio
import io
import threading

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from portal import sell
from portal.sign_in import create_staff
from raseed import cli
from tests.billing.world import Clock, make_house, make_tariffs, make_vault
from tests.portal.sales import LossyVault, buy, event_of, settle

PASSWORD = "a long enough password"
PEOPLE = {"huda": "supervisor", "layla": "agent"}


def in_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


@pytest.fixture
def sales(database_url):
    """One refused, one vended, one in suspense, one quoted."""

    async def build():
        async with AsyncConnectionPool(database_url, min_size=1, max_size=2, open=False) as pool:
            async with pool.connection() as conn:
                await make_tariffs(conn)
                house = await make_house(conn)
                for name, role in PEOPLE.items():
                    await create_staff(conn, name, PASSWORD, role, name.title())
            made = {}
            for name, plan in (("refused", ["refuse"]), ("vended", [])):
                quote, payment = await buy(pool, house)
                await settle(pool, event_of(payment))
                await sell.deliver_token(pool, LossyVault(make_vault(), plan), quote.vend_id, Clock())
                made[name] = quote.vend_id
            quote, payment = await buy(pool, house)
            await settle(pool, event_of(payment, "declined"))
            await settle(pool, event_of(payment))
            made["suspense"] = quote.vend_id
            made["quoted"] = (await buy(pool, house))[0].vend_id
        return made

    return in_thread(lambda: asyncio.run(build()))


@pytest.fixture
def money(database_url, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", database_url)

    def typed(*argv, line=PASSWORD):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{line}\n"))
        code = in_thread(lambda: cli.main(["money", *(str(word) for word in argv)]))
        said = capsys.readouterr()
        assert PASSWORD not in said.out + said.err
        return code, said.out, said.err

    return typed


def rows(database_url, query, *args):
    with psycopg.connect(database_url) as conn:
        return conn.execute(query, args).fetchall()


def everything(database_url):
    return [
        rows(database_url, query)
        for query in (
            "SELECT id, state FROM billing.vend ORDER BY id",
            "SELECT count(*) FROM billing.journal",
            "SELECT count(*) FROM billing.vend_step",
            "SELECT count(*) FROM portal.message",
        )
    ]


WORD = ("--as", "huda", "--reason", "no key for this meter")


def test_what_is_held_is_listed(money, sales):
    code, out, _ = money("list")
    assert code == 0
    assert f"{sales['refused']}  REFUSED " in out
    assert f"{sales['suspense']}  SUSPENSE" in out
    assert "unknown_key" in out
    assert "2 sums held" in out
    assert str(sales["vended"]) not in out
    assert str(sales["quoted"]) not in out


@pytest.mark.parametrize("what", ["refused", "suspense"])
def test_money_goes_back_once_and_the_customer_is_told(database_url, money, sales, what):
    before = everything(database_url)
    code, out, _ = money("refund", sales[what], *WORD)
    assert (code, "would make it" in out, "--yes" in out) == (0, True, True)
    assert everything(database_url) == before
    code, out, _ = money("refund", sales[what], *WORD, "--yes")
    assert (code, "→ REFUNDED" in out) == (0, True)
    step = "SELECT detail FROM billing.vend_step WHERE vend_id = %s ORDER BY id DESC LIMIT 1"
    assert rows(database_url, step, sales[what]) == [("huda: no key for this meter",)]
    told = "SELECT kind, language, body FROM portal.message WHERE idempotency_key = %s"
    ((kind, language, body),) = rows(database_url, told, f"refund:{sales[what]}")
    assert (kind, language) == ("payment", "ar")
    assert "نعيد إليكم" in body
    after = everything(database_url)
    code, out, _ = money("refund", sales[what], *WORD, "--yes")
    assert (code, "already" in out) == (0, True)
    assert everything(database_url) == after
    assert "1 sums held" in money("list")[1]


def test_a_sale_is_reversed_then_refunded(money, sales):
    vend = sales["vended"]
    assert money("refund", vend, *WORD, "--yes")[0] == 1
    assert "→ REVERSED" in money("reverse", vend, *WORD, "--yes")[1]
    assert "3 sums held" in money("list")[1]
    assert "→ REFUNDED" in money("refund", vend, *WORD, "--yes")[1]


def test_a_token_that_the_meter_has_is_not_taken_back(database_url, money, sales):
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, recorded_at, detail)"
            " SELECT v.meter_id, m.drn, 'raseed.token', v.vended_at, v.vended_at,"
            "  jsonb_build_object('tid', v.tid, 'result', 'ACCEPT')"
            " FROM billing.vend v JOIN meter_gateway.meter m ON m.id = v.meter_id WHERE v.id = %s",
            (sales["vended"],),
        )
    before = everything(database_url)
    code, _, err = money("reverse", sales["vended"], *WORD, "--yes")
    assert (code, "has this token's units" in err) == (1, True)
    assert everything(database_url) == before


def test_a_refused_sale_is_asked_again(money, sales):
    assert "would make it REFUSED → REQUESTED" in money("retry", sales["refused"], *WORD)[1]
    assert "REFUSED → REQUESTED" in money("retry", sales["refused"], *WORD, "--yes")[1]
    assert "already" in money("retry", sales["refused"], *WORD, "--yes")[1]
    assert money("refund", sales["refused"], *WORD, "--yes")[0] == 1


@pytest.mark.parametrize(
    ("what", "sale", "person", "line", "said"),
    [
        ("refund", "refused", "layla", PASSWORD, "agent may not"),
        ("refund", "refused", "huda", "a wrong password", "no member of staff"),
        ("refund", "refused", "nobody", PASSWORD, "no member of staff"),
        ("refund", "quoted", "huda", PASSWORD, "refused"),
        ("refund", "vended", "huda", PASSWORD, "refused"),
        ("reverse", "refused", "huda", PASSWORD, "refused"),
        ("retry", "suspense", "huda", PASSWORD, "refused"),
    ],
)
def test_what_may_not_be_changes_nothing(database_url, money, sales, what, sale, person, line, said):
    before = everything(database_url)
    code, _, err = money(what, sales[sale], "--as", person, "--reason", "x", "--yes", line=line)
    assert (code, said in err) == (1, True)
    assert everything(database_url) == before


def test_an_order_needs_a_reason_and_a_sale_that_is_there(money, sales):
    assert money("refund", sales["refused"], "--as", "huda", "--reason", "  ")[0] == 2
    code, _, err = money("refund", "00000000-0000-0000-0000-000000000001", *WORD)
    assert (code, "no such vend" in err) == (1, True)
