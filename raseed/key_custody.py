"""`raseed keys show|load|rotate`: the vault file's own keys, by two people; check values are shown, keys never."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from raseed.settings import Settings
from raseed.staff_word import Staff, ask_staff, read_secret

MAX_SHARE_TEXT = 4096


def add_commands(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the three to `raseed keys`."""
    show = what.add_parser("show", help="which vending keys the vault holds, by their check values")
    show.set_defaults(run=_show)
    load = what.add_parser("load", help="put a vending key into the sealed file from two people's shares")
    load.add_argument("--sgc", required=True, help="supply group")
    load.add_argument("--krn", required=True, type=int, help="key revision")
    load.add_argument("--kt", required=True, type=int, choices=(1, 2, 3), help="key type")
    load.add_argument("--base-date", required=True, type=int, choices=(1993, 2014, 2035))
    load.add_argument(
        "--check-value", required=True, help="what the key's maker says it is: nothing else is loaded"
    )
    load.add_argument(
        "--share-file",
        action="append",
        type=Path,
        help="a file with one share; twice; else both are asked for",
    )
    rotate = what.add_parser("rotate", help="wrap the vault file with a new wrapping key")
    rotate.add_argument("--new-key-file", required=True, help="file with 64 hexadecimal digits")
    for command in (load, rotate):
        command.add_argument(
            "--as", dest="people", action="append", required=True, metavar="NAME", help="staff name; twice"
        )
    load.set_defaults(run=_load)
    rotate.set_defaults(run=_rotate)


def _show(_options: argparse.Namespace, settings: Settings) -> int:
    from portal.open_vault import open_vault
    from token_engine.errors import TokenEngineError
    from token_engine.sealed_vault import SealedVault

    try:
        vault = open_vault(settings.need("vault_file"), settings.wrapping_key_file)
    except TokenEngineError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    generation = (
        f", generation {vault.generation}" if isinstance(vault, SealedVault) else ", NOT sealed: test keys"
    )
    print(f"{len(vault.check_values)} vending keys{generation}")
    for (sgc, krn, kt), value in sorted(vault.check_values.items()):
        print(f"  {sgc} revision {krn} {kt.name}: check value {value}")
    return 0


def _load(options: argparse.Namespace, settings: Settings) -> int:
    from portal.open_vault import read_wrapping_key
    from token_engine.decoder_key import VendingKey
    from token_engine.errors import TokenEngineError
    from token_engine.identifiers import BaseDate, KeyType, SupplyGroup, check_key_revision
    from token_engine.sealed_vault import SealedKeys, read_sealed_file, write_sealed_file

    path = Path(settings.need("vault_file"))
    is_new = not path.exists()

    async def step(conn: psycopg.AsyncConnection[Any]) -> int:
        people = await _two_people(conn, options.people)
        try:
            wrapping = read_wrapping_key(settings.need("wrapping_key_file"))
            kt, base = KeyType(options.kt), BaseDate(f"{options.base_date % 100:02d}")
            address = (str(SupplyGroup(options.sgc)), check_key_revision(options.krn), kt)
            held = SealedKeys({}, 0) if is_new else read_sealed_file(path, wrapping)
            key = VendingKey(_joined(options.share_file or [], people), kt, base)
        except TokenEngineError as error:
            print(f"refused: {error}", file=sys.stderr)
            return 1
        if key.check_value != options.check_value.upper():
            print(f"refused: the shares make a key of check value {key.check_value}", file=sys.stderr)
            return 1
        there = held.keys.get(address)
        if there is not None and there.check_value != key.check_value:
            print(f"refused: another key is filed there ({there.check_value})", file=sys.stderr)
            return 1
        await _write_down(
            settings,
            action="load",
            people=people,
            address=(address[0], address[1], int(kt), options.base_date),
            key_check_value=key.check_value,
            generation=held.generation + 1,
        )
        write_sealed_file(path, {**held.keys, address: key}, wrapping, held.generation + 1)
        print(f"loaded: check value {key.check_value}, generation {held.generation + 1}; restart the worker")
        return 0

    return _connected(settings, step)


def _rotate(options: argparse.Namespace, settings: Settings) -> int:
    from portal.open_vault import read_wrapping_key
    from token_engine.errors import TokenEngineError
    from token_engine.sealed_vault import read_sealed_file, rotate_wrapping_key

    path = Path(settings.need("vault_file"))

    async def step(conn: psycopg.AsyncConnection[Any]) -> int:
        people = await _two_people(conn, options.people)
        try:
            old = read_wrapping_key(settings.need("wrapping_key_file"))
            new = read_wrapping_key(options.new_key_file)
            held = read_sealed_file(path, old)
            await _write_down(
                settings,
                action="rotate",
                people=people,
                address=None,
                key_check_value=new.check_value,
                generation=held.generation + 1,
            )
            generation = rotate_wrapping_key(path, old, new)
        except TokenEngineError as error:
            print(f"refused: {error}", file=sys.stderr)
            return 1
        print(f"wrapped with {new.check_value}, generation {generation}")
        print(f"set RASEED_WRAPPING_KEY_FILE={options.new_key_file} and restart the worker")
        return 0

    return _connected(settings, step)


def _joined(files: list[Path], people: tuple[str, str]) -> Any:
    """The key that two shares make by exclusive or: neither person has it alone. Raises InvalidKey."""
    from token_engine.errors import InvalidKey
    from token_engine.key_material import VendingKeyMaterial

    if files and len(files) != 2:
        raise InvalidKey("a key is made of two shares")
    if len(set(files)) != len(files):
        raise InvalidKey("the two shares are one file")
    try:
        if files:
            texts = [file.read_text(encoding="ascii")[:MAX_SHARE_TEXT] for file in files]
        else:
            texts = [read_secret(f"Share of {person} (hexadecimal): ") for person in people]
    except (OSError, UnicodeDecodeError):
        raise InvalidKey("a share cannot be read") from None
    shares = [VendingKeyMaterial.from_hex(text.strip()).reveal() for text in texts]
    if len(shares[0]) != len(shares[1]):
        raise InvalidKey("the two shares differ in length")
    return VendingKeyMaterial(bytes(a ^ b for a, b in zip(*shares, strict=True)))


async def _two_people(conn: psycopg.AsyncConnection[Any], names: list[str]) -> tuple[str, str]:
    """Two members of the office, each with the password. Raises NotStaff."""
    from billing.engineering import APPROVERS
    from raseed.staff_word import NotStaff

    if len(names) != 2:
        raise NotStaff("two people do this: --as NAME --as NAME")
    people: list[Staff] = [await ask_staff(conn, name) for name in names]
    if people[0].name == people[1].name:
        raise NotStaff("two different people do this: four eyes")
    for person in people:
        if person.role not in APPROVERS:
            raise NotStaff(f"a {person.role} may not do this")
    return people[0].name, people[1].name


async def _write_down(settings: Settings, **facts: Any) -> None:
    from billing.key_custody_store import insert_custody

    # Committed before the file is touched: an entry without its file is seen and harmless, a key in the file
    # that no entry tells of is neither.
    async with await psycopg.AsyncConnection.connect(settings.need("database_url")) as conn:
        await insert_custody(conn, now=datetime.now(UTC), **facts)


def _connected(settings: Settings, step: Any) -> int:
    from raseed.keys_tool import connected

    return connected(settings, step)
