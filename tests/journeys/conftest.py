"""The town that all journeys walk through, and the browser that they walk with; both end with the last journey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browsing import open_chromium
from tests.demo_town import DemoTown, running_town


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with open_chromium() as opened:
        yield opened


@pytest.fixture(scope="package")
def town(browser: Browser) -> Iterator[DemoTown]:
    """A whole demo; asked for after the browser, so that it is not started where there is none."""
    with running_town() as running:
        yield running
