"""A visitor without a browser for `raseed demo --check`: follows links and fills in the forms that a page shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

MAX_REDIRECTS = 6  # sign-in → home → page is three
TIMEOUT_S = 10.0


class PageUnexpected(Exception):
    """A page is not what the story expects; the text names the address and what it said."""


@dataclass
class Form:
    """One form of a page: where it goes and what it holds already."""

    action: str
    method: str = "get"
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class _Reader(HTMLParser):
    """Collects forms, links and the text that a person reads."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.attributes: list[dict[str, str]] = []
        self._form: Form | None = None
        self._select: str | None = None
        self._textarea: str | None = None
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.attributes.append({"tag": tag, **found})
        if tag in {"script", "style", "title"}:
            self._hidden += 1
        elif tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "form":
            self._form = Form(found.get("action", ""), found.get("method", "get").lower())
            self.forms.append(self._form)
        elif self._form is not None:
            self._in_form(tag, found, self._form)

    def _in_form(self, tag: str, found: dict[str, str], form: Form) -> None:
        name = found.get("name", "")
        if tag == "button" or (tag == "input" and found.get("type") == "submit"):
            form.buttons.append((name, found.get("value", "")))
        elif tag == "input" and name:
            chosen = "checked" in found or found.get("type") not in {"radio", "checkbox"}
            if chosen and found.get("type") != "file":
                form.fields[name] = found.get("value", "")
        elif tag == "select" and name:
            self._select = name
        elif tag == "option" and self._select and ("selected" in found or self._select not in form.fields):
            form.fields[self._select] = found.get("value", "")
        elif tag == "textarea" and name:
            form.fields[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style", "title"}:
            self._hidden -= 1
        elif tag == "form":
            self._form = None
        elif tag == "select":
            self._select = None

    def handle_data(self, data: str) -> None:
        if self._hidden == 0 and data.strip():
            self.text.append(data.strip())


@dataclass(frozen=True)
class Page:
    """What came back: address, status, and the page as read."""

    url: str
    status: int
    body: str
    forms: tuple[Form, ...]
    links: tuple[str, ...]
    text: str
    attributes: tuple[dict[str, str], ...]

    def form(self, action: str) -> Form:
        """The first form whose address holds `action`. Raises PageUnexpected."""
        for form in self.forms:
            if action in form.action:
                return form
        raise PageUnexpected(
            f"{self.url} ({self.status}) has no form to {action}; it says: {self.text[:300]}"
        )

    def link(self, part: str) -> str:
        """The first link whose address holds `part`. Raises PageUnexpected."""
        for link in self.links:
            if part in link:
                return urljoin(self.url, link)
        raise PageUnexpected(f"{self.url} ({self.status}) has no link to {part}; it says: {self.text[:300]}")


class Visitor:
    """One person with cookies of their own; refuses a status that the story does not expect."""

    def __init__(self, base_url: str, language: str = "en") -> None:
        self._base = base_url
        self._client = httpx.AsyncClient(
            base_url=base_url, timeout=TIMEOUT_S, trust_env=False, headers={"Accept-Language": language}
        )

    async def close(self) -> None:
        """Forget the cookies."""
        await self._client.aclose()

    async def get(self, path: str, status: int = 200) -> Page:
        """Open a page, following redirects. Raises PageUnexpected on another status."""
        return await self._follow(await self._client.get(path), status)

    async def get_bytes(self, path: str) -> tuple[str, bytes]:
        """Media type and content of a file. Raises PageUnexpected."""
        answer = await self._client.get(path)
        if answer.status_code != httpx.codes.OK:
            raise PageUnexpected(f"{answer.url} answered {answer.status_code}")
        return answer.headers.get("content-type", ""), answer.content

    async def submit(
        self, page: Page, action: str, status: int = 200, button: tuple[str, str] | None = None, **fields: str
    ) -> Page:
        """Fill in the form whose address holds `action` and send it. Raises PageUnexpected."""
        form = page.form(action)
        unknown = [
            name for name in fields if name not in form.fields and not any(b[0] == name for b in form.buttons)
        ]
        # Radio buttons with nothing chosen, and buttons with names, are not among the fields that stand filled in.
        shown = {found.get("name") for found in page.attributes}
        if any(name not in shown for name in unknown):
            raise PageUnexpected(f"{page.url}: the form to {action} has no field {unknown}")
        data = {**form.fields, **fields, **(dict([button]) if button else {})}
        target = urljoin(page.url, form.action or page.url)
        if form.method == "get":
            return await self._follow(await self._client.get(target, params=data), status)
        return await self._follow(
            await self._client.post(target, data=data, headers={"Origin": _origin(page.url)}), status
        )

    async def post(self, path: str, status: int, **request: Any) -> Page:
        """Send a request that no page offers, as an attacker would."""
        return await self._follow(await self._client.post(path, **request), status)

    async def _follow(self, answer: httpx.Response, status: int) -> Page:
        for _hop in range(MAX_REDIRECTS):
            if answer.status_code not in {301, 302, 303, 307, 308}:
                break
            answer = await self._client.get(urljoin(str(answer.url), answer.headers["location"]))
        page = _read(answer)
        if page.status != status:
            raise PageUnexpected(f"{page.url} answered {page.status}, not {status}: {page.text[:300]}")
        return page


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _read(answer: httpx.Response) -> Page:
    reader = _Reader()
    if "html" in answer.headers.get("content-type", ""):
        reader.feed(answer.text)
    return Page(
        url=str(answer.url),
        status=answer.status_code,
        body=answer.text,
        forms=tuple(reader.forms),
        links=tuple(reader.links),
        text=" ".join(reader.text),
        attributes=tuple(reader.attributes),
    )
