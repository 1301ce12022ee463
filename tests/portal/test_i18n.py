import logging
from pathlib import Path

import pytest

from portal.i18n import MessageClash, choose_language, load_languages, merged_catalog

PO = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n'


def room(folder: Path, name: str, body: str) -> None:
    (folder / "ar").mkdir(exist_ok=True)
    (folder / "ar" / name).write_text(PO + body, encoding="utf-8")


@pytest.mark.parametrize(
    ("query", "cookie", "login", "accept", "chosen"),
    [
        ("en", "ar", "ar", "ar", "en"),
        ("xx", "en", "ar", "ar", "en"),
        (None, None, "en", "ar", "en"),
        (None, None, None, "en-GB,en;q=0.9,ar;q=0.8", "en"),
        (None, None, None, "fr;q=1.0, ar-OM;q=0.4, en;q=0.3", "ar"),
        (None, None, None, "en;q=0, fr", "ar"),
        (None, None, None, "en;q=abc", "ar"),
        (None, None, None, "," * 5000, "ar"),
        (None, None, None, None, "ar"),
    ],
)
def test_the_first_wish_that_we_speak_is_taken(query, cookie, login, accept, chosen) -> None:
    assert choose_language(query=query, cookie=cookie, login=login, accept=accept) == chosen


def test_rooms_are_merged_and_filled_in(tmp_path: Path) -> None:
    room(tmp_path, "a.po", 'msgid "Hello %(name)s"\nmsgstr "مرحبًا %(name)s"\n')
    room(
        tmp_path,
        "b.po",
        'msgid "%(n)s day"\nmsgid_plural "%(n)s days"\n'
        + "".join(
            f'msgstr[{i}] "{word}"\n'
            for i, word in enumerate(["صفر", "يوم", "يومان", "%(n)s أيام", "%(n)s يومًا", "%(n)s يوم"])
        ),
    )
    arabic = load_languages(tmp_path)["ar"]
    assert arabic._("Hello %(name)s", name="سالم") == "مرحبًا سالم"
    said = [arabic.ngettext("%(n)s day", "%(n)s days", n) for n in (0, 1, 2, 3, 11, 100, 103)]
    assert said == ["صفر", "يوم", "يومان", "3 أيام", "11 يومًا", "100 يوم", "103 أيام"]


def test_rooms_that_disagree_are_named(tmp_path: Path) -> None:
    room(tmp_path, "a.po", 'msgid "Meter"\nmsgstr "عداد"\n')
    room(tmp_path, "b.po", 'msgid "Meter"\nmsgstr "مقياس"\n')
    with pytest.raises(MessageClash, match="Meter"):
        merged_catalog(tmp_path, strict=True)
    assert merged_catalog(tmp_path).get("Meter").string == "عداد"


def test_a_message_without_arabic_is_shown_in_english_and_said_once(tmp_path: Path, caplog) -> None:
    room(tmp_path, "a.po", 'msgid "Meter"\nmsgstr "عداد"\n')
    languages = load_languages(tmp_path)
    with caplog.at_level(logging.WARNING, logger="portal.i18n"):
        assert languages["ar"]._("Unheard of") == "Unheard of"
        languages["ar"]._("Unheard of")
        assert languages["en"]._("Unheard of, too") == "Unheard of, too"
    assert [record.message for record in caplog.records] == ["no Arabic for 'Unheard of'"]
    assert languages["ar"].translations.missing == {"Unheard of"}


def test_our_own_catalogues_compile_without_a_clash() -> None:
    merged_catalog(strict=True)
    languages = load_languages()
    assert (languages["ar"].direction, languages["en"].direction) == ("rtl", "ltr")
    assert languages["ar"]._("Sign in") == "تسجيل الدخول"
