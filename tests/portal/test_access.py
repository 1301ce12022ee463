"""Every route is behind a permission or on the public list, and each role opens its own rooms only."""

import pytest
from fastapi.routing import APIRoute

from portal import access
from portal.app import ROUTERS
from portal.pages import town
from tests.billing.world import make_house, make_tariffs
from tests.portal.visitor import visiting


def routes() -> list[APIRoute]:
    """Every route of every router, those of routers within routers too."""
    found, waiting = [], [*ROUTERS, town.router]
    for router in waiting:
        for route in router.routes:
            inner = getattr(route, "original_router", None)
            if inner is not None:
                waiting.append(inner)
                continue
            assert isinstance(route, APIRoute)
            found.append(route)
    assert len(found) > 20
    return found


def permissions_of(route: APIRoute) -> set[str]:
    found, waiting = set(), list(route.dependant.dependencies)
    for dependant in waiting:
        found.add(getattr(dependant.call, "permission", None))
        waiting += dependant.dependencies
    return found - {None}


@pytest.mark.parametrize("route", routes(), ids=lambda route: f"{'/'.join(route.methods)} {route.path}")
def test_every_route_is_guarded_or_listed_as_public(route: APIRoute) -> None:
    permissions = permissions_of(route)
    if access.is_public(route.path):
        assert not permissions, f"{route.path} is public and guarded at once"
    else:
        assert len(permissions) == 1, f"{route.path} needs one permission, or a place on the public list"
        assert permissions <= access.EVERY_PERMISSION


@pytest.mark.parametrize("route", routes(), ids=lambda route: f"{'/'.join(route.methods)} {route.path}")
def test_a_get_changes_nothing_and_a_change_is_a_post(route: APIRoute) -> None:
    assert route.methods in ({"GET"}, {"POST"})


def test_a_permission_that_nobody_has_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no role"):
        access.require("my.everything")


def test_subscribers_and_staff_share_no_permission() -> None:
    staff = frozenset().union(*(p for role, p in access.PERMISSIONS.items() if role != "subscriber"))
    assert not access.PERMISSIONS["subscriber"] & staff


async def test_who_is_not_signed_in_is_sent_to_sign_in_and_back(database_url) -> None:
    async with visiting(database_url) as visitor:
        answer = await visitor.get("/my/meters/06000000014?view=day")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/sign-in?next=%2Fmy%2Fmeters%2F06000000014%3Fview%3Dday"


@pytest.mark.parametrize(
    ("role", "closed"),
    [("agent", "/my"), ("engineer", "/my"), ("supervisor", "/my")],
)
async def test_the_wrong_role_is_told_so(database_url, role, closed) -> None:
    async with visiting(database_url) as visitor:
        await visitor.be_staff(role)
        answer = await visitor.get(closed)
        assert answer.status_code == 403
        assert "not open to you" in answer.text


async def test_a_subscriber_has_no_business_at_the_desk(database_url, pool) -> None:
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        for route in routes():
            path = route.path.split("{")[0].rstrip("/")
            if route.methods == {"GET"} and path in {"/desk", "/field"}:
                assert (await visitor.get(path)).status_code == 403


@pytest.mark.parametrize("csrf", ["", "x" * 43])
async def test_a_form_without_its_secret_changes_nothing(database_url, csrf) -> None:
    async with visiting(database_url) as visitor:
        answer = await visitor.post("/sign-in", {"phone": "91234567"}, csrf=csrf)
        assert answer.status_code == 403
        await visitor.be_staff("agent")
        answer = await visitor.post("/sign-out", csrf=csrf)
        assert answer.status_code == 403
        assert (await visitor.get("/sign-in")).status_code == 303, "still signed in"


async def test_another_sessions_secret_does_not_fit(database_url) -> None:
    async with visiting(database_url) as visitor:
        await visitor.be_staff("agent")
        stolen = await visitor.csrf()
        await visitor.be_staff("engineer")
        assert (await visitor.post("/sign-out", csrf=stolen)).status_code == 403


async def test_the_secret_may_travel_in_a_header(database_url) -> None:
    async with visiting(database_url) as visitor:
        await visitor.be_staff("agent")
        token = await visitor.csrf()
        answer = await visitor.http.post("/sign-out", headers={access.CSRF_HEADER: token})
        assert answer.status_code == 303
