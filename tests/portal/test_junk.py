"""Junk at every door: whatever stands in an address or a form, nobody gets a 500 and nothing is changed."""

import re

import pytest

from portal import access
from portal.app import ROUTERS
from portal.pages import town
from tests.billing.world import make_house, make_tariffs
from tests.portal.test_access import permissions_of, routes
from tests.portal.visitor import visiting

JUNK = ("0", "-1", "x", "9" * 30, "%00", "a%2F..%2Fb", "00000000-0000-0000-0000-000000000000", "%F0%9F%92%A7")
FORM_JUNK = (
    "",
    "\x00",
    "x" * 300,
    "9" * 30,
    "<b>'\"; --",
    "٣ط",
    "2026-02-30",
    "\ud83d\udca7".encode("utf-16", "surrogatepass").decode("utf-16"),
)
STAFF = {"engineer": "engineer", "supervisor": "supervisor"}


def open_to(role: str | None):
    for route in routes():
        needed = permissions_of(route)
        if (not needed and role is None) or (needed and role and needed <= access.PERMISSIONS[role]):
            yield route


def filled(path: str, junk: str) -> str:
    return re.sub(r"\{[^}]+\}", junk, path)


def fields_of(route) -> list[str]:
    waiting, found = [route.dependant], []
    for dependant in waiting:
        found += [field.alias for field in dependant.body_params]
        waiting += dependant.dependencies
    return found


def query_of(route) -> list[str]:
    return [field.alias for field in route.dependant.query_params]


async def one_number(pool):
    """How much there is in the tables that pages write."""
    tables = (
        "billing.quote", "billing.payment", "billing.vend", "billing.token", "portal.ticket", "portal.outage",
        "meter_gateway.meter", "meter_gateway.meter_command", "meter_gateway.meter_installation",
    )  # fmt: skip
    async with pool.connection() as conn:
        query = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
        return (await (await conn.execute(f"SELECT {query}")).fetchone())[0]


@pytest.mark.parametrize("role", [None, "subscriber", "engineer", "supervisor"])
async def test_nobody_gets_a_500(database_url, pool, role) -> None:
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn)
    before = await one_number(pool)
    # A town that does not answer: its pages must bear that too.
    async with visiting(database_url, demo=True, control_url="http://127.0.0.1:1") as visitor:
        if role == "subscriber":
            await visitor.be_subscriber(house.customer_id)
        elif role:
            await visitor.be_staff(role)
        csrf = await visitor.csrf()
        for route in open_to(role):
            if "POST" in route.methods and route.path == "/sign-out":
                continue
            addresses = {filled(route.path, junk) for junk in JUNK}
            if "{drn}" in route.path:
                addresses.add(filled(route.path.replace("{drn}", house.drn), "7"))
            for place, address in enumerate(sorted(addresses)):
                junk = FORM_JUNK[place % len(FORM_JUNK)]
                if "GET" in route.methods:
                    query = dict.fromkeys(query_of(route), junk)
                    answer = await visitor.get(address, params=query or None)
                else:
                    answer = await visitor.post(address, dict.fromkeys(fields_of(route), junk), csrf=csrf)
                assert answer.status_code not in {500, 501}, f"{route.methods} {address} with {junk!r}"
    assert await one_number(pool) == before, "nothing was made of junk"


def test_the_doors_are_all_tried() -> None:
    tried = {id(route) for role in (None, "subscriber", "engineer", "supervisor") for route in open_to(role)}
    left = [route.path for route in routes() if id(route) not in tried]
    assert [path for path in left if "admin" not in path] == []
    assert ROUTERS
    assert town.router
