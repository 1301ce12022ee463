"""Languages: catalogues compiled in memory from .po files, and the choice of a language for a request."""

from __future__ import annotations

import gettext
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

log = logging.getLogger(__name__)

LOCALE_DIR = Path(__file__).parent / "locale"
CODES = ("ar", "en")
DEFAULT = "ar"
COOKIE = "raseed_lang"
# The plural rule of Arabic (CLDR: zero, one, two, few, many, other).
ARABIC_PLURALS = (
    "nplurals=6; plural=(n==0 ? 0 : n==1 ? 1 : n==2 ? 2 :"
    " n%100>=3 && n%100<=10 ? 3 : n%100>=11 && n%100<=99 ? 4 : 5);"
)


class MessageClash(Exception):
    """Two rooms translate the same message differently."""


def msg(msgid: str) -> str:
    """Mark a message in a table for translation later; returns it unchanged."""
    return msgid


class Translations(gettext.GNUTranslations):
    """A catalogue that says once when a message has no translation."""

    def __init__(self, fp: io.BytesIO, *, source: bool = False) -> None:
        super().__init__(fp)
        self.source = source  # the source language has every message by itself
        self.missing: set[str] = set()

    def _note(self, msgid: str) -> None:
        if not self.source and msgid and msgid not in self.missing:
            self.missing.add(msgid)
            log.warning("no Arabic for %r", msgid)

    def gettext(self, message: str) -> str:
        """Translate one message."""
        catalog: dict[object, str] = getattr(self, "_catalog", {})
        if message not in catalog:
            self._note(message)
        return super().gettext(message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        """Translate a message that counts."""
        catalog: dict[object, str] = getattr(self, "_catalog", {})
        if (msgid1, 0) not in catalog:
            self._note(msgid1)
        return super().ngettext(msgid1, msgid2, n)


@dataclass(frozen=True, slots=True)
class Language:
    """One language of the portal."""

    code: str
    direction: str
    own_name: str
    translations: Translations

    def _(self, message: str, /, **values: object) -> str:
        """Translate, then fill in `%(name)s` places."""
        text = self.translations.gettext(message)
        return text % values if values else text

    def ngettext(self, singular: str, plural: str, n: int, /, **values: object) -> str:
        """Translate by number, then fill in `%(n)s` and other places."""
        return self.translations.ngettext(singular, plural, n) % {"n": n, **values}


def po_files(locale_dir: Path = LOCALE_DIR) -> Iterator[Path]:
    """Yield the Arabic catalogues, one a room."""
    yield from sorted((locale_dir / "ar").glob("*.po"))


def merged_catalog(locale_dir: Path = LOCALE_DIR, *, strict: bool = False) -> Catalog:
    """Read every room's .po into one catalogue; the first room wins, or with `strict` MessageClash is raised."""
    merged = Catalog(locale="ar")
    merged.mime_headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Plural-Forms", ARABIC_PLURALS),
    ]
    owner: dict[object, str] = {}
    for path in po_files(locale_dir):
        with path.open("rb") as file:
            room = read_po(file, locale="ar", charset="utf-8", abort_invalid=True)
        for entry in room:
            if not entry.id or not entry.string or entry.fuzzy:
                continue
            key = entry.id[0] if isinstance(entry.id, (list, tuple)) else entry.id
            known = merged.get(entry.id)
            if known is None:
                owner[key] = path.name
                merged.add(entry.id, entry.string)
            elif known.string != entry.string and strict:
                raise MessageClash(f"{key!r} differs between {owner[key]} and {path.name}")
    return merged


def load_languages(locale_dir: Path = LOCALE_DIR) -> dict[str, Language]:
    """Compile the catalogues in memory; English is the source."""
    return {
        "ar": Language("ar", "rtl", "العربية", Translations(_compiled(merged_catalog(locale_dir)))),
        "en": Language("en", "ltr", "English", Translations(_compiled(Catalog(locale="en")), source=True)),
    }


def _compiled(catalog: Catalog) -> io.BytesIO:
    file = io.BytesIO()
    write_mo(file, catalog)
    file.seek(0)
    return file


def choose_language(*, query: str | None, cookie: str | None, login: str | None, accept: str | None) -> str:
    """Return the first wish that we speak: ?lang=, cookie, login, the browser's list, Arabic."""
    for wish in (query, cookie, login):
        if wish in CODES:
            return str(wish)
    ranked: list[tuple[float, int, str]] = []
    for place, part in enumerate((accept or "").split(",")[:16]):  # 16: no browser lists more
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        code = tag[:2].lower()
        if code in CODES and weight > 0:
            ranked.append((-weight, place, code))
    return min(ranked)[2] if ranked else DEFAULT
