"""`raseed demo`: the whole town on embedded parts; starts the roles with their settings and keeps them alive."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from raseed import roles
from raseed.demo_folder import (
    HOST,
    STAFF,
    STAFF_NAMES,
    DemoFolder,
    FolderUnusable,
    PortBusy,
    choose_ports,
    keep_secrets,
    keep_staff_passwords,
    keep_test_keys,
    write_site_file,
)
from raseed.embedded_broker import BrokerUnavailable, EmbeddedBroker
from raseed.embedded_postgres import EmbeddedPostgres, PostgresUnavailable
from raseed.run_folder import DataFolderBusy
from raseed.settings import read_settings
from raseed.supervisor import ChildSpec, Event, Supervisor, SupervisorError, role_argv

if TYPE_CHECKING:
    from firmware_sim.town import Town

READY_POLL_S = 0.1
# Who tries the demo should not wait the minute that a real utility waits before it believes a silence.
OUTAGE_DEBOUNCE_S = 3.0
PROBE_TIMEOUT_S = 2.0
Say = Callable[[str], None]


class DemoRefused(Exception):
    """The demo was not started; nothing was changed."""


def run(options: argparse.Namespace) -> int:
    """Start the demo and stay until Ctrl-C, or with --check run the story and return its verdict."""
    if options.check:
        from raseed.check import run_check

        return run_check()
    try:
        roles.refuse_demo_beyond_loopback(read_settings({"RASEED_DEMO": "1", "RASEED_HOST": options.host}))
        if options.reset:
            reset(options.data, ask=not options.yes)
        asyncio.run(_until_stopped(options))
    except (
        DataFolderBusy,
        DemoRefused,
        PortBusy,
        FolderUnusable,
        PostgresUnavailable,
        BrokerUnavailable,
        SupervisorError,
    ) as error:
        print(f"raseed demo: {error}", file=sys.stderr)
        return 1
    return 0


def reset(data: Path, *, ask: bool) -> None:
    """Forget the data folder. Raises DemoRefused when it is not a demo's, is in use, or the person says no."""
    if not data.exists():
        return
    if not (data / "ports.json").exists():
        raise DemoRefused(f"{data} holds no demo, so nothing was removed. Choose its folder with --data DIR")
    from raseed.run_folder import RunFolder

    if ask:
        print(f"This removes everything in {data}: meters, customers, money, tickets. It cannot be undone.")
        if not sys.stdin.isatty() or input("Type yes to go on: ").strip().lower() != "yes":
            raise DemoRefused("nothing was removed (add --yes to be asked no question)")
    lock = RunFolder(data)
    lock.take()  # raises DataFolderBusy while a demo runs there
    lock.release()
    shutil.rmtree(data)


async def _until_stopped(options: argparse.Namespace) -> None:
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    demo = Demo(options.data, port=options.port, host=options.host, speed=options.speed or 1.0, say=say)
    async with demo.supervisor:
        await demo.start()
        print(f"\nRaseed is ready at {demo.url}\n", flush=True)
        print("  Sign in with one click on that page, or as staff with a name and password from")
        print(
            f"  {demo.folder.staff_file}. Logs: {demo.folder.path}/logs. Stop: Ctrl-C. Start afresh: --reset",
            flush=True,
        )
        await demo.supervisor.forever()
    print("\nRaseed stopped. The town is kept in", demo.folder.path)


class Demo:
    """One demo: its folder, ports, children and addresses."""

    def __init__(self, data: Path, *, port: int | None, host: str, speed: float, say: Say) -> None:
        self.folder = DemoFolder(data.absolute())
        self.supervisor = Supervisor(self.folder.path, self._on_event)
        self.ports: dict[str, int] = {}
        self.extra_env: dict[str, str] = {}
        self._wanted_port = port
        self._host = host
        self._speed = speed
        self._say = say
        self._served: set[str] = set()

    @property
    def url(self) -> str:
        """Address of the web pages."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.ports['portal']}"

    @property
    def control_url(self) -> str:
        """Address of the simulator's control port."""
        return f"http://{HOST}:{self.ports['control']}"

    @property
    def provider_url(self) -> str:
        """Address of the sandbox payment provider."""
        return f"http://{HOST}:{self.ports['provider']}"

    @property
    def database_url(self) -> str:
        """Address of the database, once it was started."""
        return self._postgres.connection_url

    async def start(self) -> None:
        """Start everything, inside the supervisor's context. Raises what `run` turns into words."""
        from firmware_sim.town import build_town

        self.folder.prepare()
        self.ports = choose_ports(self.folder, self._wanted_port)
        town = build_town()
        keep_test_keys(self.folder, town)
        from raseed.seed import SITE

        write_site_file(self.folder, self.ports, SITE)
        self._postgres = EmbeddedPostgres(self.folder.postgres, self.ports["postgres"])
        broker = EmbeddedBroker(self.folder.broker, self.ports["mqtt"])
        if not (self.folder.postgres / "data").exists():
            self._say("first start: making a database, a broker and a town of 60 meters")
        await self.supervisor.start(self._postgres.child_spec(), broker.child_spec())
        env = self._environment(broker.mqtt_url)
        await asyncio.gather(self._fill_database(town), self.supervisor.start(*self._edge_specs(env)))
        await self.supervisor.start(*self._platform_specs(env))
        self.supervisor.publish(url=self.url, control_url=self.control_url)

    async def _fill_database(self, town: Town) -> None:
        import psycopg

        from portal.sign_in import create_staff
        from raseed.migrate import migrate
        from raseed.seed import seed

        if await migrate(self.database_url):
            self._say("database: tables made")
        passwords = keep_staff_passwords(self.folder)
        async with await psycopg.AsyncConnection.connect(self.database_url) as conn:
            if await seed(conn, town, now=datetime.now(UTC), say=lambda line: self._say(f"town: {line}")):
                for name, role in STAFF.items():
                    await create_staff(
                        conn,
                        username=name,
                        password=passwords[name],
                        role=role,
                        display_name=STAFF_NAMES[name][0],
                        display_name_ar=STAFF_NAMES[name][1],
                    )

    def _environment(self, mqtt_url: str) -> dict[str, str]:
        own = keep_secrets(self.folder)
        return {
            "DATABASE_URL": self.database_url,
            "MQTT_URL": mqtt_url,
            "RASEED_DEMO": "1",
            "RASEED_HOST": self._host,
            "RASEED_PORT": str(self.ports["portal"]),
            "RASEED_PUBLIC_URL": self.url,
            "RASEED_PROVIDER_URL": self.provider_url,
            "RASEED_PROVIDER_SECRET": own["provider_secret"],
            "RASEED_SECRET_KEY": own["secret_key"],
            "RASEED_VAULT_FILE": str(self.folder.vault_file),
            "RASEED_SITE_FILE": str(self.folder.site_file),
            "RASEED_CONTROL_PORT": str(self.ports["control"]),
            "RASEED_CONTROL_URL": self.control_url,
            "RASEED_SPEED": str(self._speed),
            "RASEED_OUTAGE_DEBOUNCE_S": str(OUTAGE_DEBOUNCE_S),
            **self.extra_env,
        }

    def _edge_specs(self, env: dict[str, str]) -> list[ChildSpec]:
        """What stands outside the platform: meters, gateway, payment provider."""
        provider = {
            **env,
            "RASEED_HOST": HOST,
            "RASEED_PORT": str(self.ports["provider"]),
            "RASEED_STATE_DIR": str(self.folder.state_of("provider")),
        }
        return [
            ChildSpec(
                name="simulate",
                argv=role_argv("simulate"),
                env={**env, "RASEED_STATE_DIR": str(self.folder.state_of("simulate"))},
                ready=_answers(f"{self.control_url}/health"),
                after=("broker",),
            ),
            ChildSpec(
                name="gateway",
                argv=role_argv("gateway"),
                env={**env, "RASEED_STATE_DIR": str(self.folder.state_of("gateway"))},
                after=("broker",),
            ),
            ChildSpec(
                name="sandbox-provider",
                argv=role_argv("sandbox-provider"),
                env=provider,
                ready=_answers(f"{self.provider_url}/health"),
            ),
        ]

    def _platform_specs(self, env: dict[str, str]) -> list[ChildSpec]:
        """The platform: each role speaks to the database, and only the headend to the broker."""
        return [
            ChildSpec(name="headend", argv=role_argv("headend"), env=env, after=("postgres", "broker")),
            ChildSpec(name="worker", argv=role_argv("worker"), env=env, after=("postgres",)),
            ChildSpec(
                name="portal",
                argv=role_argv("portal"),
                env=env,
                ready=_answers(f"{self.url}/ready"),
                after=("postgres",),
            ),
        ]

    def _on_event(self, event: Event) -> None:
        if event.kind == "ready":
            again = " again" if event.name in self._served else ""
            self._served.add(event.name)
            self._say(f"{event.name}: up{again}")
        elif event.kind in {"died", "failed"}:
            self._say(f"{event.name}: {event.text}")


def _answers(url: str) -> Callable[[], Awaitable[None]]:
    """A check that returns once `url` answers 200."""

    async def ready() -> None:
        import httpx

        async with httpx.AsyncClient(timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            while True:  # ends by the supervisor's own limit on a start
                try:
                    if (await client.get(url)).status_code == httpx.codes.OK:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(READY_POLL_S)

    return ready
