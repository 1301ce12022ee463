"""Every sentence that a person can see has its Arabic, with the same placeholders, and no catalogue holds dead ones."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

PORTAL = Path(__file__).resolve().parent.parent / "portal"
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "N_": None, "msg": None, "nN_": (1, 2)}
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|\{\w*\}")


def used() -> dict[str, str]:
    """msgid (or singular) → where it is used."""
    found = {}
    for name, line, message, _comments, _context in extract_from_dir(
        PORTAL,
        METHODS,
        keywords=KEYWORDS,
        options_map={"templates/**.html": {"extensions": "jinja2.ext.i18n"}},
    ):
        first = message[0] if isinstance(message, tuple) else message
        if first:
            found[first] = f"portal/{name}:{line}"
    return found


def translated():
    """Every message of every Arabic catalogue, with its file."""
    for path in sorted((PORTAL / "locale" / "ar").glob("*.po")):
        with path.open("rb") as source:
            for message in read_po(source, locale="ar"):
                if message.id:
                    yield path.name, message


def test_every_sentence_has_its_arabic() -> None:
    known = {
        m.id[0] if isinstance(m.id, tuple) else m.id for _name, m in translated() if m.string and not m.fuzzy
    }
    missing = {where: text for text, where in used().items() if text not in known}
    assert not missing, f"{len(missing)} sentences without Arabic: {missing}"


def test_no_catalogue_holds_a_sentence_that_nobody_says() -> None:
    said = used()
    dead = [
        (name, m.id) for name, m in translated() if (m.id[0] if isinstance(m.id, tuple) else m.id) not in said
    ]
    assert not dead, f"{len(dead)} dead sentences: {dead}"


def test_a_sentence_is_said_the_same_way_in_every_catalogue() -> None:
    words = defaultdict(set)
    for _name, m in translated():
        words[m.id].add(m.string if isinstance(m.string, str) else tuple(m.string))
    differing = {key: value for key, value in words.items() if len(value) > 1}
    assert not differing


@pytest.mark.parametrize("name", sorted(path.name for path in (PORTAL / "locale" / "ar").glob("*.po")))
def test_placeholders_and_plurals_are_complete(name: str) -> None:
    for file_name, m in translated():
        if file_name != name:
            continue
        if isinstance(m.id, tuple):
            assert len(m.string) == 6, f"{m.id}: Arabic has six plural forms"
            assert all(m.string), m.id
            continue
        assert m.string, f"no Arabic for {m.id!r}"
        assert sorted(PLACEHOLDER.findall(m.id)) == sorted(PLACEHOLDER.findall(m.string)), m.id
