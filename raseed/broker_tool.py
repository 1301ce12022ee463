"""`raseed gateway acl | authority | certificate | revoke`: the files by which a broker knows who may say what."""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raseed.settings import Settings

if TYPE_CHECKING:
    from meter_gateway.broker.broker_ca import Authority

# One line for each certificate that an authority signed.
ISSUED: Final = "issued.csv"
_COLUMNS: Final = ("serial", "name", "issued_at", "revoked_at")


def add_commands(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that prepare a broker."""
    acl = what.add_parser(
        "acl", help="write mosquitto's acl_file from the edges in the database (DATABASE_URL)"
    )
    acl.add_argument(
        "--headend",
        action="append",
        metavar="NAME",
        help="name of a headend; repeat it for several (headend-1)",
    )
    acl.add_argument("--output", type=Path, metavar="FILE", help="write here instead of to the screen")
    acl.set_defaults(run=_acl)
    authority = what.add_parser("authority", help="make a small certificate authority in a new folder")
    authority.add_argument("folder", type=Path)
    authority.set_defaults(run=_authority)
    certificate = what.add_parser(
        "certificate", help="issue the certificate of an edge or a headend, or with --broker of a broker"
    )
    certificate.add_argument(
        "name", nargs="+", help="site code, DRN or headend; with --broker its host names"
    )
    certificate.add_argument("--broker", action="store_true", help="for a broker reached by these host names")
    certificate.add_argument(
        "--request", type=Path, help="a PKCS#10 request: the key stays where it was made"
    )
    certificate.add_argument("--days", type=int, help="how long it is valid (825)")
    certificate.add_argument("--output", type=Path, default=Path(), help="folder for its files (this one)")
    revoke = what.add_parser("revoke", help="revoke every certificate of a name and renew revoked.pem")
    revoke.add_argument("name")
    for command, run in ((certificate, _certificate), (revoke, _revoke)):
        command.add_argument("--authority", type=Path, required=True, metavar="FOLDER")
        command.set_defaults(run=run)


def _acl(options: argparse.Namespace, settings: Settings) -> int:
    import psycopg

    from meter_gateway.broker.broker_acl import make_acl

    try:
        edges = asyncio.run(_list_edges(settings.need("database_url")))
    except psycopg.OperationalError as error:
        print(f"raseed gateway acl: the database is away: {str(error).strip()}", file=sys.stderr)
        return 1
    text = make_acl(edges, options.headend or [settings.headend_name])
    if options.output is None:
        print(text, end="")
        return 0
    # The broker may read it at any moment: whole, or not at all.
    part = options.output.with_name(options.output.name + ".new")
    part.write_text(text, "utf-8")
    part.replace(options.output)
    print(f"{len(edges)} edges in {options.output}; now send mosquitto a SIGHUP", file=sys.stderr)
    return 0


async def _list_edges(database_url: str) -> list[str]:
    import psycopg

    from meter_gateway import edge_store

    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        return await edge_store.list_speakers(conn)


def _authority(options: argparse.Namespace, _settings: Settings) -> int:
    from meter_gateway.broker.broker_ca import Authority, make_ca

    folder: Path = options.folder
    if (folder / "ca.key").exists():
        raise ValueError(f"{folder} holds an authority already: every certificate of it would be void")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = datetime.now(UTC)
    made = make_ca("Raseed edges", now)
    _write(folder / "ca.key", made.key)
    _write(folder / "ca.crt", made.certificate, mode=0o644)
    _write(folder / "revoked.pem", Authority(made.certificate, made.key).revoke([], now), mode=0o644)
    _write(folder / ISSUED, (",".join(_COLUMNS) + "\n").encode())
    print(
        f"{folder}/ca.key signs: keep it offline. ca.crt and revoked.pem go to the broker, ca.crt to every edge."
    )
    return 0


def _certificate(options: argparse.Namespace, _settings: Settings) -> int:
    from meter_gateway.broker.broker_ca import DAYS

    authority, now, days = _load(options.authority), datetime.now(UTC), options.days or DAYS
    name = options.name[0]
    if options.broker:
        issued = authority.issue_broker(options.name, now, days=days)
        name = "broker"
    elif len(options.name) > 1:
        raise ValueError("one name, one certificate: ask for each by itself")
    else:
        request = _read_request(options.request) if options.request else None
        issued = authority.issue_client(name, now, days=days, request=request)
    options.output.mkdir(parents=True, exist_ok=True)
    if issued.key:
        _write(options.output / f"{name}.key", issued.key)
    _write(options.output / f"{name}.crt", issued.certificate, mode=0o644)
    rows = [*_issued(options.authority), [str(issued.serial), name, now.isoformat(timespec="seconds"), ""]]
    _save_issued(options.authority, rows)
    print(f"{options.output / name}.crt" + (f" and {options.output / name}.key" if issued.key else ""))
    return 0


def _read_request(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"the request cannot be read: {error}") from None


def _revoke(options: argparse.Namespace, _settings: Settings) -> int:
    now = datetime.now(UTC).replace(microsecond=0)
    rows = _issued(options.authority)
    fresh = [row for row in rows if row[1] == options.name and not row[3]]
    if not fresh:
        raise ValueError(f"{options.name} has no certificate of this authority that is not revoked")
    for row in fresh:
        row[3] = now.isoformat()
    serials = [(int(row[0]), datetime.fromisoformat(row[3])) for row in rows if row[3]]
    body = _load(options.authority).revoke(serials, now)
    _write(options.authority / "revoked.pem", body, mode=0o644)
    _save_issued(options.authority, rows)
    print(
        f"{len(fresh)} certificates of {options.name} revoked: copy {options.authority}/revoked.pem to the broker"
        " and send mosquitto a SIGHUP"
    )
    return 0


def _load(folder: Path) -> Authority:
    from meter_gateway.broker.broker_ca import Authority

    try:
        return Authority((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())
    except OSError as error:
        raise ValueError(
            f"{folder} holds no authority (raseed gateway authority makes one): {error}"
        ) from None


def _issued(folder: Path) -> list[list[str]]:
    with (folder / ISSUED).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def _save_issued(folder: Path, rows: Sequence[Sequence[str]]) -> None:
    part = folder / f"{ISSUED}.new"
    with part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([_COLUMNS, *rows])
    part.chmod(0o600)
    part.replace(folder / ISSUED)


def _write(path: Path, body: bytes, *, mode: int = 0o600) -> None:
    """Write a file that, if it is a key, nobody else could ever read, not even while it is written."""
    part = path.with_name(path.name + ".new")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(body)
    part.replace(path)
