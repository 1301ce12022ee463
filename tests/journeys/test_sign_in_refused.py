"""Who is not who she says she is stays outside, and learns nothing."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browsing import DESK, PHONE, look_over, visit
from tests.demo_town import DemoTown

pytestmark = [pytest.mark.demo, pytest.mark.browser]


def test_a_wrong_code_is_refused_like_an_unknown_phone(browser: Browser, town: DemoTown) -> None:
    answers = []
    for phone in ("9000 1009", "9999 9999"):  # a customer of the town, and nobody
        with visit(browser, town.url, language="ar", size=PHONE) as page:
            page.goto("/my")
            assert "/sign-in?next=" in page.url, "a page of one's own asks who is there"
            look_over(page)
            page.fill("#phone", phone)
            page.locator("main button[type=submit]").first.click()
            look_over(page)
            page.fill("#code", "000000")
            page.locator("main form.form button[type=submit]").click()
            look_over(page)
            answers.append(page.locator("#code-error").inner_text())
            page.goto("/my")
            assert "/sign-in" in page.url
    assert answers[0] == answers[1], "the answer does not tell which phones are known"


def test_staff_with_a_wrong_password_stay_outside(browser: Browser, town: DemoTown) -> None:
    answers = []
    for name in ("agent", "nobody.here"):
        with visit(browser, town.url, language="en", size=DESK) as page:
            page.goto("/sign-in/staff")
            page.fill("#username", name)
            page.fill("#password", "not the password")
            page.locator("main button[type=submit]").click()
            look_over(page)
            answers.append(page.locator(".notice-error").inner_text())
            page.goto("/desk")
            assert "/sign-in" in page.url
    assert answers[0] == answers[1]


def test_one_role_does_not_open_the_doors_of_another(browser: Browser, town: DemoTown) -> None:
    with visit(browser, town.url, language="en", size=PHONE) as page:
        page.goto("/")
        page.locator(".persona-subscriber").click()
        page.wait_for_url("**/my")
        for path in ("/desk", "/field"):
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == 403
            look_over(page)
