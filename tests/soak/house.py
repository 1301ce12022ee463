"""Everything a soak needs, as processes that can be killed: broker, database, two ingests, a gateway, meters."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg

from firmware_sim.crowd import build_crowd, crowd_buses
from firmware_sim.fleet_store import FILE_NAME
from raseed.embedded_broker import EmbeddedBroker
from raseed.embedded_postgres import EmbeddedPostgres
from raseed.migrate import migrate
from raseed.seed import SITE, seed
from raseed.supervisor import ChildSpec, Event, Supervisor, role_argv
from tests.firmware_sim.parts import VENDING_KEYS
from token_engine.software_vault import write_key_file

TOP = Path(__file__).resolve().parents[2]
VICTIMS = ("headend-1", "headend-2", "gateway", "broker", "postgres")
WATCHED = (*VICTIMS, "simulate")
# Ten thousand meters are built and have called the broker within this.
METERS_READY_S = 600.0
MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 10
max_queued_messages 200000
max_inflight_messages 12000
"""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much: MQTT meters, Modbus meters, seconds between a meter's readings, seconds between polls."""

    meters: int
    modbus: int
    telemetry_s: float = 60.0
    poll_s: float = 15.0


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def find_mosquitto() -> str | None:
    return shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")


class House:
    """Start inside its supervisor's context: `async with house.supervisor: await house.start()`."""

    def __init__(self, folder: Path, size: Size, say: Say) -> None:
        self.size = size
        self.folder = folder
        self.supervisor = Supervisor(folder, self._on_event)
        self.deaths: list[str] = []
        self._say = say
        postgres, mqtt, control, *self._bus_ports = free_ports(3 + len(crowd_buses(size.modbus)))
        self.postgres = EmbeddedPostgres(folder / "postgres", postgres)
        self._broker = EmbeddedBroker(folder / "broker", mqtt)
        self._control = control
        self.broker_name = "embedded (rumqttd)"

    @property
    def database_url(self) -> str:
        return self.postgres.connection_url

    @property
    def journal_file(self) -> Path:
        """The meters' own state file, journal included."""
        return self.folder / "simulate" / FILE_NAME

    async def start(self) -> None:
        """Return when every meter is online and both ingests listen."""
        for name in ("broker", "simulate", "gateway"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        write_key_file(self.folder / "keys.json", VENDING_KEYS)
        self._write_site()
        await self.supervisor.start(self.postgres.child_spec(), self._broker_spec())
        await self._fill()
        env = {
            "PYTHONPATH": str(TOP),
            "DATABASE_URL": self.database_url,
            "MQTT_URL": self._broker.mqtt_url,
            "RASEED_SITE_FILE": str(self.folder / "site.toml"),
            "RASEED_VAULT_FILE": str(self.folder / "keys.json"),
            "RASEED_CONTROL_PORT": str(self._control),
            "RASEED_LOG_LEVEL": "WARNING",
        }
        await self.supervisor.start(
            self._role("headend", env, "headend-1", "--name", "headend-1"),
            self._role("headend", env, "headend-2", "--name", "headend-2"),
        )
        await self.supervisor.start(self._meters_spec(env), self._role("gateway", env, "gateway"))
        await self._all_online()

    def _role(self, role: str, env: dict[str, str], name: str, *words: str) -> ChildSpec:
        own = env | {"RASEED_STATE_DIR": str(self.folder / role)}
        return ChildSpec(name=name, argv=role_argv(role, *words), env=own)

    def _meters_spec(self, env: dict[str, str]) -> ChildSpec:
        size = self.size
        words = [
            "--meters",
            str(size.meters),
            "--modbus",
            str(size.modbus),
            "--telemetry",
            str(size.telemetry_s),
        ]
        return ChildSpec(
            name="simulate",
            argv=[sys.executable, "-m", "tests.soak.meters", *words],
            env=env | {"RASEED_STATE_DIR": str(self.folder / "simulate")},
            ready=self._meters_answer,
            ready_timeout_s=METERS_READY_S,
        )

    def _broker_spec(self) -> ChildSpec:
        mosquitto = find_mosquitto()
        if mosquitto is None:
            return self._broker.child_spec()
        self.broker_name = "mosquitto"
        text = MOSQUITTO.format(port=self._broker.port, folder=self.folder / "broker")
        if os.geteuid() == 0:
            text += "user root\n"  # else it could not write into our folder
        conf = self.folder / "mosquitto.conf"
        conf.write_text(text)
        return ChildSpec(
            name="broker",
            argv=[mosquitto, "-c", str(conf)],
            ready=self._broker.wait_ready,
            stop_timeout_s=3.0,
        )

    def _write_site(self) -> None:
        lines = [f"site = {json.dumps(SITE)}\n"]
        for code, port in zip(crowd_buses(self.size.modbus), self._bus_ports, strict=True):
            lines.append(f'[[bus]]\ncode = "{code}"\nframer = "tcp"\naddress = "127.0.0.1:{port}"\n')
        (self.folder / "site.toml").write_text("".join(lines))

    async def _fill(self) -> None:
        await migrate(self.database_url)
        town = build_crowd(self.size.meters, modbus=self.size.modbus)
        async with await psycopg.AsyncConnection.connect(self.database_url) as conn:
            await seed(conn, town, now=datetime.now(UTC), with_history=False)
            await conn.execute("UPDATE meter_gateway.site SET poll_ms = %s", (int(self.size.poll_s * 1000),))

    async def _meters_answer(self) -> None:
        while await self._online() is None:
            await asyncio.sleep(0.2)

    async def _all_online(self) -> None:
        async with asyncio.timeout(METERS_READY_S):
            while await self._online() != self.size.meters:
                await asyncio.sleep(0.5)

    async def _online(self) -> int | None:
        try:
            async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
                answer = await client.get(f"http://127.0.0.1:{self._control}/health")
                return int(answer.json()["online"])
        except httpx.HTTPError:
            return None

    def _on_event(self, event: Event) -> None:
        if event.kind in {"died", "failed"}:
            tail = "" if "SIGKILL" in event.text else self.supervisor._folder.log_tail(event.name)[-500:]
            self.deaths.append(f"{event.name}: {event.text} {tail}".rstrip())
            self._say(f"{event.name} {event.text} {tail}".rstrip())
