"""A small real house for scripts: mosquitto, a headend, a gateway and simulated meters, each a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from firmware_sim.crowd import build_crowd
from firmware_sim.fleet_store import FILE_NAME
from firmware_sim.scenario import find_meter
from raseed.scenario_tool import ControlPort, ControlRefused
from raseed.seed import SITE, seed
from tests.firmware_sim.parts import VENDING_KEYS
from tests.meter_gateway.conftest import Broker, free_port
from token_engine.software_vault import write_key_file

TOP = Path(__file__).resolve().parents[2]
RADIO, WIRED = 14, 28  # fourteen MQTT meters; twenty on a converter, eight on RTU over TCP
TELEMETRY_S, POLL_MS = 2.0, 1_000
READY_S = 60.0


class House:
    """Start it once for many scripts; each meter is used by one of them."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.database_url = database_url
        self.town = build_crowd(RADIO, modbus=WIRED)
        self.broker = Broker(folder)
        self.control = ControlPort(f"http://127.0.0.1:{(port := free_port())}")
        self.journal_file = folder / "simulate" / FILE_NAME
        self._env = {
            **os.environ,
            "PYTHONPATH": str(TOP),
            "DATABASE_URL": database_url,
            "MQTT_URL": self.broker.url,
            "RASEED_SITE_FILE": str(folder / "site.toml"),
            "RASEED_VAULT_FILE": str(folder / "keys.json"),
            "RASEED_CONTROL_PORT": str(port),
            "RASEED_LOG_LEVEL": "INFO",
        }
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for name in ("simulate", "gateway"):
            (self.folder / name).mkdir()
        write_key_file(self.folder / "keys.json", VENDING_KEYS)
        lines = [f'site = "{SITE}"\n']
        for code, framer in (("tcp-1", "tcp"), ("tcp-2", "rtu_over_tcp")):
            address = f"127.0.0.1:{free_port()}"
            lines.append(f'[[bus]]\ncode = "{code}"\nframer = "{framer}"\naddress = "{address}"\n')
        (self.folder / "site.toml").write_text("".join(lines))
        self.broker.start()
        meters = ["tests.soak.meters", "--meters", str(RADIO), "--modbus", str(WIRED)]
        self._run("simulate", *meters, "--telemetry", str(TELEMETRY_S))
        asyncio.run(self._fill())
        self._run("headend", "raseed", "headend")
        self._run("gateway", "raseed", "gateway")
        self.wait(self._is_up, READY_S)

    def stop(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)
        for child in self._children.values():
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.broker.kill()

    def _run(self, name: str, *words: str) -> None:
        env = self._env | {"RASEED_STATE_DIR": str(self.folder / name)}
        with (self.folder / f"{name}.log").open("wb") as log:
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=TOP, env=env, stdout=log, stderr=log
            )

    def dead(self) -> list[str]:
        """Who ended by himself, with his last words."""
        return [
            f"{name} ended: {(self.folder / f'{name}.log').read_text()[-500:]}"
            for name, child in self._children.items()
            if child.poll() is not None
        ]

    async def _fill(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.database_url) as conn:
            await seed(conn, self.town, now=datetime.now(UTC), with_history=False)
            await conn.execute("UPDATE meter_gateway.site SET poll_ms = %s", (POLL_MS,))
            await conn.execute("UPDATE meter_gateway.bus SET framer = 'rtu_over_tcp' WHERE code = 'tcp-2'")

    def _is_up(self) -> bool:
        """Every meter has said something that stands in the database."""
        try:
            online = self.control.get("/health")["online"] == RADIO
        except ControlRefused:
            return False
        return (
            online
            and self.ask("SELECT count(DISTINCT meter_id) FROM meter_gateway.v_reading")[0][0]
            == RADIO + WIRED
        )

    def ask(self, query: str, *values: object) -> list[tuple]:
        with psycopg.connect(self.database_url) as conn:
            return conn.execute(query, values).fetchall()

    def drn(self, selector: str) -> str:
        return find_meter(self.town, selector).drn

    def meter_id(self, selector: str) -> int:
        return self.ask("SELECT meter_id FROM meter_gateway.v_meter WHERE drn = %s", self.drn(selector))[0][0]

    @staticmethod
    def wait(check, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if check():
                return True
            time.sleep(0.25)
        return False
