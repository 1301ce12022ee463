"""The check's visitor reads forms as a browser would, and refuses what the story does not expect."""

import httpx
import pytest

from raseed import check_visitor
from raseed.check_visitor import PageUnexpected, Visitor

PAGE = """<html><head><title>t</title><style>p{}</style></head><body><p>Hello</p>
<form method="post" action="/buy"><input type="hidden" name="csrf" value="c1"><input name="amount" value="5">
<input type="radio" name="kind" value="a"><input type="radio" name="kind" value="b" checked>
<select name="way"><option value="x"><option value="y" selected></select><textarea name="words"></textarea>
<button name="do" value="go">Go</button></form><form action="/search"><input name="q"></form>
<a href="/next">next</a></body></html>"""


@pytest.fixture
def visitor():
    made = Visitor("http://shop.test")
    seen = []

    def answer(request):
        seen.append((request.method, request.url.path, dict(httpx.QueryParams(request.content.decode()))))
        if request.url.path == "/buy":
            return httpx.Response(303, headers={"location": "/page"})
        status = 404 if request.url.path == "/gone" else 200
        return httpx.Response(status, html=PAGE)

    made._client = httpx.AsyncClient(base_url="http://shop.test", transport=httpx.MockTransport(answer))
    made.seen = seen
    return made


async def test_a_form_is_sent_with_what_stands_in_it(visitor):
    page = await visitor.get("/page")
    await visitor.submit(page, "/buy", amount="7.500", button=("do", "go"))
    assert visitor.seen[1] == (
        "POST",
        "/buy",
        {"csrf": "c1", "amount": "7.500", "kind": "b", "way": "y", "words": "", "do": "go"},
    )
    assert visitor.seen[2][:2] == ("GET", "/page")


async def test_text_is_what_a_person_reads(visitor):
    assert (await visitor.get("/page")).text.startswith("Hello")


async def test_what_the_story_does_not_expect_is_said(visitor):
    with pytest.raises(PageUnexpected, match="answered 404, not 200"):
        await visitor.get("/gone")
    page = await visitor.get("/page")
    with pytest.raises(PageUnexpected, match="no form to /pay"):
        page.form("/pay")
    with pytest.raises(PageUnexpected, match="no field"):
        await visitor.submit(page, "/buy", price="1")
    with pytest.raises(PageUnexpected, match="no link to /receipt"):
        page.link("/receipt")
    assert check_visitor.MAX_REDIRECTS > 2
