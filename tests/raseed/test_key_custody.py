"""Two shares make one key, and neither of them alone; the whole ceremony is in test_keys_tool.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raseed import key_custody, staff_word
from token_engine.errors import InvalidKey


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20))
def test_shares_join_in_either_order(tmp_path_factory, key, mask):
    folder = tmp_path_factory.mktemp("shares")
    files = [folder / "a", folder / "b"]
    files[0].write_text(mask.hex())
    files[1].write_text(bytes(a ^ b for a, b in zip(key, mask, strict=True)).hex())
    for order in (files, files[::-1]):
        assert key_custody._joined(order, ("huda", "salma")).reveal() == key


def test_other_files_are_refused(tmp_path):
    good = tmp_path / "good"
    good.write_text("00" * 20)
    bad = tmp_path / "bad"
    bad.write_text("not hexadecimal")
    for files in ([good], [good, good], [good, bad], [good, tmp_path / "nowhere"], [good, good, bad]):
        with pytest.raises(InvalidKey) as refused:
            key_custody._joined(files, ("huda", "salma"))
        assert "not hexadecimal" not in str(refused.value)


async def test_a_name_without_its_password_is_nobody(conn, monkeypatch):
    from portal.sign_in import create_staff

    await create_staff(conn, "huda", "a long enough password", "supervisor", "Huda")
    for typed, welcome in (("a long enough password", True), ("another", False), ("", False)):
        monkeypatch.setattr(staff_word, "read_secret", lambda _prompt, typed=typed: typed)
        if welcome:
            assert (await staff_word.ask_staff(conn, " Huda ")).role == "supervisor"
        else:
            with pytest.raises(staff_word.NotStaff):
                await staff_word.ask_staff(conn, "huda")
    with pytest.raises(staff_word.NotStaff):
        await staff_word.ask_staff(conn, "nobody")
