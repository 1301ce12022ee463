"""`raseed history` as an operator types it."""

from meter_gateway.time_series import keep_history, retention_store
from raseed import cli
from tests.meter_gateway.places import NOW
from tests.meter_gateway.test_history_store import made_up, store


async def test_status_says_where_readings_lie(pool):
    await store(pool, made_up(1))
    await keep_history.catch_up(pool, NOW)
    async with pool.connection() as conn:
        sizes = {one.name: one for one in await retention_store.list_sizes(conn)}
    assert {"reading", "history_hour", "history_day", "history_month"} <= set(sizes)
    assert sizes["reading"].oldest.month == 9
    assert sizes["history_hour"].size_bytes > 0


def test_status_on_the_command_line(database_url, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert cli.main(["history", "status"]) == 0
    told = capsys.readouterr().out
    for word in (
        "edition ",
        "readings in ",
        "kept by the headend",
        "readings 25 months",
        "written up to never",
    ):
        assert word in told


def test_what_cannot_be_done_is_said(database_url, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert cli.main(["history", "upgrade", "--dry-run"]) == 1
    assert cli.main(["history", "upgrade", "--cancel"]) == 1
    told = capsys.readouterr().err
    assert "TimescaleDB" in told or "already" in told
    assert "no upgrade is under way" in told


def test_a_retention_that_is_too_short_is_refused(database_url, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("RASEED_KEEP_RAW_MONTHS", "3")
    assert cli.main(["history", "status"]) == 2
    assert "at least 14 months" in capsys.readouterr().err
