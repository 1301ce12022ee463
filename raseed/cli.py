"""The `raseed` command: one subcommand a role, and the demo that starts them all."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from raseed import gateway_tool, roles
from raseed.log_lines import set_up_logs
from raseed.settings import SettingMissing, Settings, read_settings

EXIT_USAGE = 2
# What runs for months. None of them carries the tools of a person, nor waits for them when it must start quickly.
ROLES = frozenset(
    {"demo", "migrate", "portal", "worker", "sandbox-provider", "headend", "gateway", "simulate"}
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return its exit code (0 done, 1 failed, 2 asked wrongly)."""
    words = sys.argv[1:] if argv is None else argv
    options = _parser(words[0] if words else "").parse_args(words)
    try:
        settings = read_settings()
        set_up_logs(level=settings.log_level, style=settings.log_format, ids={"role": options.command})
        return int(options.run(options, settings) or 0)
    except (SettingMissing, ValueError) as error:
        print(f"raseed {options.command}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 0


def _parser(word: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="raseed",
        description="Prepaid electricity and water: meter, token, ledger, ticket and outage on one timeline.",
        epilog="Start with:  raseed demo",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    for name, run, text in (
        ("migrate", _migrate, "bring the database to the newest schema (DATABASE_URL)"),
        ("portal", roles.run_portal, "serve the web pages (DATABASE_URL)"),
        (
            "worker",
            roles.run_worker,
            "issue tokens, ask about silent payments, watch for outages (DATABASE_URL)",
        ),
        ("sandbox-provider", roles.run_sandbox_provider, "the pretend payment provider of the demo"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
    headend = commands.add_parser(
        "headend", help="store what meters say and send commands (DATABASE_URL, MQTT_URL)"
    )
    headend.add_argument(
        "--name", help="its own among several that share the work (headend-1, or RASEED_HEADEND_NAME)"
    )
    headend.set_defaults(run=roles.run_headend)
    gateway_tool.add_commands(commands)
    if word == "simulate" or word not in ROLES:
        _add_simulate(commands)
    if word not in ROLES:
        _add_user(commands)
        _add_tools(commands)
    return parser


def _add_tools(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from raseed import (
        field_tool,
        history_tool,
        keys_tool,
        money_tool,
        order_tool,
        profile_tool,
        token_tool,
    )

    for tool in (token_tool, keys_tool, money_tool, profile_tool, order_tool, field_tool, history_tool):
        tool.add_commands(commands)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="start a whole town on embedded parts and print its address")
    demo.add_argument(
        "--data", type=Path, default=Path(".demo"), help="folder of everything it keeps (.demo)"
    )
    demo.add_argument("--port", type=int, help="port of the web pages (8080); 0 takes a free one")
    demo.add_argument("--host", default="127.0.0.1", help="loopback address to bind (127.0.0.1)")
    demo.add_argument(
        "--speed", type=float, default=None, help="multiplies the households' demand, nothing else"
    )
    demo.add_argument("--reset", action="store_true", help="forget the data folder first")
    demo.add_argument("--yes", action="store_true", help="with --reset: do not ask")
    demo.add_argument(
        "--check", action="store_true", help="run the whole story by itself in a folder of its own"
    )
    demo.set_defaults(run=_demo)


def _add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from raseed import scenario_tool

    simulate = commands.add_parser(
        "simulate", help="run the simulated meters, or cut and restore their supply"
    )
    what = simulate.add_subparsers(dest="what", metavar="WHAT")
    outage = what.add_parser("outage", help="cut the supply under a network node (RASEED_CONTROL_URL)")
    outage.add_argument(
        "node", nargs="?", help="code of a substation, feeder, transformer or zone; none lists them"
    )
    outage.add_argument("--restore", action="store_true", help="bring the supply back")
    outage.add_argument("--data", type=Path, default=Path(".demo"), help="data folder of the running demo")
    outage.set_defaults(run=_outage)
    scenario_tool.add_command(what)
    simulate.set_defaults(run=roles.run_simulate)


def _add_user(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    user = commands.add_parser(
        "user", help="add a member of staff, or end a login (DATABASE_URL); passwords are asked for"
    )
    user.add_argument("name", help="name to sign in with, lower case")
    what = user.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--role", choices=("engineer", "agent", "supervisor", "admin"), help="add with this role"
    )
    what.add_argument("--disable", action="store_true", help="end the login and sign it out everywhere")
    what.add_argument("--password", action="store_true", help="set a new password and sign out everywhere")
    user.add_argument("--display-name", help="name that colleagues see")
    user.set_defaults(run=_user)


def _migrate(_options: argparse.Namespace, settings: Settings) -> int:
    from raseed.migrate import MigrationRefused, migrate

    try:
        applied = asyncio.run(migrate(settings.need("database_url"), print))
    except MigrationRefused as error:
        print(f"raseed migrate: {error}", file=sys.stderr)
        return 1
    print(f"{applied} migrations applied" if applied else "the database is up to date")
    return 0


def _demo(options: argparse.Namespace, _settings: Settings) -> int:
    from raseed import demo

    return demo.run(options)


def _outage(options: argparse.Namespace, settings: Settings) -> int:
    from raseed.outage import cut_or_restore

    return cut_or_restore(options, settings)


def _user(options: argparse.Namespace, settings: Settings) -> int:
    from raseed import user

    if options.disable:
        return user.end_user(options, settings)
    return user.renew_user(options, settings) if options.password else user.add_user(options, settings)


if __name__ == "__main__":
    sys.exit(main())
