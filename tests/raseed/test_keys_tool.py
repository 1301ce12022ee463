"""`raseed keys` and free units as an operator types them: two people, each with a password, and nothing shown."""

import asyncio
import io
import re
import threading

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from portal.key_sweep import KeySweep
from portal.sign_in import create_staff
from raseed import cli, free_units_tool
from tests.billing.world import make_tariffs
from tests.portal.key_world import make_wired, rich_vault, run_wire
from token_engine.key_material import VendingKeyMaterial
from token_engine.sealed_vault import WrappingKey, read_sealed_file
from token_engine.software_vault import write_key_file

PASSWORD = "a long enough password"
PEOPLE = {"huda": "supervisor", "salma": "admin", "nasser": "engineer"}
VAULT = rich_vault()


@pytest.fixture
def wired(database_url, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("RASEED_VAULT_FILE", str(tmp_path / "keys.json"))
    write_key_file(tmp_path / "keys.json", VAULT._keys)

    async def build(pool):
        async with pool.connection() as conn:
            await make_tariffs(conn)
            for name, role in PEOPLE.items():
                await create_staff(conn, name, PASSWORD, role, name.title())
        return [await make_wired(pool, VAULT, number) for number in range(1, 6)]

    return apart(database_url, build)


def apart(database_url, work):
    """Run a coroutine with a pool of its own, in a thread of its own."""
    results = []

    async def run():
        async with AsyncConnectionPool(database_url, min_size=1, max_size=2, open=False) as pool:
            results.append(await work(pool))

    in_thread(lambda: asyncio.run(run()))
    return results[0]


def in_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


@pytest.fixture
def raseed(monkeypatch, capsys):
    def run(*argv, lines=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code = in_thread(lambda: cli.main([str(word) for word in argv]))
        said = capsys.readouterr()
        assert PASSWORD not in said.out + said.err
        return code, said.out, said.err

    return run


PLAN = ("keys", "plan", "--sgc", "201457", "--krn", "1", "--to-krn", "2")


def id_of(text):
    return re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", text).group()


def test_a_recode_of_five_meters_from_plan_to_proof(database_url, wired, raseed):
    code, out, _ = raseed(*PLAN, "--dry-run")
    assert code == 0
    assert "5 meters would change" in out
    assert "201457 revision 2 KT 2 base 2014: check value" in out
    code, out, _ = raseed(*PLAN, "--as", "huda", "--reason", "yearly revision", lines=[PASSWORD])
    assert code == 0
    plan = id_of(out)
    code, out, err = raseed("keys", "approve", plan, "--as", "huda", lines=[PASSWORD])
    assert code == 1
    assert "four eyes" in err
    code, _, err = raseed("keys", "approve", plan, "--as", "nasser", lines=[PASSWORD])
    assert (code, "may not decide" in err) == (1, True)
    code, _, err = raseed("keys", "approve", plan, "--as", "salma", lines=["a wrong password"])
    assert (code, "no member of staff" in err) == (1, True)
    assert raseed("keys", "approve", plan, "--as", "salma", lines=[PASSWORD])[0] == 0
    assert "0 of 5 proven: WAITING 5" in raseed("keys", "progress", plan)[1]

    async def recode(pool):
        from tests.billing.world import NOW

        sweep = KeySweep(pool, VAULT, lambda: NOW)
        await sweep.round()
        for meter in wired[:4]:
            await run_wire(pool, meter, NOW)
        await sweep.round()

    apart(database_url, recode)
    assert "4 of 5 proven: ISSUED 1, PROVEN 4" in raseed("keys", "progress")[1]
    out = raseed("keys", "rest", plan)[1]
    assert wired[4].house.drn in out
    assert "1 of 5 left" in out
    assert [meter.state.token.identity.krn for meter in wired] == [2, 2, 2, 2, 1]
    word = ("--as", "salma", "--reason", "looked at it")
    assert "PROVEN" in raseed("keys", "confirm", wired[4].house.drn, *word, lines=[PASSWORD])[1]
    assert raseed("keys", "retry", wired[4].house.drn, *word, lines=[PASSWORD])[0] == 1
    assert "5 of 5 proven" in raseed("keys", "progress", plan)[1]


def test_a_plan_that_cannot_be_is_refused(database_url, wired, raseed):
    everyone = ("--as", "huda", "--reason", "x")
    code, out, err = raseed("keys", "plan", "--sgc", "201457", "--to-krn", "9", *everyone, lines=[PASSWORD])
    assert (code, "MISSING" in out, "vault cannot make" in err) == (1, True, True)
    code, _, err = raseed("keys", "plan", "--sgc", "201457", "--to-krn", "1", *everyone, lines=[PASSWORD])
    assert (code, "nothing_to_change" in err) == (1, True)
    code, _, err = raseed(*PLAN, "--as", "nasser", "--reason", "x", lines=[PASSWORD])
    assert (code, "may not plan" in err) == (1, True)
    assert raseed("keys", "plan", "--to-krn", "2", "--dry-run")[0] == 1
    assert raseed("keys", "plan", "--sgc", "201457", "--dry-run")[0] == 1
    assert raseed(*PLAN)[0] == 2
    assert raseed("keys", "approve", "00000000-0000-0000-0000-000000000000", "--as", "huda")[0] == 1
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT count(*) FROM billing.key_plan").fetchone() == (0,)


def test_a_planned_refusal_and_requests(database_url, wired, raseed):
    plan = id_of(raseed(*PLAN, "--as", "huda", "--reason", "x", lines=[PASSWORD])[1])
    assert raseed("keys", "refuse", plan, "--as", "salma", "--note", "not now", lines=[PASSWORD])[0] == 0
    assert "refused by salma" in raseed("keys", "progress", plan)[1]
    drn = wired[0].house.drn
    code, out, _ = raseed(
        "keys", "request", drn, "clear_tamper", "--as", "nasser", "--reason", "lid was open", lines=[PASSWORD]
    )
    assert code == 0
    request = id_of(out)
    assert raseed("keys", "approve", request, "--as", "salma", lines=[PASSWORD])[0] == 0
    code, _, err = raseed(
        "keys", "request", drn, "nonsense", "--as", "nasser", "--reason", "x", lines=[PASSWORD]
    )
    assert (code, "clear_credit" in err) == (1, True)
    code, out, _ = raseed(
        "keys",
        "request",
        drn,
        "power_limit",
        "--value",
        "0x10",
        "--as",
        "nasser",
        "--reason",
        "x",
        lines=[PASSWORD],
    )
    assert "APPROVED" in out


def test_free_units_for_the_fleet(database_url, wired, raseed):
    command = ("token", "free-units", "--month", "2026-11", "--units", "50")
    assert "5 meters would get 500 tenths" in raseed(*command, "--dry-run")[1]
    code, out, err = raseed(*command, "--as", "huda", lines=[PASSWORD])
    assert (code, "5 meters served" in out, "5 of 5" in err) == (0, True, True)
    assert "0 meters served" in raseed(*command, "--as", "huda", lines=[PASSWORD])[1]
    assert raseed(*command, "--as", "nasser", lines=[PASSWORD])[0] == 1
    assert raseed(*command)[0] == 2
    assert "begun by huda with 500" in raseed(*command, "--dry-run")[1]
    with pytest.raises(SystemExit):
        cli.main(["token", "free-units", "--month", "2026-13", "--units", "50"])


@pytest.mark.parametrize(("text", "tenths"), [("50", 500), ("0.5", 5), ("12.", 120)])
def test_units_are_read_exactly(text, tenths):
    assert free_units_tool._tenths(text) == tenths


@pytest.mark.parametrize("text", ["1.25", "-1", "", "٥", "1e3"])
def test_other_units_are_refused(text):
    with pytest.raises(ValueError):
        free_units_tool._tenths(text)


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    wrapping = tmp_path / "wrapping.hex"
    wrapping.write_text("11" * 32 + "\n")
    monkeypatch.setenv("RASEED_VAULT_FILE", str(tmp_path / "sealed.vault"))
    monkeypatch.setenv("RASEED_WRAPPING_KEY_FILE", str(wrapping))
    return tmp_path


KEY = bytes(range(20))
SHARES = (bytes([170] * 20), bytes(b ^ 170 for b in KEY))
CHECK = VendingKeyMaterial(KEY).check_value
LOAD = ("keys", "load", "--sgc", "300001", "--krn", "1", "--kt", "2", "--base-date", "2014")
BOTH = ("--as", "huda", "--as", "salma")


def test_two_people_load_a_key_that_neither_has(database_url, wired, sealed, raseed):
    words = [PASSWORD, PASSWORD, *(share.hex() for share in SHARES)]
    code, out, _ = raseed(*LOAD, *BOTH, "--check-value", CHECK.lower(), lines=words)
    assert (code, CHECK in out) == (0, True)
    assert raseed("keys", "show")[1].splitlines() == [
        "1 vending keys, generation 1",
        f"  300001 revision 1 DUTK: check value {CHECK}",
    ]
    sealed_bytes = (sealed / "sealed.vault").read_bytes()
    assert KEY not in sealed_bytes
    with psycopg.connect(database_url) as conn:
        row = conn.execute(
            "SELECT action, first_person, second_person, sgc, key_check_value, generation FROM billing.key_custody"
        ).fetchone()
        assert row == ("load", "huda", "salma", "300001", CHECK, 1)
        with pytest.raises(psycopg.errors.RestrictViolation):
            conn.execute("DELETE FROM billing.key_custody")
    (sealed / "new.hex").write_text("22" * 32)
    code, out, _ = raseed("keys", "rotate", "--new-key-file", sealed / "new.hex", *BOTH, lines=words[:2])
    assert (code, "generation 2" in out) == (0, True)
    code, _, err = raseed("keys", "show")
    assert (code, "another key" in err) == (1, True)
    held = read_sealed_file(sealed / "sealed.vault", WrappingKey(bytes([0x22] * 32)))
    assert [key.check_value for key in held.keys.values()] == [CHECK]


@pytest.mark.parametrize(
    ("people", "check", "shares", "why"),
    [
        (("--as", "huda"), CHECK, SHARES, "two people"),
        (("--as", "huda", "--as", "HUDA"), CHECK, SHARES, "four eyes"),
        (("--as", "huda", "--as", "nasser"), CHECK, SHARES, "may not"),
        (BOTH, "000000", SHARES, f"check value {CHECK}"),
        (BOTH, CHECK, (SHARES[0], SHARES[1][:8]), "differ in length"),
        (BOTH, CHECK, (SHARES[0], b"123"), "bytes"),
    ],
)
def test_a_load_that_is_not_right_loads_nothing(
    database_url, wired, sealed, raseed, people, check, shares, why
):
    words = [PASSWORD, PASSWORD, *(share.hex() for share in shares)]
    code, _, err = raseed(*LOAD, *people, "--check-value", check, lines=words)
    assert (code, why in err) == (1, True)
    assert not (sealed / "sealed.vault").exists()
    assert not any(share.hex() in err for share in shares)


def test_shares_from_two_files(database_url, wired, sealed, raseed):
    files = []
    for number, share in enumerate(SHARES):
        files.append(sealed / f"share-{number}")
        files[-1].write_text(share.hex())
    one = ("--share-file", files[0])
    assert raseed(*LOAD, *BOTH, "--check-value", CHECK, *one, *one, lines=[PASSWORD] * 2)[0] == 1
    assert raseed(*LOAD, *BOTH, "--check-value", CHECK, *one, lines=[PASSWORD] * 2)[0] == 1
    both = (*one, "--share-file", files[1])
    assert raseed(*LOAD, *BOTH, "--check-value", CHECK, *both, lines=[PASSWORD] * 2)[0] == 0


def test_the_demos_own_file_says_what_it_is(wired, raseed):
    assert "NOT sealed: test keys" in raseed("keys", "show")[1]
