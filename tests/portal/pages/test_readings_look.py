"""The pages of findings in a real browser: sound for axe, no wider than the window, on a phone and on a desk."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime

import pytest
import uvicorn

from portal import login_store, sign_in
from portal.access import SESSION_COOKIE
from portal.app import make_app
from tests.browsing import DESK, PHONE, look_over, open_chromium, visit
from tests.portal.finding_world import finding_of, make_findings
from tests.portal.visitor import PASSWORD, PROVIDER_SECRET, PROVIDER_URL, SECRET

KINDS = ("counter", "conflict")
pytestmark = pytest.mark.browser


async def test_a_finding_can_be_read_and_decided_by_hand(pool, database_url) -> None:
    await make_findings(pool)
    async with pool.connection() as conn:
        paths = ["/readings", *[f"/readings/{await finding_of(conn, kind)}" for kind in KINDS]]
        await sign_in.create_staff(conn, "salim.h", PASSWORD, "supervisor", "Salim")
        login = await login_store.find_staff(conn, "salim.h")
        session = (await sign_in.open_session(conn, login, datetime.now(UTC))).secret
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    app = make_app(
        database_url=database_url,
        secret_key=SECRET,
        demo=False,
        public_url=url,
        provider_url=PROVIDER_URL,
        provider_secret=PROVIDER_SECRET,
        control_url="http://control.test",
    )
    port = int(url.rsplit(":", 1)[1])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(_look, url, session, paths)
    finally:
        server.should_exit = True
        await serving


def _look(url: str, session: str, paths: list[str]) -> None:
    cookie = {"name": SESSION_COOKIE, "value": session, "domain": "127.0.0.1", "path": "/"}
    with open_chromium() as browser:
        for language, size in (("ar", PHONE), ("en", DESK)):
            with visit(browser, url, language=language, size=size) as page:
                page.context.add_cookies([cookie])
                for path in paths:
                    page.goto(path)
                    for details in page.locator("main details").all():
                        details.locator("summary").click()
                    look_over(page)
        with visit(browser, url, language="en", size=PHONE) as page:
            page.context.add_cookies([cookie])
            page.goto(paths[1])
            assert page.locator("svg .mark-doubt").count() > 5, "a shape of its own for each reading in doubt"
            page.fill("#reason", "the display shows 4.0")
            page.locator("form[action$='/believe'] button").click()
            page.wait_for_url(f"**{paths[1]}")
            assert page.locator(".notice-ok").count() >= 1
            look_over(page)
