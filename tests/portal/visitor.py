"""A person without a browser: visits the portal's pages in the test's own process, forms and all."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from html import unescape
from typing import Any

import httpx
from argon2 import PasswordHasher
from fastapi import FastAPI

from portal import login_store, sign_in
from portal.access import CSRF_FIELD, SESSION_COOKIE
from portal.app import make_app

SECRET = "a secret key of the tests"
PROVIDER_SECRET = "the provider's secret of the tests"
PUBLIC_URL = "http://portal.test"
PROVIDER_URL = "http://provider.test"
PASSWORD = "a long enough password"
# The same argon2id at a hundredth of its cost: these tests look at pages, test_sign_in at the real one.
sign_in._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
sign_in._NOBODY = sign_in._hasher.hash(PASSWORD)


class Visitor:
    """One browser: keeps cookies, follows no redirect by itself, sends the page's own form secret."""

    def __init__(self, app: FastAPI, language: str) -> None:
        self.app = app
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(
            transport=transport, base_url=PUBLIC_URL, cookies={"raseed_lang": language}
        )

    async def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return await self.http.get(path, **kwargs)

    async def csrf(self) -> str:
        page = await self.get("/sign-in/staff")
        found = re.search(r'name="csrf-token" content="([^"]+)"', page.text)
        assert found
        return unescape(found[1])

    async def post(
        self, path: str, data: dict[str, str] | None = None, *, csrf: str | None = None, **kwargs: Any
    ) -> httpx.Response:
        token = await self.csrf() if csrf is None else csrf
        return await self.http.post(path, data={CSRF_FIELD: token, **(data or {})}, **kwargs)

    async def _open(self, login: login_store.LoginRow, conn: Any) -> None:
        opened = await sign_in.open_session(conn, login, datetime.now(UTC))
        self.http.cookies.set(SESSION_COOKIE, opened.secret)

    async def be_subscriber(self, customer_id: int) -> None:
        async with self.app.state.runtime.pool.connection() as conn:
            await self._open(await login_store.get_subscriber_login(conn, customer_id), conn)

    async def be_staff(self, role: str) -> None:
        """Sign in as the staff member named like the role, made when not there."""
        async with self.app.state.runtime.pool.connection() as conn:
            login = await login_store.find_staff(conn, role)
            if login is None:
                await sign_in.create_staff(conn, role, PASSWORD, role, role.title())
                login = await login_store.find_staff(conn, role)
            assert login
            await self._open(login, conn)


@asynccontextmanager
async def visiting(
    database_url: str, *, language: str = "en", demo: bool = False, control_url: str = "http://control.test"
) -> AsyncIterator[Visitor]:
    app = make_app(
        database_url=database_url,
        secret_key=SECRET,
        demo=demo,
        public_url=PUBLIC_URL,
        provider_url=PROVIDER_URL,
        provider_secret=PROVIDER_SECRET,
        control_url=control_url,
    )
    async with app.router.lifespan_context(app):
        visitor = Visitor(app, language)
        async with visitor.http:
            yield visitor
