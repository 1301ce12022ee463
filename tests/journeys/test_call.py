"""A contact-centre agent handles a call, from the caller's number to the written answer."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browsing import DESK, PHONE, look_over, visit
from tests.demo_town import DemoTown

pytestmark = [pytest.mark.demo, pytest.mark.browser]

SUBJECT = "العداد يعرض رصيدًا أقل"
ANSWER = "راجعنا القراءات: السحب ارتفع مع التكييف، والعداد سليم."
NOTE = "Readings compared with the same week of last year."


def test_a_call_becomes_a_request_with_a_written_answer(browser: Browser, town: DemoTown) -> None:
    with visit(browser, town.url, language="en", size=DESK) as page:
        page.goto("/")
        page.locator(".persona-agent").click()
        page.wait_for_url("**/desk")
        look_over(page)
        page.fill("#q", "٩٠٠٠ ١٠٠١")  # the caller's number as her phone writes it
        page.locator("form[role=search] button").click()
        look_over(page)
        page.locator("a.card-link").first.click()
        page.wait_for_url("**/desk/customers/*")
        look_over(page)
        assert page.locator("#live .notice").count() >= 2, "each meter says why it has supply or has not"

        page.select_option("#kind", "complaint")
        page.select_option("#channel", "phone")
        page.fill("#subject", SUBJECT)
        page.fill("#body", "المشترك يقول إن الرصيد ينفد أسرع من المعتاد.")
        page.locator("form[action$='/tickets'] button[type=submit]").click()
        page.wait_for_url("**/desk/tickets/*")
        reference = page.url.split("?")[0].rsplit("/", 1)[1]
        look_over(page)

        page.get_by_role("button", name="I take it").click()
        page.locator("summary", has_text="Note for colleagues").click()
        page.fill("#note", NOTE)
        page.get_by_role("button", name="Keep the note").click()
        page.fill("#reply", ANSWER)
        page.get_by_role("button", name="Send the answer").click()
        expect(page.locator(".chat")).to_contain_text(ANSWER)
        page.locator("summary", has_text="Resolve with a written answer").click()
        page.fill("#resolution", "تم التوضيح للمشترك.")
        page.get_by_role("button", name="Resolve the request").click()
        expect(page.locator(".page-head .badge")).to_have_text("Resolved")
        look_over(page)

        page.goto("/demo/sms")
        expect(page.locator(".sms-ticket").first).to_contain_text(reference)

    with visit(browser, town.url, language="ar", size=PHONE) as page:
        page.goto("/")
        page.locator(".persona-subscriber").click()
        page.wait_for_url("**/my")
        page.goto("/my/tickets")
        look_over(page)
        page.locator(f"a[href*='{reference}']").first.click()
        expect(page.locator("main")).to_contain_text(ANSWER)
        assert NOTE not in page.content(), "a note for colleagues is not the customer's to read"
        look_over(page)
