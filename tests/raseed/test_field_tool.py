"""As a field engineer would: an unknown meter on a pty is found, named, installed and commissioned by commands."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from firmware_sim.device import Device
from firmware_sim.fleet_store import FleetStore
from firmware_sim.modbus_bus import ModbusBus
from firmware_sim.register_map import RegisterMap
from firmware_sim.serial_server import SerialServer
from meter_gateway import network_store
from meter_gateway.profile import load_profile
from portal.key_sweep import KeySweep
from portal.sign_in import create_staff
from raseed.cli import main
from tests.billing.world import make_house, make_tariffs
from tests.firmware_sim.parts import TOWN, VENDING_KEYS, fresh
from tests.meter_gateway.conftest import Broker
from tests.meter_gateway.roles import Role
from token_engine.software_vault import SoftwareVault

TOP = Path(__file__).resolve().parents[2]
STRANGER = TOWN.strangers[0]
PASSWORD = "a word of the field"
WORK_S = 120  # what the whole walk may take a person


class Field:
    """A pty with the unknown meter, and what a command needs to know."""

    def __init__(self, folder: Path) -> None:
        self.tty = folder / "rtu-1"
        self.store = FleetStore(folder / "sim")
        self.device = Device(TOWN, STRANGER, fresh(STRANGER), self.store)
        self.device.start()
        bus = ModbusBus("rtu-1", converter=False)
        bus.add(self.device, RegisterMap(load_profile(STRANGER.profile)))
        self.server = SerialServer(bus, self.tty, 115_200)
        self.env: dict[str, str] = {
            "PYTHONPATH": str(TOP),
            "PATH": "/usr/bin:/bin",
            "RASEED_LOG_LEVEL": "ERROR",
        }
        self.spent_s = 0.0

    async def command(self, *words: object, code: int = 0, typed: str = "") -> str:
        began = time.monotonic()
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "raseed",
            "field",
            *map(str, words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.env,
        )
        out, err = await asyncio.wait_for(child.communicate(typed.encode()), 90)
        self.spent_s += time.monotonic() - began
        assert child.returncode == code, f"{words}: {out.decode()}{err.decode()}"
        return out.decode() if code == 0 else err.decode()

    async def order(self, *words: object, code: int = 0) -> str:
        return await self.command(*words, "--as", "salma", code=code, typed=f"{PASSWORD}\n")


@pytest.fixture
async def field(tmp_path):
    opened = Field(tmp_path)
    await opened.server.start()
    yield opened
    await opened.server.stop()
    opened.store.close()


async def test_a_laptop_alone_finds_and_names_the_meter(field):
    line = ("--tty", field.tty, "--baud", 115_200)
    scanned = json.loads(
        await field.command("scan", *line, "--first", 31, "--last", 34, "--timeout-ms", 80, "--json")
    )
    assert [(one["unit"], one["serial"]) for one in scanned["units_found"]] == [(33, STRANGER.drn)]
    said = await field.command(
        "probe", *line, "--unit", 33, "--profile", STRANGER.profile, "--profile", "orno-we504"
    )
    assert f"likely: {STRANGER.profile}" in said and "voltage 2" in said and "check digit right" in said
    said = await field.command("registers", *line, "--unit", 33, "--profile", STRANGER.profile)
    assert "1234.5 kWh" in said and "token_submit_id" not in said
    words = ("words", *line, "--unit", 33, "--profile", STRANGER.profile)
    assert "confirmed" in await field.command(*words, "--display", "1234.5")
    await field.command(*words, "--pick", "ABCD", code=1)
    said = await field.command("trace", *line, "--unit", 33, "--seconds", 1)
    assert "asked unit 33 for 7 registers from 0x1000" in said and "answer of unit 33" in said


def test_ports_and_what_is_wrong_with_them(capsys, monkeypatch, tmp_path):
    assert main(["field", "ports", "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)
    assert main(["field", "scan", "--tty", str(tmp_path / "none")]) == 1
    assert "there is no" in capsys.readouterr().err
    (tmp_path / "tty").touch()
    monkeypatch.setattr("raseed.field_bus.os.access", lambda *_: False)
    assert main(["field", "scan", "--tty", str(tmp_path / "tty")]) == 1
    assert "sudo usermod -aG" in capsys.readouterr().err
    assert main(["field", "scan", "--tcp", "nowhere"]) == 1
    assert main(["field", "scan", "--site", "s"]) == 1
    assert main(["field", "scan", "--tcp", "127.0.0.1:1", "--last", "300"]) == 1
    assert "units are 1 to 247" in capsys.readouterr().err
    assert main(["field", "scan", "--tcp", "127.0.0.1:1", "--last", "2"]) == 1
    assert "does not take a connection" in capsys.readouterr().err


async def test_a_port_in_use_says_so(field):
    from serial import Serial

    with Serial(str(field.tty), exclusive=True):
        said = await field.command("scan", "--tty", field.tty, "--last", 2, code=1)
    assert "in use by another program" in said


@asynccontextmanager
async def platform(field, database_url, pool, folder):
    """Headend, gateway, broker, and the worker's rounds over keys."""
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    broker = Broker(folder)
    broker.start()
    site = folder / "site.toml"
    site.write_text(
        f'site = "site-1"\n[[bus]]\ncode = "rtu-1"\nframer = "rtu"\ntty = "{field.tty}"\nbaud = 115200\n'
    )
    roles = [
        Role("headend", database_url=database_url, mqtt_url=broker.url, name="headend-1"),
        Role("gateway", mqtt_url=broker.url, site_file=str(site), state_dir=str(folder / "gw")),
    ]
    for role in roles:
        role.start()
    sweep = KeySweep(pool, SoftwareVault(VENDING_KEYS), lambda: datetime.now(UTC))

    async def rounds():
        while True:
            await sweep.round()
            await asyncio.sleep(0.3)

    worker = asyncio.create_task(rounds())
    try:
        yield
    finally:
        worker.cancel()
        for role in roles:
            role.kill()
        broker.kill()


async def prepare(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn, link="keypad")
        await conn.execute(  # what it held when somebody read it last; more is the office's to believe
            "INSERT INTO meter_gateway.meter_state (meter_id, credit, state_at) VALUES (%s, 10000, now())",
            (house.meter_id,),
        )
        site_id = await network_store.insert_site(
            conn, code="site-1", name_en="Site", name_ar="موقع", poll_ms=500
        )
        await network_store.insert_bus(conn, site_id=site_id, code="rtu-1", framer="rtu")
        await create_staff(conn, username="salma", password=PASSWORD, role="engineer", display_name="Salma")
        return house


async def test_with_the_platform_from_unknown_to_commissioned_and_the_old_credit_comes_along(
    field, database_url, pool, tmp_path
):
    house = await prepare(pool)
    field.env["DATABASE_URL"] = database_url
    bus = ("--site", "site-1", "--bus", "rtu-1")
    async with platform(field, database_url, pool, tmp_path):
        said = await field.command("scan", *bus, "--first", 32, "--last", 34)
        assert f"meter {STRANGER.drn}" in said and "1 of 3 asked answered" in said
        said = await field.order("add", *bus, "--unit", 33, "--sgc", "201457", "--model", "EM340")
        assert f"meter {STRANGER.drn} is in the books: EM340, electricity, profile {STRANGER.profile}" in said
        assert f"on site-1 rtu-1 unit {STRANGER.unit}" in said
        assert "confirmed" in await field.command(
            "words", *bus, "--unit", 33, "--profile", STRANGER.profile, "--display", "1234.5"
        )
        swap = ("replace", house.drn, STRANGER.drn, "--counter", "800", "--credit", "4.25")
        said = await field.order(*swap)
        assert "4.3 kWh go over to it by one token, once" in said and "its own key first" in said
        async with pool.connection() as conn:
            row = await (await conn.execute("SELECT count(*) FROM billing.credit_carry")).fetchone()
            assert row == (0,)  # it only said what would happen
        assert "done" in await field.order(*swap, "--key", "swap-1", "--yes")
        assert "nothing was changed" in await field.order(*swap, "--key", "swap-1", "--yes")
        said = await field.order(
            "commission",
            STRANGER.drn,
            "--display",
            "1234.5",
            *("--done", "wiring", "--done", "seal"),
            *("--exercise-relay", "--consent-by", "Salim"),
        )
    for line in (
        "link         answers",
        "identity     matches",
        "clock        right",
        "test token   accepted",
    ):
        assert line in said, said
    assert (
        "relay open   VERIFIED: disconnected" in said
        and "relay close  VERIFIED: ready for reconnection" in said
    )
    assert "commissioned: certificate" in said
    assert field.device.state.credit == 4_300
    async with pool.connection() as conn:
        await told_once(conn)
    assert field.spent_s < WORK_S


async def told_once(conn: psycopg.AsyncConnection) -> None:
    row = await (
        await conn.execute("SELECT count(*), min(state) FROM billing.credit_carry WHERE units_tenths = 43")
    ).fetchone()
    assert row == (1, "DONE")


async def test_orders_need_a_name_a_password_and_a_meter_that_is_known(field, database_url, pool):
    await prepare(pool)
    field.env["DATABASE_URL"] = database_url
    said = await field.command(
        "install", STRANGER.drn, "--point", "U1", "--as", "salma", code=1, typed="wrong\n"
    )
    assert "refused" in said
    assert "a meter hangs there already" in await field.order(
        "install", STRANGER.drn, "--point", "U1", code=1
    )
    assert "no such meter is in our books" in await field.order("commission", STRANGER.drn, code=1)
    assert "check digit" in await field.order(
        "add", "04777000012", "--link", "keypad", "--model", "E0", code=1
    )
    assert "is in the books" in await field.order(
        "add", STRANGER.drn, "--profile", STRANGER.profile, "--sgc", "201457"
    )
    assert "hangs nowhere" in await field.order("commission", STRANGER.drn, code=1)
    assert "no bus" in await field.order(
        "bind", STRANGER.drn, "--site", "site-1", "--bus", "x", "--unit", 5, code=1
    )
    await field.order("bind", STRANGER.drn, "--site", "site-1", "--bus", "rtu-1", "--unit", 5)


async def test_credit_that_waits_can_become_money_by_the_office_only(field, database_url, pool):
    house = await prepare(pool)
    async with pool.connection() as conn:
        await create_staff(conn, username="noor", password=PASSWORD, role="supervisor", display_name="Noor")
    field.env["DATABASE_URL"] = database_url
    gone = ("remove", house.drn, "--counter", "800", "--credit", "10", "--yes")
    assert "10.0 kWh wait for the next meter of this place" in await field.order(*gone)
    said = await field.command("credit")
    assert "WAITING" in said and "1 wait" in said
    settle = ("credit", "--settle", said.split()[0])
    assert "becomes 0.147" in await field.order(*settle)
    assert "1 wait" in await field.command("credit")  # it only said what would happen
    assert "your role may not do this" in await field.order(*settle, "--yes", code=1)
    done = (*settle, "--yes", "--as", "noor")
    assert "done" in await field.command(*done, typed=f"{PASSWORD}\n")
    assert "already" in await field.command(*done, code=1, typed=f"{PASSWORD}\n")
    assert "0 wait" in await field.command("credit")
    said = await field.order("cleared", house.drn, "taken", code=1)
    assert "no clear_credit token of this meter waits for a word" in said


async def test_a_held_credit_is_released_by_the_office(field, database_url, pool):
    house = await prepare(pool)
    async with pool.connection() as conn:
        await create_staff(conn, username="noor", password=PASSWORD, role="supervisor", display_name="Noor")
    field.env["DATABASE_URL"] = database_url
    gone = ("remove", house.drn, "--counter", "800", "--credit", "152.3", "--yes")
    assert "152.3 kWh wait for the office" in await field.order(*gone)
    listed = await field.command("credit")
    assert "HELD" in listed and "above_told" in listed
    release = ("credit", "--release", listed.split()[0], "--yes")
    assert "your role may not do this" in await field.order(*release, code=1)
    noor = {"typed": f"{PASSWORD}\n"}
    assert "WAITING" in await field.command(*release, "--as", "noor", **noor)
    assert "already" in await field.command(*release, "--as", "noor", code=1, **noor)
