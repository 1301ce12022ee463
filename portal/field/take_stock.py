"""Take a meter that nobody knew into the books: number, model, link, STS identity; and wire it to a bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import psycopg

from billing import identity_store
from billing.identity_store import BASE_DATES, STOCK_KEYS
from meter_gateway import meter_store, site_task_store
from meter_gateway.errors import InvalidMeter
from meter_gateway.meter_store import Meter
from meter_gateway.profile import InvalidProfile, load_profile
from portal.field.install import InstallRefused, check_number
from token_engine.errors import TokenEngineError
from token_engine.identifiers import KeyType

LINKS: Final = ("modbus", "mqtt", "keypad")
COMMODITIES: Final = ("electricity", "water")
MAX_MODEL: Final = 80
# Issuer numbers of tables in use; a utility's own stands in its order papers.
DEFAULT_IIN: Final = "600727"

Conn = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class StsPlate:
    """What a meter's papers say of its key: supply group, tariff index, revision, type (1: stock key), algorithm."""

    sgc: str
    ti: str = "01"
    krn: int = 1
    kt: int = int(KeyType.DDTK)
    ken: int = 255
    ea: str = "07"
    dkga: str = "04"
    base_date: int = 2014
    iin: str = DEFAULT_IIN


async def add_meter(
    conn: Conn,
    *,
    drn: str,
    commodity: str,
    model: str,
    link: str,
    profile: str | None,
    sts: StsPlate | None,
) -> Meter:
    """Put a meter into stock with its identity, in the caller's transaction; the same meter again is returned.

    Without an identity it takes no tokens and cannot be installed. Raises InstallRefused (number_letters,
    number_length, number_check_digit, commodity_unknown, model_missing, link_unknown, profile_unknown,
    profile_other_commodity, meter_known, identity_invalid).
    """
    number = check_number(drn)
    if commodity not in COMMODITIES:
        raise InstallRefused("commodity_unknown")
    if link not in LINKS:
        raise InstallRefused("link_unknown")
    if not 0 < len(model.strip()) <= MAX_MODEL:
        raise InstallRefused("model_missing")
    _check_profile(profile, link, commodity)
    there = await meter_store.find_meter_by_drn(conn, number)
    if there is None:
        there = await meter_store.insert_meter(
            conn,
            drn=number,
            commodity=commodity,
            model=model.strip(),
            link=link,
            profile=profile if link == "modbus" else None,
        )
    elif (there.commodity, there.link, there.profile) != (
        commodity,
        link,
        profile if link == "modbus" else None,
    ):
        raise InstallRefused("meter_known")
    if sts is not None:
        await _add_identity(conn, there, sts)
    return there


def _check_profile(profile: str | None, link: str, commodity: str) -> None:
    if link != "modbus":
        return
    try:
        known = load_profile(profile or "")
    except InvalidProfile:
        raise InstallRefused("profile_unknown") from None
    if known.commodity != commodity:
        raise InstallRefused("profile_other_commodity")


async def _add_identity(conn: Conn, meter: Meter, sts: StsPlate) -> None:
    if sts.base_date not in BASE_DATES or sts.kt not in {int(kt) for kt in (*STOCK_KEYS, KeyType.DUTK)}:
        raise InstallRefused("identity_invalid")
    try:
        identity = await identity_store.insert_identity(
            conn,
            meter_id=meter.id,
            iin=sts.iin,
            sgc=sts.sgc,
            ti=sts.ti,
            krn=sts.krn,
            kt=sts.kt,
            ken=sts.ken,
            ea=sts.ea,
            dkga=sts.dkga,
            base_date=sts.base_date,
        )
        identity.identity_of(identity.current)
    except (TokenEngineError, ValueError, psycopg.IntegrityError, psycopg.DataError):
        raise InstallRefused("identity_invalid") from None


async def bind_meter(conn: Conn, *, meter_id: int, site: str, bus: str, unit: int) -> None:
    """Wire a Modbus meter to a bus and unit; its gateway hears of it within seconds.

    Raises InstallRefused (no_link for a meter of another link, bus_unknown, unit_taken), MeterNotFound.
    """
    meter = await meter_store.get_meter(conn, meter_id)
    if meter.link != "modbus":
        raise InstallRefused("no_link")
    found = await site_task_store.find_bus(conn, site, bus)
    if found is None:
        raise InstallRefused("bus_unknown")
    if (meter.bus_id, meter.unit_id) == (found.id, unit):
        return
    try:
        await meter_store.put_on_bus(conn, meter_id=meter_id, bus_id=found.id, unit_id=unit)
    except InvalidMeter:
        raise InstallRefused("unit_taken") from None
