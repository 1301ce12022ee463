import pytest
from cryptography import x509

from raseed import cli


@pytest.fixture
def authority(tmp_path, capsys):
    folder = tmp_path / "ca"
    assert cli.main(["gateway", "authority", str(folder)]) == 0
    capsys.readouterr()
    return folder


def issue(authority, *argv):
    return cli.main(
        ["gateway", "certificate", *argv, "--authority", str(authority), "--output", str(authority)]
    )


def test_keys_are_readable_by_their_owner_only(authority):
    assert issue(authority, "site-1") == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in authority.iterdir()}
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {
        "ca.crt": 0o644,
        "revoked.pem": 0o644,
        "site-1.crt": 0o644,
    }
    assert modes["ca.key"] == modes["site-1.key"] == 0o600


def test_an_authority_is_made_once(authority, capsys):
    before = (authority / "ca.key").read_bytes()
    assert cli.main(["gateway", "authority", str(authority)]) == 2
    assert "would be void" in capsys.readouterr().err
    assert (authority / "ca.key").read_bytes() == before


def revoked(authority):
    return {one.serial_number for one in x509.load_pem_x509_crl((authority / "revoked.pem").read_bytes())}


def test_revoking_a_name_revokes_all_its_certificates_and_keeps_earlier_ones(authority, capsys):
    for name in ("site-1", "site-1", "site-2"):
        assert issue(authority, name) == 0
    assert revoked(authority) == set()
    argv = ["gateway", "revoke", "site-1", "--authority", str(authority)]
    assert cli.main(argv) == 0
    assert "2 certificates of site-1 revoked" in capsys.readouterr().out
    first = revoked(authority)
    assert len(first) == 2
    assert cli.main(argv) == 2
    assert issue(authority, "site-1") == 0
    assert cli.main(argv) == 0
    assert revoked(authority) > first
    assert len(revoked(authority)) == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["site 1"], "no name"),
        (["site-1", "site-2"], "ask for each by itself"),
        (["site-1", "--request", "/nowhere/x.csr"], "No such file"),
    ],
)
def test_what_cannot_be_issued_is_said(authority, argv, said, capsys):
    assert issue(authority, *argv) == 2
    assert said in capsys.readouterr().err


def test_without_an_authority(tmp_path, capsys):
    assert issue(tmp_path, "site-1") == 2
    assert "holds no authority" in capsys.readouterr().err
