"""Who is let in, and what is said to who is not: on a real mosquitto with TLS, certificates and rules."""

import asyncio
import logging
import shutil
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from meter_gateway.broker import mqtt_link
from meter_gateway.broker.broker_ca import Authority, make_ca
from meter_gateway.broker.broker_login import (
    BrokerLogin,
    InvalidLogin,
    explain,
    list_faults,
    make_context,
    read_password,
)
from meter_gateway.broker.mqtt_link import Incoming, MqttLink
from tests.meter_gateway.roles import until
from tests.meter_gateway.secure_broker import SecureBroker

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    running = SecureBroker(tmp_path_factory.mktemp("broker"), ["site-1", "site-2"])
    running.set_password("06000000011", "a secret")
    running.start()
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(mqtt_link, "RECONNECT_MIN_S", 0.05)
    monkeypatch.setattr(mqtt_link, "RECONNECT_MAX_S", 0.1)


@asynccontextmanager
async def link_of(url, login, name="site-1", subscriptions=()):
    link = MqttLink(url, client_id=name, subscriptions=list(subscriptions), login=login)
    await link.start()
    try:
        yield link
    finally:
        await link.stop()


async def connected(link):
    async def is_connected():
        return link.connected

    await until(is_connected, seconds=5)


async def refusal(caplog, url, login, wanted):
    """What is said about a connection that must fail, at the first try or, when an alert came too late, at a later one."""
    caplog.set_level(logging.WARNING)

    def said():
        return "\n".join(
            one.getMessage() for one in caplog.records if "no connection to the broker" in one.getMessage()
        )

    async with link_of(url, login, "site-1") as link:

        async def is_said():
            return wanted in said()

        await until(is_said, seconds=10)
        assert not link.connected
    return said()


async def test_the_right_certificate_is_let_in_under_its_name(broker):
    async with link_of(broker.url, broker.login("site-1"), "any-id-at-all") as link:
        await connected(link)
        assert "as site-1 " in broker.log


async def test_a_password_is_let_in_at_its_own_door(broker, tmp_path, caplog):
    password = tmp_path / "password"
    password.write_text("a secret\n")
    url = f"mqtts://localhost:{broker.password_port}"
    login = BrokerLogin(
        user="06000000011", password_file=str(password), ca_file=str(broker.folder / "ca.crt")
    )
    async with link_of(url, login) as link:
        await connected(link)
    password.write_text("another\n")
    said = await refusal(caplog, url, login, "password file")
    assert "06000000011" in said


async def test_without_a_certificate(broker, caplog):
    bare = BrokerLogin(ca_file=str(broker.folder / "ca.crt"))
    assert await refusal(caplog, broker.url, bare, "set cert_file and key_file")


async def test_a_certificate_of_another_authority(broker, caplog):
    other = make_ca("another", NOW)
    stranger = Authority(other.certificate, other.key).issue_client("site-1", NOW)
    assert await refusal(caplog, broker.url, broker.login("site-1", stranger), "issued by the broker's CA")


async def test_an_expired_certificate(broker, caplog):
    old = broker.authority.issue_client("site-1", NOW - timedelta(days=40), days=39)
    assert await refusal(
        caplog, broker.url, broker.login("site-1", old), "site-1.crt has expired: issue a new one"
    )


async def test_a_revoked_certificate_and_a_new_one_taken_up_without_a_restart(broker, caplog):
    lost = broker.authority.issue_client("site-1", NOW)
    login = broker.login("site-1", lost)
    broker.write("revoked.pem", broker.authority.revoke([(lost.serial, NOW)], NOW))
    broker.reload()
    caplog.set_level(logging.WARNING)
    async with link_of(broker.url, login) as link:

        async def is_said():
            return "was revoked: issue a new one" in caplog.text

        await until(is_said, seconds=5)
        broker.login("site-1")  # into the same files
        await connected(link)


async def test_a_certificate_for_another_name_is_let_in_and_told_that_it_may_not_speak(broker, caplog):
    caplog.set_level(logging.ERROR)
    async with link_of(broker.url, broker.login("site-2"), "site-1") as link:
        await connected(link)
        assert link.publish("rsd/1/up/site-1/birth", b"{}")
        assert link.publish("rsd/1/up/site-1/birth", b"{}")

        async def is_said():
            return "does not let us speak" in caplog.text

        await until(is_said, seconds=5)
        await asyncio.sleep(0.1)
        assert caplog.text.count("does not let us speak") == 1
        assert "site-2.crt made for this name" in caplog.text


async def test_a_broker_of_another_authority_and_under_another_name(broker, caplog, tmp_path):
    other = tmp_path / "other.crt"
    other.write_bytes(make_ca("another", NOW).certificate)
    mine = broker.login("site-1")
    theirs = BrokerLogin("", "", str(other), mine.cert_file, mine.key_file)
    assert "MQTT_CA_FILE" in await refusal(caplog, broker.url, theirs, f"not signed by {other}")
    caplog.clear()
    said = await refusal(caplog, broker.url.replace("localhost", "127.0.0.1"), mine, "made for")
    assert "another" in said


async def test_a_port_without_tls_or_without_a_broker(broker, caplog):
    from tests.meter_gateway.conftest import free_port

    nobody = f"mqtts://localhost:{free_port()}"
    assert await refusal(caplog, nobody, broker.login("site-1"), "nothing listens there")


async def test_a_message_goes_through_and_nothing_of_the_secret_is_logged(broker, caplog):
    caplog.set_level(logging.DEBUG)
    headend = broker.login("headend-1")
    async with (
        link_of(broker.url, headend, "headend-1", ["$share/ingest/rsd/1/up/+/+"]) as platform,
        link_of(broker.url, broker.login("site-1"), "site-1") as edge,
    ):
        await connected(platform)
        await connected(edge)
        await asyncio.sleep(0.2)
        assert edge.publish("rsd/1/up/site-1/data", b"hello")
        while not isinstance(event := await platform.next_event(), Incoming):
            pass
        assert event.payload == b"hello"
    assert "PRIVATE" not in caplog.text


def test_files_that_cannot_be_used_are_named_with_what_is_wrong(broker, tmp_path):
    mine, other = broker.login("site-1"), broker.login("site-2")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(InvalidLogin, match="is empty"):
        read_password(str(empty))
    with pytest.raises(InvalidLogin, match="nowhere cannot be read"):
        read_password(str(tmp_path / "nowhere"))
    for login, text in (
        (BrokerLogin(ca_file=str(tmp_path / "no")), "the CA file"),
        (BrokerLogin(ca_file=str(empty)), "the CA file"),
        (BrokerLogin(cert_file=mine.cert_file), "needs both"),
        (BrokerLogin(cert_file=mine.cert_file, key_file=other.key_file), "is not the key of"),
        (BrokerLogin(cert_file=str(empty), key_file=mine.key_file), "cannot be used"),
        (BrokerLogin(cert_file=str(tmp_path / "no"), key_file=mine.key_file), "cannot be"),
    ):
        with pytest.raises(InvalidLogin, match=text):
            make_context(login)


def test_faults_are_listed_before_they_cost_a_journey(broker, tmp_path):
    now = datetime.now(UTC)  # after the broker's certificates were made
    mine = broker.login("site-2")
    assert list_faults(mine, is_tls=True, now=now) == []
    assert list_faults(mine, is_tls=True, now=now, name="site-2") == []
    assert (
        "is made for CN=site-2, not for site-1" in list_faults(mine, is_tls=True, now=now, name="site-1")[0]
    )
    assert "write mqtts://" in list_faults(mine, is_tls=False, now=now)[0]
    later = now + timedelta(days=824)
    assert any("expires in" in one for one in list_faults(mine, is_tls=True, now=later))
    assert any(
        "has expired on" in one for one in list_faults(mine, is_tls=True, now=now + timedelta(days=900))
    )
    assert any("clock right" in one for one in list_faults(mine, is_tls=True, now=now - timedelta(days=900)))
    assert "belong together" in list_faults(BrokerLogin(user="x"), is_tls=False, now=now)[0]


def test_what_is_not_known_is_said_as_it_came():
    assert explain("strange", BrokerLogin()) == "strange"
    assert "its log says why" in explain("EOF occurred in violation of protocol", BrokerLogin())
    assert "another name" in explain("Hostname mismatch, certificate is not valid for 'x'", BrokerLogin())
    assert "our certificate has expired" in explain("sslv3 alert certificate expired", BrokerLogin())
    assert "the broker's certificate has expired" in explain(
        "certificate verify failed: certificate has expired", BrokerLogin()
    )
