"""The town has the people, places and meters that the rest of the demo counts on."""

from collections import Counter

import pytest

from firmware_sim.town import build_town
from meter_gateway.profile import load_profile
from token_engine.identifiers import Drn


@pytest.mark.parametrize("seed", [1, 2, 77])
def test_the_numbers_of_meters(seed):
    town = build_town(seed)
    kinds = Counter((m.commodity, m.bus.split("-")[0] if m.bus else m.link) for m in town.installed)
    assert kinds == {
        ("electricity", "mqtt"): 16,
        ("electricity", "tcp"): 12,
        ("electricity", "rtu"): 8,
        ("electricity", "keypad"): 4,
        ("water", "mqtt"): 8,
        ("water", "tcp"): 6,
        ("water", "rtu"): 4,
        ("water", "keypad"): 2,
    }
    assert sorted(m.link for m in town.spares) == ["keypad", "modbus", "mqtt"]
    assert len(town.free_usage_points) == 3


def test_the_same_seed_makes_the_same_town():
    assert build_town(5) == build_town(5)
    assert build_town(5) != build_town(6)


def test_every_meter_number_is_valid_and_its_own():
    town = build_town()
    assert len({Drn(m.drn) for m in town.meters}) == 63
    assert all(len(m.pan) == 18 for m in town.meters)


def test_a_bus_never_holds_a_unit_twice():
    places = [(m.bus, m.unit) for m in build_town().meters if m.bus]
    assert len(places) == len(set(places)) == 31


def test_every_reference_leads_somewhere():
    town = build_town()
    locations = {location.code for location in town.locations}
    assert all(p.location_code in locations and p.node_code in town.node_by_code for p in town.usage_points)
    assert all(m.usage_point_code in town.usage_point_by_code for m in town.installed)
    owned = [code for customer in town.customers for code in customer.usage_point_codes]
    assert sorted(owned) == sorted(town.usage_point_by_code)
    kinds = Counter((n.commodity, n.kind) for n in town.nodes)
    assert kinds["electricity", "transformer"] == 5
    assert kinds["water", "zone"] == 3
    assert all(n.parent_code is None or n.parent_code in town.node_by_code for n in town.nodes)
    assert all(town.usage_point_by_code[m.usage_point_code].commodity == m.commodity for m in town.installed)


def test_the_persona_has_a_radio_electricity_meter_and_a_wired_water_meter():
    town = build_town()
    persona = town.customers[0]
    own = [m for m in town.installed if m.usage_point_code in persona.usage_point_codes]
    assert [(m.commodity, m.link, (m.bus or "")[:3]) for m in own] == [
        ("electricity", "mqtt", ""),
        ("water", "modbus", "tcp"),
    ]
    assert persona.language == "ar"
    assert persona.arrears_minor > 0


def test_phones_are_omani_and_unique():
    phones = [c.phone for c in build_town().customers]
    assert len(set(phones)) == len(phones)
    assert all(p.startswith("+9689") and len(p) == 12 for p in phones)


def test_the_substation_feeds_every_electricity_meter_and_no_water_meter():
    town = build_town()
    assert {m.drn for m in town.meters_under("SS-1")} == {
        m.drn for m in town.installed if m.commodity == "electricity"
    }
    parts = [len(town.meters_under(f"TX-{n}")) for n in range(1, 6)]
    assert sum(parts) == 40
    assert min(parts) >= 5


def test_two_strangers_are_on_a_wire_and_in_nobodys_books():
    town = build_town()
    taken = {(meter.bus, meter.unit) for meter in town.meters}
    for meter in town.strangers:
        assert meter.drn == str(Drn(meter.drn)) and meter.drn not in town.meter_by_drn
        assert (meter.bus, meter.unit) not in taken and load_profile(meter.profile).kind == "prepaid"
    assert len(town.strangers) == 2
