"""`raseed gateway`: run a site, check its file, and write what the broker must know of edges and headends."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from raseed import broker_tool, roles
from raseed.settings import Settings


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `gateway` and what it does; `raseed gateway --config FILE` runs it too."""
    gateway = commands.add_parser(
        "gateway", help="talk to the Modbus meters of one site, and prepare the broker for it"
    )
    _add_config(gateway)
    gateway.set_defaults(run=roles.run_gateway, config=None)
    what = gateway.add_subparsers(dest="what", metavar="WHAT")
    run = what.add_parser("run", help="serve the site of a file; only a broker must be within reach")
    _add_config(run)
    run.add_argument("--check", action="store_true", help="say what is wrong with the file, start nothing")
    run.set_defaults(run=_run)
    asyncapi = what.add_parser("asyncapi", help="print the contract of the wire as an AsyncAPI 3.0 file")
    asyncapi.set_defaults(run=_asyncapi)
    broker_tool.add_commands(what)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="SITE.TOML",
        default=argparse.SUPPRESS,
        help="buses, broker and folder of this site (or RASEED_SITE_FILE); docs/mqtt.md lists it all",
    )


def _run(options: argparse.Namespace, settings: Settings) -> int:
    return _check(options, settings) if options.check else roles.run_gateway(options, settings)


def _check(options: argparse.Namespace, settings: Settings) -> int:
    from meter_gateway.bus.site_file import InvalidSite
    from meter_gateway.edge.site_settings import list_site_faults, read_site_settings

    path = Path(options.config or settings.need("site_file"))
    try:
        found = read_site_settings(
            path,
            mqtt_url=settings.mqtt_url,
            state_dir=settings.state_dir,
            login=roles.login_of(settings),
        )
    except InvalidSite as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    faults = list_site_faults(found, datetime.now(UTC))
    for fault in faults:
        print(f"{path}: {fault}", file=sys.stderr)
    if faults:
        return 1
    buses = ", ".join(sorted(found.site.buses))
    print(f"{path}: site {found.site.code}, buses {buses}: nothing is wrong")
    return 0


def _asyncapi(_options: argparse.Namespace, _settings: Settings) -> int:
    from meter_gateway.broker.asyncapi import to_yaml

    print(to_yaml(), end="")
    return 0
