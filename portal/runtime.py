"""What a running portal holds: its pool, its settings and its templates, reached from any request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import psycopg
from fastapi import Request
from psycopg_pool import AsyncConnectionPool

from portal.i18n import Language

Pool = AsyncConnectionPool[psycopg.AsyncConnection[Any]]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that a route may need and that lives as long as the process."""

    pool: Pool
    secret_key: str
    demo: bool
    public_url: str
    provider_url: str
    provider_secret: str
    control_url: str
    languages: Mapping[str, Language]
    templates: Mapping[str, jinja2.Environment]


def runtime_of(request: Request) -> Runtime:
    """Return the runtime of the application that serves `request`."""
    found = request.app.state.runtime
    if not isinstance(found, Runtime):
        raise TypeError("the application was not built by make_app")
    return found
