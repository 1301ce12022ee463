"""Start one role with its settings; each role's code is imported only here, so that a process stays small."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from meter_gateway.broker.broker_login import BrokerLogin
from meter_gateway.topics import SHARE_GROUP
from meter_gateway.vitals import PublishVitals
from raseed.settings import Settings

if TYPE_CHECKING:
    from meter_gateway.time_series.retention import Keep

# What is silent for longer cannot do its work: eight polls of fifteen seconds, four reports of a gateway.
SILENT_S = 120.0


@contextmanager
def exported(settings: Settings) -> Iterator[PublishVitals | None]:
    """Answer /metrics, /health and /ready while a role runs, when RASEED_METRICS_PORT asks for it."""
    if not settings.metrics_port:
        yield None
        return
    from raseed.metrics import to_metrics
    from raseed.observability import Exporter

    exporter = Exporter(
        host=settings.metrics_host, port=settings.metrics_port, to_metrics=to_metrics, silent_s=SILENT_S
    )
    exporter.start()
    try:
        yield exporter.publish
    finally:
        exporter.stop()


def run_portal(_options: argparse.Namespace, settings: Settings) -> int:
    """Serve the pages until told to stop."""
    import uvicorn

    from portal.app import make_app

    refuse_demo_beyond_loopback(settings)
    with exported(settings) as publish_vitals:
        app = make_app(
            database_url=settings.need("database_url"),
            secret_key=settings.need("secret_key"),
            demo=settings.demo,
            public_url=settings.public_url,
            provider_url=settings.need("provider_url"),
            provider_secret=settings.need("provider_secret"),
            control_url=settings.control_url,
            publish_vitals=publish_vitals,
        )
        uvicorn.run(
            app,
            host=settings.host,
            port=settings.port,
            loop="asyncio",
            log_level="warning",
            server_header=False,
        )
    return 0


def run_worker(_options: argparse.Namespace, settings: Settings) -> int:
    """Work through jobs until told to stop."""
    from portal import worker

    with exported(settings) as publish_vitals:
        asyncio.run(
            worker.run(
                database_url=settings.need("database_url"),
                vault_file=settings.need("vault_file"),
                secret_key=settings.need("secret_key"),
                provider_url=settings.need("provider_url"),
                provider_secret=settings.need("provider_secret"),
                public_url=settings.public_url,
                outage_debounce_s=settings.outage_debounce_s,
                wrapping_key_file=settings.wrapping_key_file,
                publish_vitals=publish_vitals,
            )
        )
    return 0


def run_headend(options: argparse.Namespace, settings: Settings) -> int:
    """Store what meters say and send commands until told to stop."""
    from meter_gateway import headend

    with exported(settings) as publish_vitals:
        asyncio.run(
            headend.run(
                database_url=settings.need("database_url"),
                mqtt_url=settings.need("mqtt_url"),
                name=options.name or settings.headend_name,
                login=login_of(settings),
                share_group=settings.mqtt_share_group or SHARE_GROUP,
                keep=keep_of(settings),
                publish_vitals=publish_vitals,
            )
        )
    return 0


def keep_of(settings: Settings) -> Keep:
    """How long readings and their history are kept. Raises ValueError where a number is too small."""
    from meter_gateway.time_series.retention import Keep

    return Keep(
        raw_months=settings.keep_raw_months,
        hour_months=settings.keep_hour_months,
        day_months=settings.keep_day_months,
        dead_letter_days=settings.keep_dead_letter_days,
    )


def login_of(settings: Settings) -> BrokerLogin:
    """Return how the environment says that this role proves itself to the broker."""
    return BrokerLogin(
        user=settings.mqtt_user,
        password_file=settings.mqtt_password_file,
        ca_file=settings.mqtt_ca_file,
        cert_file=settings.mqtt_cert_file,
        key_file=settings.mqtt_key_file,
    )


def run_gateway(options: argparse.Namespace, settings: Settings) -> int:
    """Talk to the meters of one site until told to stop."""
    import uvloop

    from meter_gateway import gateway

    site_file = options.config or settings.site_file
    if not site_file:
        settings.need("mqtt_url")
    # Twice as many answers of meters a second as asyncio's own loop, for one megabyte (docs/bus.md).
    with (
        exported(settings) as publish_vitals,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(
            gateway.run(
                site_file=Path(site_file or settings.need("site_file")),
                mqtt_url=settings.mqtt_url,
                state_dir=settings.state_dir,
                login=login_of(settings),
                publish_vitals=publish_vitals,
            )
        )
    return 0


def run_simulate(_options: argparse.Namespace, settings: Settings) -> int:
    """Run the simulated meters until told to stop."""
    from firmware_sim import fleet

    asyncio.run(
        fleet.run(
            mqtt_url=settings.need("mqtt_url"),
            site_file=Path(settings.need("site_file")),
            state_dir=Path(settings.need("state_dir")),
            control_port=settings.control_port,
            speed=settings.speed,
            town_seed=settings.town_seed,
            vault_file=Path(settings.need("vault_file")),
        )
    )
    return 0


def run_sandbox_provider(_options: argparse.Namespace, settings: Settings) -> int:
    """Pretend to be a payment provider until told to stop."""
    from billing import sandbox_server

    refuse_demo_beyond_loopback(settings)
    asyncio.run(
        sandbox_server.run(
            host=settings.host,
            port=settings.port,
            state_dir=Path(settings.need("state_dir")),
            webhook_url=f"{settings.public_url}/webhooks/sandbox",
            provider_secret=settings.need("provider_secret"),
        )
    )
    return 0


def refuse_demo_beyond_loopback(settings: Settings) -> None:
    """Demo mode signs anybody in with one click: raise ValueError unless it binds to this machine only."""
    import ipaddress

    if not settings.demo:
        return
    try:
        loopback = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(
            f"demo mode signs anybody in with one click, so it binds to this machine only, not to {settings.host}. "
            "Use --host 127.0.0.1, or run the roles by hand without RASEED_DEMO."
        )
