"""The vault that the settings name opens whole, or is refused with a reason and without its secrets."""

import pytest

from portal.open_vault import open_vault, read_wrapping_key
from tests.billing.world import make_vault
from token_engine.errors import VaultDamaged
from token_engine.sealed_vault import SealedVault, WrappingKey, write_sealed_file
from token_engine.software_vault import write_key_file

SECRET = "ab" * 32


@pytest.fixture
def files(tmp_path):
    keys = make_vault()._keys
    write_key_file(tmp_path / "plain", keys)
    write_sealed_file(tmp_path / "sealed", keys, WrappingKey.from_hex(SECRET))
    (tmp_path / "key").write_text(f"{SECRET}\n")
    (tmp_path / "other").write_text("cd" * 32)
    (tmp_path / "short").write_text(SECRET[:-2])
    (tmp_path / "binary").write_bytes(b"\xff" * 32)
    return tmp_path


def test_plain_and_sealed_hold_the_same(files):
    plain, sealed = open_vault(str(files / "plain")), open_vault(str(files / "sealed"), str(files / "key"))
    assert plain.check_values == sealed.check_values
    assert isinstance(sealed, SealedVault)
    assert not isinstance(plain, SealedVault)


@pytest.mark.parametrize(
    ("vault", "key"),
    [
        ("plain", "key"),
        ("sealed", ""),
        ("sealed", "other"),
        ("sealed", "short"),
        ("sealed", "binary"),
        ("sealed", "nowhere"),
        ("nowhere", ""),
        ("nowhere", "key"),
    ],
)
def test_anything_else_is_refused(files, vault, key):
    with pytest.raises(VaultDamaged) as refused:
        open_vault(str(files / vault), str(files / key) if key else "")
    assert SECRET[:8] not in str(refused.value)


def test_the_wrapping_key_is_not_told(files):
    assert SECRET not in repr(read_wrapping_key(str(files / "key")))
