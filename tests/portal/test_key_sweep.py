"""The worker's rounds over keys: one meter's fault is its own."""

from types import SimpleNamespace

import psycopg
import pytest

from billing import key_change_store
from portal import change_keys
from portal.key_sweep import KeySweep
from tests.billing.world import NOW, make_vault


async def test_a_change_that_cannot_be_followed_does_not_hold_up_the_next(pool, monkeypatch, caplog):
    followed = []

    async def listed(_conn, *, limit):
        return [SimpleNamespace(id=number) for number in range(min(limit, 3))]

    async def follow(_conn, change_id, _now):
        if change_id == 0:
            raise RuntimeError("a fault")
        followed.append(change_id)

    monkeypatch.setattr(key_change_store, "list_changes_to_follow", listed)
    monkeypatch.setattr(change_keys, "follow_change", follow)
    assert await KeySweep(pool, make_vault(), lambda: NOW).follow_issued() == 3
    assert followed == [1, 2]
    assert "key change 0 could not be done" in caplog.text


async def test_a_database_that_is_away_ends_the_round(pool, monkeypatch):
    async def listed(_conn, *, limit):
        return [SimpleNamespace(id=limit)]

    async def follow(_conn, _change_id, _now):
        raise psycopg.OperationalError

    monkeypatch.setattr(key_change_store, "list_changes_to_follow", listed)
    monkeypatch.setattr(change_keys, "follow_change", follow)
    with pytest.raises(psycopg.OperationalError):
        await KeySweep(pool, make_vault(), lambda: NOW).follow_issued()
