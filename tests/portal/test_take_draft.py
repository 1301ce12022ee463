"""Drafts of the phone: taken once, the same key with other content is its own error, a refusal changes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from meter_gateway import meter_store
from portal.field import commissioning_store, photo_store
from portal.field.checklist import CLOCK_SLACK, CONSENT_LIFE, DRAFT_LIFE
from portal.field.photo import CleanPhoto
from portal.field.take_draft import Draft, DraftKeyReused, DraftRefused, take_draft
from tests.portal.small_town import LONG_AGO, NOW, build, drn_of


@pytest.fixture
async def town(conn):
    town = await build(conn)
    town.login = await town.staff("khalid", "engineer")
    await conn.commit()
    return town


def draft(town, name="a1", kind="entry", key="key-0001", made_at=NOW, photo=None, **fields):
    if kind == "entry":
        fields = {"item": "wiring", "outcome": "done"} | fields
    return Draft(key, kind, town.drns[name], made_at, fields, photo)


async def take(conn, town, given, now=NOW):
    return await take_draft(conn, given, login_id=town.login, actor="khalid", now=now)


async def entries(conn, town, name="a1"):
    return await commissioning_store.list_entries(conn, town.meters[name], since=LONG_AGO)


async def refused(conn, town, given, now=NOW):
    with pytest.raises(DraftRefused) as error:
        await take(conn, town, given, now)
    return error.value.reason


async def test_a_draft_is_taken_once(conn, town):
    given = draft(town, note="tight")
    first = await take(conn, town, given)
    again = await take(conn, town, given, NOW + timedelta(minutes=3))
    assert (first.word, first.again, again.again) == ("noted", False, True)
    (entry,) = await entries(conn, town)
    assert (entry.item, entry.outcome, entry.detail, entry.by_en) == (
        "wiring",
        "done",
        {"note": "tight"},
        "Khalid",
    )


async def test_the_same_key_for_another_draft_is_an_error(conn, town):
    await take(conn, town, draft(town))
    for other in (
        draft(town, note="other"),
        draft(town, "b1"),
        draft(town, kind="reading", display="5"),
    ):
        with pytest.raises(DraftKeyReused):
            await take(conn, town, other)
    town.login = await town.staff("another", "engineer")
    with pytest.raises(DraftKeyReused):
        await take(conn, town, draft(town))
    assert len(await entries(conn, town)) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "spell"}, "kind_unknown"),
        ({"made_at": NOW + CLOCK_SLACK + timedelta(seconds=1)}, "from_the_future"),
        ({"made_at": NOW - DRAFT_LIFE - timedelta(seconds=1)}, "too_old"),
        ({"drn": "123"}, "number_length"),
        ({"drn": drn_of(99)}, "number_unknown"),
        ({"fields": {"item": "relay", "outcome": "skipped"}}, "note_missing"),
        ({"fields": {"item": "wiring", "outcome": "failed"}}, "note_missing"),
        ({"fields": {"item": "wiring", "outcome": "skipped", "note": "x"}}, "item_unknown"),
        ({"fields": {"item": "display", "outcome": "done"}}, "item_unknown"),
        ({"fields": {"item": "test_token", "outcome": "done"}}, "meter_says_itself"),
        ({"kind": "reading", "fields": {"display": "abc"}}, "reading_unreadable"),
        ({"kind": "photo"}, "photo_missing"),
        ({"kind": "consent", "fields": {"given_by": "S", "method": "phone"}}, "name_missing"),
        ({"kind": "consent", "fields": {"given_by": "Salim", "method": "guess"}}, "name_missing"),
        (
            {
                "kind": "consent",
                "made_at": NOW - CONSENT_LIFE * 2,
                "fields": {"given_by": "Salim", "method": "phone"},
            },
            "consent_time",
        ),
        ({"kind": "install", "fields": {"usage_point_id": "x"}}, "point_taken"),
    ],
)
async def test_what_is_refused_changes_nothing(conn, town, change, reason):
    assert await refused(conn, town, replace(draft(town), **change)) == reason
    assert await entries(conn, town) == []
    assert await commissioning_store.find_draft(conn, "key-0001") is None


async def test_a_place_that_was_taken_meanwhile_is_told(conn, town):
    given = draft(town, kind="install", usage_point_id=str(town.points["b1"]))
    assert await refused(conn, town, given) == "meter_or_point_taken"
    same = draft(town, kind="install", usage_point_id=str(town.points["a1"]))
    assert await refused(conn, town, same) == "hangs_there_already"


@pytest.mark.parametrize(
    ("display", "word", "outcome"),
    [("1000", "noted", "done"), ("١٠٠٠٫٤", "noted", "done"), ("65536000", "display_differs", "failed")],
)
async def test_a_display_is_held_beside_the_register(conn, town, display, word, outcome):
    await town.state("a1", NOW, counter=1_000_000)
    answer = await take(conn, town, draft(town, kind="reading", display=display))
    assert answer.word == word
    (entry,) = await entries(conn, town)
    assert (entry.item, entry.outcome, entry.detail["register"]) == ("display", outcome, 1_000_000)


@pytest.mark.parametrize(
    ("display", "word", "register"),
    [
        ("1000", "noted", 1_000_000),  # now the register says 1006
        ("1006", "display_differs", 1_000_000),
        ("65536000", "display_differs", 1_000_000),
    ],
)
async def test_a_display_that_waited_is_held_against_the_register_of_its_time(
    conn, town, display, word, register
):
    then = NOW - timedelta(hours=6)
    await town.reading("a1", then - timedelta(minutes=4), value=999_900)
    await town.reading("a1", then + timedelta(minutes=1), value=register)
    await town.state("a1", NOW, counter=1_006_000)
    given = draft(town, kind="reading", display=display, made_at=then)
    assert (await take(conn, town, given)).word == word
    (entry,) = await entries(conn, town)
    assert (entry.detail["register"], entry.occurred_at) == (register, then)


async def test_without_a_register_of_its_time_a_display_is_neither_right_nor_wrong(conn, town):
    await town.state("a1", NOW, counter=1_006_000)
    given = draft(town, kind="reading", display="1000", made_at=NOW - timedelta(hours=6))
    assert (await take(conn, town, given)).word == "no_register_then"
    (entry,) = await entries(conn, town)
    assert entry.detail["reason"] == "no_register_then"


async def test_a_keypad_meter_brings_its_opening_reading(conn, town):
    answer = await take(conn, town, draft(town, "a4", kind="reading", display="17.3"))
    (entry,) = await entries(conn, town, "a4")
    assert (answer.word, entry.outcome, entry.detail) == ("noted", "done", {"display": 17_300})


async def test_a_consent_is_a_fact_and_is_not_taken_at_a_critical_customer(conn, town):
    given = draft(town, kind="consent", given_by="  Salim\x00 ", method="in_person")
    assert (await take(conn, town, given)).word == "consent_kept"
    found = await commissioning_store.find_consent(
        conn,
        meter_id=town.meters["a1"],
        usage_point_id=town.points["a1"],
        purpose="relay_exercise",
        since=LONG_AGO,
    )
    assert (found.given_by, found.method, found.given_at) == ("Salim", "in_person", NOW)
    await conn.execute("UPDATE meter_gateway.service_location SET is_critical = true WHERE code = 'L-5'")
    assert (
        await refused(conn, town, replace(given, key="key-0002", drn=town.drns["b1"])) == "critical_customer"
    )
    for change in (
        "UPDATE portal.customer_consent SET given_by = 'x'",
        "DELETE FROM portal.customer_consent",
    ):
        with pytest.raises(Exception, match="append-only"):
            async with conn.transaction():
                await conn.execute(change)


async def test_a_photo_is_kept_for_its_meter(conn, town):
    photo = CleanPhoto(b"\xff\xd8pixels", 8, 6)
    given = draft(town, kind="photo", photo=photo, subject="seal", note="4471")
    await take(conn, town, given)
    (kept,) = await photo_store.list_photos(conn, town.meters["a1"])
    assert (kept.subject, kept.note, kept.width, kept.height) == ("seal", "4471", 8, 6)
    assert await photo_store.find_content(conn, kept.id) == photo.content
    with pytest.raises(Exception, match="append-only"):
        async with conn.transaction():
            await conn.execute("UPDATE portal.site_photo SET content = ''")


async def test_what_is_said_of_an_earlier_installation_does_not_count(conn, town):
    await take(conn, town, draft(town))
    meter = town.meters["a1"]
    await meter_store.remove_meter(conn, meter_id=meter, removed_at=NOW + timedelta(minutes=1))
    again = NOW + timedelta(minutes=2)
    await meter_store.install_meter(
        conn, meter_id=meter, usage_point_id=town.points["a1"], installed_at=again, installed_by="x"
    )
    assert await commissioning_store.list_entries(conn, meter, since=again) == []
