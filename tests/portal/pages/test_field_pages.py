"""The engineer's pages beside the meter's own: who may see them, both languages, what a phone may keep, drafts."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from PIL import Image

from portal.field import commissioning_store, photo_store
from portal.pages import (
    field_add,
    field_change,
    field_commission,
    field_drafts,
    field_offline,
    field_sites,
    field_tasks,
)
from tests.portal.field_town import build_field_town
from tests.portal.small_town import languages
from tests.portal.test_photo import SECRET, jpeg
from tests.portal.visitor import visiting

BUS = "/field/sites/site-1/buses/rtu-1"
PAGES = (
    "/field", "/field/sites", "/field/sites/site-1", BUS, f"{BUS}/scan?first=1&last=9", f"{BUS}/units/3",
    f"{BUS}/units/9", f"{BUS}/units/3/words", f"{BUS}/units/3/words?profile=raseed-prepaid-e1",
    f"{BUS}/units/9/add?profile=raseed-prepaid-e1", "/field/drafts", "/field/drafts/new", "/field/offline",
    "/field/meters/{a3}/checklist", "/field/meters/{spare}/checklist", "/field/meters/{a4}/checklist",
    "/field/meters/{a1}/photos", "/field/meters/{a1}/replace", "/field/meters/{a1}/remove",
    "/field/meters/{a1}/relay", "/field/meters/{spare}/install",
)  # fmt: skip
ROUTERS = (field_add, field_change, field_commission, field_drafts, field_offline, field_sites, field_tasks)


@pytest.fixture
async def town(conn):
    return await build_field_town(conn)


@pytest.fixture
async def engineer(database_url, town):
    async with visiting(database_url) as visitor:
        await visitor.be_staff("engineer")
        yield visitor


@pytest.mark.parametrize("language", ["ar", "en"])
async def test_every_page_opens_in_both_languages(engineer, town, language, caplog):
    for path in PAGES:
        page = await engineer.get(
            path.format(**town.drns) + ("&" if "?" in path else "?") + f"lang={language}"
        )
        assert page.status_code == 200, path
    assert "no Arabic for" not in caplog.text


async def test_nobody_else_comes_in(database_url, town):
    paths = {
        route.path.format(
            site="site-1", bus="rtu-1", unit=3, drn=town.drns["a1"], task_id=1, photo_id=1
        ): route
        for module in ROUTERS
        for route in module.router.routes
    }
    for role, status in (("agent", 403), (None, 303)):
        async with visiting(database_url) as visitor:
            if role:
                await visitor.be_staff(role)
            for path, route in paths.items():
                ask = visitor.get if "GET" in route.methods else visitor.post
                assert (await ask(path)).status_code == status, path


async def test_a_supervisor_sees_but_does_not_touch(database_url, town):
    async with visiting(database_url) as visitor:
        await visitor.be_staff("supervisor")
        checklist = await visitor.get(f"/field/meters/{town.drns['a3']}/checklist")
        assert checklist.status_code == 200
        assert '/field/drafts"' not in re.sub(r'href="[^"]*"', "", checklist.text)
        for path in (f"/field/meters/{town.drns['a3']}/finish", "/field/drafts", f"{BUS}/tasks"):
            assert (await visitor.post(path)).status_code == 403


# -- what may be kept on a phone -------------------------------------------------------------------------


async def test_pages_with_tokens_are_never_kept_on_a_phone(engineer, town):
    kept = {
        path
        for path in (*PAGES, f"/field/meters/{town.drns['a1']}")
        if field_offline.KEEP_HEADER in (await engineer.get(path.format(**town.drns))).headers
    }
    assert {"/field", "/field/drafts", "/field/drafts/new", "/field/offline", "/field/sites/site-1"} <= kept
    assert f"/field/meters/{town.drns['a1']}" not in kept, "it may show key-change tokens"
    shown = await engineer.post(f"/field/meters/{town.drns['keypad']}/test", {"form_key": "k" * 10})
    assert "token-box" in shown.text
    assert field_offline.KEEP_HEADER not in shown.headers


async def test_the_worker_stands_before_field_only_and_names_what_it_keeps(engineer):
    worker = await engineer.get("/field/worker.js")
    assert worker.headers["service-worker-allowed"] == "/field"
    assert worker.headers["content-type"].startswith("text/javascript")
    shell = json.loads(re.search(r"const SHELL = (\[.*?\]);", worker.text)[1])
    for address in shell:
        assert (await engineer.get(address)).status_code == 200, address
    assert set(field_offline.FIRST_PAGES) == set(
        json.loads(re.search(r"FIRST_PAGES = (\[.*?\]);", worker.text)[1])
    )
    me = (await engineer.get("/field/me")).json()
    assert me["csrf"] == await engineer.csrf()


async def test_signing_out_clears_the_phone_of_an_engineer_alone(database_url, town):
    async with visiting(database_url) as visitor:
        await visitor.be_staff("engineer")
        answer = await visitor.post("/sign-out")
        # Not "storage": the drafts of whoever else enters on this phone are there too.
        assert answer.headers["clear-site-data"] == '"cache"'
    async with visiting(database_url) as visitor:
        await visitor.be_staff("agent")
        assert "clear-site-data" not in (await visitor.post("/sign-out")).headers


# -- drafts ------------------------------------------------------------------------------------------------


def draft(town, name="a1", **fields):
    return {"form_key": "draft-0001", "kind": "entry", "drn": town.drns[name], "item": "wiring"} | fields


async def test_a_draft_is_answered_as_json_and_twice_the_same(engineer, town, conn):
    made_at = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    ask = {"headers": {"accept": "application/json"}}
    first = await engineer.post("/field/drafts", draft(town, made_at=made_at), **ask)
    again = await engineer.post("/field/drafts", draft(town, made_at=made_at), **ask)
    assert (first.status_code, first.json()["state"], first.json()["again"]) == (200, "taken", False)
    assert again.json()["again"] is True
    other = await engineer.post("/field/drafts", draft(town, made_at=made_at, note="x"), **ask)
    assert (other.status_code, other.json()["reason"]) == (422, "key_reused")
    (entry,) = await commissioning_store.list_entries(
        conn, town.meters["a1"], since=datetime(2020, 1, 1, tzinfo=UTC)
    )
    assert entry.occurred_at.isoformat() == made_at


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"form_key": "short"}, "kind_unknown"),
        ({"made_at": "yesterday"}, "kind_unknown"),
        ({"made_at": "2026-01-01T00:00:00"}, "kind_unknown"),
        ({"made_at": "0001-01-01T00:00:00+14:00"}, "kind_unknown"),
        ({"made_at": "9999-12-31T23:59:59-14:00"}, "kind_unknown"),
        ({f"field-{n}": "x" for n in range(field_drafts.MAX_FIELDS)}, "kind_unknown"),
        ({"drn": "x"}, "number_letters"),
        ({"kind": "reading", "display": "\x00"}, "reading_unreadable"),
    ],
)
async def test_a_bad_draft_is_told_in_words(engineer, town, change, reason):
    answer = await engineer.post(
        "/field/drafts", draft(town) | change, headers={"accept": "application/json"}
    )
    assert (answer.status_code, answer.json()["reason"]) == (422, reason)
    assert answer.json()["text"] == field_drafts.refused_words(reason, languages()["en"])


async def test_without_script_a_form_leads_back_and_says_so(engineer, town):
    answer = await engineer.post("/field/drafts", draft(town, back="//evil.example"))
    assert answer.headers["location"] == f"/field/meters/{town.drns['a1']}/checklist"
    assert "Noted." in (await engineer.get(answer.headers["location"])).text
    refused = await engineer.post("/field/drafts", draft(town, form_key="draft-0002", item="x"))
    assert refused.headers["location"] == "/field/drafts/new"


async def test_a_photo_loses_its_place_on_the_way_in(engineer, town, conn):
    upload = jpeg()
    assert SECRET in upload
    answer = await engineer.post(
        "/field/drafts",
        draft(town, kind="photo", subject="plate", note="north wall"),
        files={"photo": ("IMG_1.jpg", upload, "image/jpeg")},
    )
    assert answer.status_code == 303
    (kept,) = await photo_store.list_photos(conn, town.meters["a1"])
    shown = await engineer.get(f"/field/photos/{kept.id}")
    assert shown.headers["content-type"] == "image/jpeg"
    assert "no-store" in shown.headers["cache-control"]
    assert SECRET not in shown.content
    assert len(Image.open(io.BytesIO(shown.content)).getexif()) == 0
    assert "north wall" in (await engineer.get(f"/field/meters/{town.drns['a1']}/photos")).text
    two = [("photo", (f"{n}.jpg", upload, "image/jpeg")) for n in (1, 2)]
    many = await engineer.post("/field/drafts", draft(town, kind="photo", form_key="draft-0004"), files=two)
    assert many.headers["location"] == "/field/drafts/new"
    assert len(await photo_store.list_photos(conn, town.meters["a1"])) == 1
    bad = await engineer.post(
        "/field/drafts",
        draft(town, kind="photo", form_key="draft-0003"),
        files={"photo": ("x.jpg", b"<script>", "image/jpeg")},
        headers={"accept": "application/json"},
    )
    assert bad.json()["reason"] == "photo_unreadable"
