"""SQL of meters, of where they hang, and of their latest known state."""

# ruff: noqa: S608 - the only part formatted in is the constant list of columns

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import errors as pg
from psycopg.rows import class_row

from meter_gateway.errors import InvalidMeter, MeterNotFound
from meter_gateway.topics import Device

_COLUMNS = "id, drn, commodity, model, link, profile, bus_id, unit_id"


@dataclass(frozen=True, slots=True)
class Meter:
    """A meter; `link` is mqtt, modbus or keypad, `bus_id` and `unit_id` where a Modbus meter answers."""

    id: int
    drn: str
    commodity: str
    model: str
    link: str
    profile: str | None
    bus_id: int | None
    unit_id: int | None

    @property
    def is_reachable(self) -> bool:
        """Whether a command can be brought to it by wire."""
        return self.link == "mqtt" or (self.link == "modbus" and self.bus_id is not None)


@dataclass(frozen=True, slots=True)
class MeterInstallation:
    """A meter at a usage point from one instant to another; `removed_at` None while it hangs there."""

    id: int
    meter_id: int
    usage_point_id: int
    installed_at: datetime
    removed_at: datetime | None
    installed_by: str
    note: str


@dataclass(frozen=True, slots=True)
class MeterState:
    """The latest known state; credit and counter in Wh or mL, load in W or mL/h, relay as DLMS says."""

    meter_id: int
    last_seen_at: datetime | None
    link_up: bool
    supply_on: bool | None
    credit: int | None
    counter: int | None
    relay: int | None
    relay_reason: str | None
    load: int | None
    tamper: bool
    state_at: datetime | None
    counter_suspect: bool


async def insert_meter(
    conn: psycopg.AsyncConnection,
    *,
    drn: str,
    commodity: str,
    model: str,
    link: str,
    profile: str | None = None,
    bus_id: int | None = None,
    unit_id: int | None = None,
) -> Meter:
    """Take a meter into stock. Raises InvalidMeter when its number, link or bus contradict what is known."""
    try:
        async with conn.transaction(), conn.cursor(row_factory=class_row(Meter)) as cursor:
            await cursor.execute(
                f"INSERT INTO meter_gateway.meter (drn, commodity, model, link, profile, bus_id, unit_id)"
                f" VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}",
                (drn, commodity, model, link, profile, bus_id, unit_id),
            )
            row = await cursor.fetchone()
    except pg.IntegrityError as error:
        raise InvalidMeter(f"meter {drn}: {error.diag.constraint_name} refuses it") from None
    assert row is not None  # noqa: S101 - RETURNING of an insert that did not raise
    return row


async def get_meter(conn: psycopg.AsyncConnection, meter_id: int) -> Meter:
    """Return a meter. Raises MeterNotFound."""
    async with conn.cursor(row_factory=class_row(Meter)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM meter_gateway.meter WHERE id = %s", (meter_id,))
        row = await cursor.fetchone()
    if row is None:
        raise MeterNotFound(f"no meter {meter_id}")
    return row


async def find_meter_by_drn(conn: psycopg.AsyncConnection, drn: str) -> Meter | None:
    """Return the meter with this DRN, if any."""
    async with conn.cursor(row_factory=class_row(Meter)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM meter_gateway.meter WHERE drn = %s", (drn,))
        return await cursor.fetchone()


async def get_meter_by_drn(conn: psycopg.AsyncConnection, drn: str) -> Meter:
    """Return the meter with this DRN. Raises MeterNotFound."""
    row = await find_meter_by_drn(conn, drn)
    if row is None:
        raise MeterNotFound(f"no meter {drn}")
    return row


async def list_meters_by_drn(conn: psycopg.AsyncConnection, drns: Iterable[str]) -> dict[str, Meter]:
    """Return those of these meters that exist, keyed by DRN."""
    async with conn.cursor(row_factory=class_row(Meter)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM meter_gateway.meter WHERE drn = ANY(%s)", (list(drns),))
        return {row.drn: row for row in await cursor.fetchall()}


async def list_meters_of_site(conn: psycopg.AsyncConnection, site_code: str) -> list[Device]:
    """Return the Modbus devices of a site as its gateway wants them, by bus and unit."""
    cursor = await conn.execute(
        "SELECT m.drn, m.profile, b.code, m.unit_id FROM meter_gateway.meter m"
        " JOIN meter_gateway.bus b ON b.id = m.bus_id JOIN meter_gateway.site s ON s.id = b.site_id"
        " WHERE s.code = %s ORDER BY b.code, m.unit_id",
        (site_code,),
    )
    return [Device(*row) for row in await cursor.fetchall()]


async def put_on_bus(conn: psycopg.AsyncConnection, *, meter_id: int, bus_id: int, unit_id: int) -> None:
    """Wire a Modbus meter to a bus. Raises InvalidMeter when the unit is taken or the link another."""
    try:
        async with conn.transaction():
            await conn.execute(
                "UPDATE meter_gateway.meter SET bus_id = %s, unit_id = %s WHERE id = %s",
                (bus_id, unit_id, meter_id),
            )
    except pg.IntegrityError as error:
        raise InvalidMeter(f"meter {meter_id}: {error.diag.constraint_name} refuses it") from None


async def install_meter(
    conn: psycopg.AsyncConnection,
    *,
    meter_id: int,
    usage_point_id: int,
    installed_at: datetime,
    installed_by: str,
    note: str = "",
) -> MeterInstallation:
    """Hang a meter at a usage point. Raises MeterNotFound, or InvalidMeter: taken, or the wrong commodity."""
    meter = await get_meter(conn, meter_id)
    cursor = await conn.execute(
        "SELECT commodity FROM meter_gateway.usage_point WHERE id = %s", (usage_point_id,)
    )
    point = await cursor.fetchone()
    if point is None or point[0] != meter.commodity:
        raise InvalidMeter(f"meter {meter.drn} of {meter.commodity} does not belong at this usage point")
    try:
        async with conn.transaction(), conn.cursor(row_factory=class_row(MeterInstallation)) as rows:
            await rows.execute(
                "INSERT INTO meter_gateway.meter_installation"
                " (meter_id, usage_point_id, installed_at, installed_by, note) VALUES (%s, %s, %s, %s, %s)"
                " RETURNING id, meter_id, usage_point_id, installed_at, removed_at, installed_by, note",
                (meter_id, usage_point_id, installed_at, installed_by, note),
            )
            row = await rows.fetchone()
    except pg.UniqueViolation:
        raise InvalidMeter(f"meter {meter.drn} or its usage point is already taken") from None
    assert row is not None  # noqa: S101 - RETURNING of an insert that did not raise
    return row


async def remove_meter(
    conn: psycopg.AsyncConnection, *, meter_id: int, removed_at: datetime
) -> MeterInstallation:
    """Take a meter down; a Modbus meter leaves its unit to the next. Raises InvalidMeter if it hangs nowhere."""
    async with conn.cursor(row_factory=class_row(MeterInstallation)) as cursor:
        await cursor.execute(
            "UPDATE meter_gateway.meter_installation SET removed_at = %s"
            " WHERE meter_id = %s AND removed_at IS NULL AND installed_at < %s"
            " RETURNING id, meter_id, usage_point_id, installed_at, removed_at, installed_by, note",
            (removed_at, meter_id, removed_at),
        )
        row = await cursor.fetchone()
    if row is None:
        raise InvalidMeter(f"meter {meter_id} is not installed anywhere")
    await conn.execute(
        "UPDATE meter_gateway.meter SET bus_id = NULL, unit_id = NULL WHERE id = %s AND bus_id IS NOT NULL",
        (meter_id,),
    )
    return row


async def forget_counter(conn: psycopg.AsyncConnection, meter_id: int) -> None:
    """Let the next counter of this meter be believed whatever it says: a person saw why it fell or leapt."""
    await conn.execute(
        "UPDATE meter_gateway.meter_state SET counter_at = NULL WHERE meter_id = %s", (meter_id,)
    )


async def find_state(conn: psycopg.AsyncConnection, meter_id: int) -> MeterState | None:
    """Return a meter's latest known state; None when it never spoke."""
    async with conn.cursor(row_factory=class_row(MeterState)) as cursor:
        await cursor.execute(
            "SELECT meter_id, last_seen_at, link_up, supply_on, credit, counter, relay, relay_reason, load,"
            " tamper, state_at, counter_suspect FROM meter_gateway.meter_state WHERE meter_id = %s",
            (meter_id,),
        )
        return await cursor.fetchone()
