from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meter_gateway.broker.broker_ca import Authority, make_ca
from meter_gateway.broker.broker_login import BrokerLogin
from meter_gateway.bus.site_file import InvalidSite
from meter_gateway.edge.outbox import Quota
from meter_gateway.edge.site_settings import list_site_faults, parse_site_settings, read_site_settings

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
BUS = '[[bus]]\ncode = "b"\nframer = "tcp"\naddress = "127.0.0.1:502"\n'
WHOLE = f"""
site = "site-1"
state_dir = "state"

[mqtt]
url = "mqtts://broker.example:8883"
ca_file = "ca.crt"
cert_file = "site-1.crt"
key_file = "/etc/raseed/site-1.key"

[outbox]
max_messages = 1000
max_mb = 2
max_days = 3
file_mb = 64
replay_per_s = 5

{BUS}
"""


def test_a_file_that_holds_all_a_gateway_needs():
    found = parse_site_settings(WHOLE, folder=Path("/etc/site"))
    assert (found.site.code, list(found.site.buses)) == ("site-1", ["b"])
    assert found.mqtt_url == "mqtts://broker.example:8883"
    assert found.login == BrokerLogin(
        ca_file="/etc/site/ca.crt", cert_file="/etc/site/site-1.crt", key_file="/etc/raseed/site-1.key"
    )
    assert found.state_dir == Path("/etc/site/state")
    assert found.quota == Quota(1000, 2 * 2**20, 3 * 86_400_000)
    assert (found.file_bytes, found.history_per_s) == (64 * 2**20, 5.0)


def test_the_environment_counts_more_and_a_short_file_will_do():
    over = BrokerLogin(ca_file="other.crt", user="u", password_file="p")
    found = parse_site_settings(
        WHOLE, folder=Path("/x"), mqtt_url="mqtt://u:secret@h", state_dir="here", login=over
    )
    assert (found.mqtt_url, found.state_dir) == ("mqtt://u:secret@h", Path("here"))
    assert (found.login.ca_file, found.login.cert_file, found.login.user) == (
        "other.crt",
        "/x/site-1.crt",
        "u",
    )
    short = parse_site_settings(
        f'site = "s"\n{BUS}', folder=Path("/x"), mqtt_url="mqtt://h", state_dir="here"
    )
    assert (short.login, short.quota, short.file_bytes) == (BrokerLogin(), Quota(), None)
    assert short.history_per_s is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('url = "mqtts://broker.example:8883"', "", r"no broker is named: add  \[mqtt\] url"),
        ("mqtts://broker.example:8883", "http://broker", "looks like mqtt://"),
        ("mqtts://broker.example:8883", "mqtts://me:secret@broker", "holds a password"),
        ('url = "mqtts', 'password = "x"\nurl = "mqtts', "no secret in this file"),
        ("ca_file", "cafile", "cafile is not known here; there is ca_file"),
        ("max_days", "max_dais", r"\[outbox\] max_dais is not known"),
        ('state_dir = "state"', "", 'add  state_dir = "'),
        ('state_dir = "state"', "state_dir = 3", "state_dir is a text"),
        ("max_mb = 2", "max_mb = 0", "max_mb is a number from 1"),
        ("max_mb = 2", 'max_mb = "2"', "max_mb is a number from 1"),
        ("max_mb = 2", "max_mb = inf", "max_mb is a number from 1 to"),
        ("max_mb = 2", "max_mb = nan", "max_mb is a number from 1 to"),
        ("mqtts://broker.example:8883", "mqtts://[::1", r"\[mqtt\] url"),
        ('site = "site-1"', 'site = "site-1"\nbus = 3', "each begins with"),
        ('site = "site-1"', 'site = "site-1"\nbus = [3]', "each begins with"),
        ("[outbox]", "[outbocks]", "outbocks is not known"),
        ('site = "site-1"', 'site = "site-1"\nmqttt = 1', "mqttt is not known"),
        ('code = "b"', 'kode = "b"', "needs a code"),
        ("site =", "site", "no TOML"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(old, new, said):
    assert old in WHOLE
    text = WHOLE.replace(old, new, 1)
    text = text.replace(BUS, "") if "bus = " in new else text
    with pytest.raises(InvalidSite, match=said):
        parse_site_settings(text, folder=Path("/x"))


def test_a_table_that_is_none():
    with pytest.raises(InvalidSite, match=r"write  \[mqtt\]"):
        parse_site_settings('site = "s"\nmqtt = "mqtt://h"\n', folder=Path("/x"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidSite, match="cannot be read: No such file"):
        read_site_settings(tmp_path / "no.toml")


def test_this_machine_is_looked_at_before_the_start(tmp_path):
    ca = make_ca("test", NOW)
    mine = Authority(ca.certificate, ca.key).issue_client("site-1", NOW, days=90)
    (tmp_path / "ca.crt").write_bytes(ca.certificate)
    (tmp_path / "site-1.crt").write_bytes(mine.certificate)
    (tmp_path / "site-1.key").write_bytes(mine.key)
    (tmp_path / "site-1.key").chmod(0o600)
    text = WHOLE.replace("/etc/raseed/", "")

    def faults(text, now=NOW):
        return list_site_faults(parse_site_settings(text, folder=tmp_path), now)

    assert faults(text) == []
    (tmp_path / "site-1.key").chmod(0o644)
    assert "chmod 600" in faults(text)[0]
    (tmp_path / "site-1.key").chmod(0o600)
    assert "expires in 10 days" in faults(text, NOW + timedelta(days=80))[0]
    rtu = text.replace('framer = "tcp"\naddress = "127.0.0.1:502"', 'framer = "rtu"\ntty = "/dev/ttyNO"')
    assert faults(rtu) == ["bus b: there is no /dev/ttyNO; is the adapter plugged in?"]
    assert "no [[bus]]" in faults(text.replace(BUS, ""))[0]
    assert "cannot be written" in faults(text.replace('"state"', '"ca.crt/state"'))[0]
    plain = text.replace("mqtts://", "mqtt://")
    assert any("not encrypted" in one for one in faults(plain))
    (tmp_path / "site-1.key").unlink()
    assert "cannot be read: No such file" in faults(text)[0]
