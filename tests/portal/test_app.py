import logging
from urllib.parse import quote

import pytest

from portal.app import BODY_LIMIT, make_app
from tests.portal.visitor import PROVIDER_URL, visiting

AWAY = "postgresql://nobody@127.0.0.1:1/nowhere"


async def test_health_and_ready(database_url) -> None:
    async with visiting(database_url) as visitor:
        assert (await visitor.get("/health")).json() == {"status": "ok"}
        assert (await visitor.get("/ready")).json() == {"status": "ok"}


async def test_without_a_database_it_starts_and_says_so_in_the_readers_language() -> None:
    async with visiting(AWAY, language="ar") as visitor:
        assert (await visitor.get("/health")).status_code == 200
        assert (await visitor.get("/ready")).status_code == 503
        assert (await visitor.get("/sign-in")).status_code == 200
        visitor.http.cookies.set("raseed_session", "x")
        answer = await visitor.get("/my")
        assert answer.status_code == 503
        assert "الخدمة غير متاحة حاليًا" in answer.text


async def test_every_answer_carries_a_strict_policy(database_url) -> None:
    async with visiting(database_url) as visitor:
        for path in ("/", "/sign-in", "/nowhere", "/static/raseed.css", "/health"):
            headers = (await visitor.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert f"form-action 'self' {PROVIDER_URL}" in policy
            assert headers["x-frame-options"] == "DENY"
            assert headers["x-content-type-options"] == "nosniff"


async def test_pages_hold_nothing_that_the_policy_refuses(database_url) -> None:
    async with visiting(database_url, demo=True) as visitor:
        for path in ("/sign-in", "/sign-in/staff", "/nowhere"):
            text = (await visitor.get(path)).text
            assert " style=" not in text
            assert "<style" not in text
            assert "onclick" not in text
            assert "<script>" not in text


async def test_pages_are_not_kept_and_hashed_files_are_for_ever(database_url) -> None:
    async with visiting(database_url) as visitor:
        answer = await visitor.get("/sign-in")
        assert answer.headers["cache-control"] == "no-store"
        href = answer.text.split('rel="stylesheet" href="')[1].split('"')[0]
        assert "?v=" in href
        assert "immutable" in (await visitor.get(href)).headers["cache-control"]
        assert "immutable" not in (await visitor.get("/static/raseed.css")).headers["cache-control"]


async def test_an_unknown_page_is_a_page(database_url) -> None:
    async with visiting(database_url) as visitor:
        answer = await visitor.get("/nowhere")
        assert answer.status_code == 404
        assert "This page is not here" in answer.text
        assert (await visitor.get("/static/../app.py")).status_code == 404
        assert (await visitor.http.put("/sign-in")).status_code == 405


@pytest.mark.parametrize("size", [BODY_LIMIT + 1, None])
async def test_a_body_that_is_too_large_is_refused(database_url, size) -> None:
    async with visiting(database_url) as visitor:
        if size:
            answer = await visitor.http.post("/sign-in", content=b"", headers={"content-length": str(size)})
            assert answer.status_code == 413
            return

        async def endless():
            for _ in range(BODY_LIMIT // 65_536 + 2):
                yield b"x" * 65_536

        answer = await visitor.http.post(
            "/sign-in",
            content=endless(),
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        assert answer.status_code in {400, 413, 422}


async def test_what_nobody_foresaw_is_a_page_and_a_line_in_the_log(database_url, monkeypatch, caplog) -> None:
    async with visiting(database_url) as visitor:
        monkeypatch.setattr("portal.pages.account.sign_in.normalise_phone", lambda _text: 1 // 0)
        with caplog.at_level(logging.ERROR, logger="portal.app"):
            answer = await visitor.post("/sign-in", {"phone": "91234567"})
        assert answer.status_code == 500
        assert "Something broke on our side" in answer.text
        assert "content-security-policy" in answer.headers
        assert "POST /sign-in" in caplog.text
        assert "91234567" not in caplog.text


@pytest.mark.parametrize(
    "value", ["\x00", "a\x00b", "x" * 5_000, "٠" * 64, "' OR 1=1 --", "\ud7ff\U0010ffff"]
)
async def test_bad_input_is_never_a_500(database_url, value) -> None:
    async with visiting(database_url) as visitor:
        for path, field in (("/sign-in", "phone"), ("/sign-in/code", "code"), ("/sign-in/staff", "username")):
            answer = await visitor.post(path, {field: value, "password": value, "phone": value})
            assert answer.status_code < 500, path
        for path in (f"/?lang={quote(value[:20])}", "/sign-in?next=//evil.test", "/my?view=%00"):
            assert (await visitor.get(path)).status_code < 500


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="secret key"):
        make_app(
            database_url=AWAY,
            secret_key="short",
            demo=False,
            public_url="",
            provider_url="",
            provider_secret="",
            control_url="",
        )


@pytest.mark.parametrize(
    ("charset", "field"), [("utf-7", b"+2AA-"), ("undefined", b"x"), ("punycode", b"\xff-\xff")]
)
async def test_a_form_in_no_readable_charset_is_bad_input_not_a_fault(charset, field) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n' + field + b"\r\n--b--\r\n"
    async with visiting(AWAY) as visitor:
        visitor.http.cookies.set("raseed_csrf", "mine")
        answer = await visitor.http.post(
            "/sign-out",
            content=body,
            headers={"content-type": f"multipart/form-data; boundary=b; charset={charset}"},
        )
        assert answer.status_code == 422


async def test_a_database_that_was_away_for_long_is_looked_for_every_few_seconds() -> None:
    app = make_app(
        database_url=AWAY,
        secret_key="k" * 32,
        demo=False,
        public_url="http://portal.test",
        provider_url=PROVIDER_URL,
        provider_secret="s",
        control_url="",
    )
    # The pool doubles its waits up to this: with its own 300 s a page would stay away as long as the database was.
    assert app.state.runtime.pool.reconnect_timeout <= 5
