"""`raseed gateway` as an operator uses it: a checked site file, and a gateway that lives on it alone."""

import asyncio
import os
import shutil
import subprocess
import sys

import pytest

from meter_gateway.edge.site_settings import parse_site_settings
from raseed import cli
from tests.meter_gateway.device import Bus, Meter
from tests.meter_gateway.places import make_modbus_meter, make_site
from tests.meter_gateway.roles import TOP, until
from tests.meter_gateway.secure_broker import SecureBroker

DRN = "06000000029"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in [*os.environ]:
        if name.startswith(("MQTT_", "RASEED_")) and name != "RASEED_TEST_DATABASE_URL":
            monkeypatch.delenv(name)


def site_text(port, more=""):
    return (
        f'site = "site-1"\nstate_dir = "state"\n{more}\n'
        f'[[bus]]\ncode = "tcp-1"\nframer = "tcp"\naddress = "127.0.0.1:{port}"\n'
    )


def test_check_says_what_is_wrong_and_starts_nothing(tmp_path, capsys):
    file = tmp_path / "site.toml"
    argv = ["gateway", "run", "--check", "--config", str(file)]
    assert cli.main(argv) == 1
    assert "site.toml cannot be read" in capsys.readouterr().err
    file.write_text(site_text(502, '[mqtt]\nurl = "mqtts://broker.example"\nca_file = "ca.crt"\n'))
    assert cli.main(argv) == 1
    assert "the CA file" in capsys.readouterr().err
    file.write_text(site_text(502, '[mqtt]\nurl = "mqtts://broker.example"\n'))
    assert cli.main(argv) == 0
    assert "site site-1, buses tcp-1: nothing is wrong" in capsys.readouterr().out
    assert not (tmp_path / "state").exists()


def test_both_ways_of_naming_the_file_are_understood(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "raseed.roles.run_gateway", lambda options, _settings: seen.append(options.config) or 0
    )
    for argv in (
        ["gateway", "--config", "a.toml"],
        ["gateway", "run", "--config", "b.toml"],
        ["gateway", "--config", "c.toml", "run"],
        ["gateway", "run"],
    ):
        assert cli.main(argv) == 0
    assert seen == ["a.toml", "b.toml", "c.toml", None]


def test_the_contract_is_printed(capsys):
    assert cli.main(["gateway", "asyncapi"]) == 0
    assert capsys.readouterr().out == (TOP / "docs/asyncapi.yaml").read_text("utf-8")


def test_the_examples_of_a_site_are_understood(monkeypatch):
    deploy = TOP / "deploy/gateway"
    found = parse_site_settings((deploy / "site.toml").read_text(), folder=deploy)
    assert sorted(found.site.buses) == ["rtu-1", "tcp-1"]
    lines = (deploy / "raseed-gateway.service").read_text().splitlines()
    commands = [line.partition("=")[2].lstrip("-").split() for line in lines if line.startswith("ExecStart")]
    assert len(commands) == 2
    started = []
    monkeypatch.setattr(
        "raseed.roles.run_gateway", lambda options, _settings: started.append(options.config) or 0
    )
    assert [cli.main(one[1:]) for one in commands] == [1, 0], (
        "there is no such file here, which the check says"
    )
    assert started == ["/etc/raseed/site.toml"]


def start(log, env, *argv):
    return subprocess.Popen(
        [sys.executable, "-m", "raseed", *argv],
        cwd=TOP,
        env={**os.environ, **env},
        stderr=log.open("ab"),
        stdout=subprocess.DEVNULL,
    )


async def run_tool(*argv):
    assert await asyncio.to_thread(cli.main, list(argv)) == 0


async def test_a_remote_site_lives_on_its_file_with_only_a_broker_in_reach(
    conn, database_url, tmp_path, monkeypatch
):
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    _, bus_id = await make_site(conn, poll_ms=200)
    await make_modbus_meter(conn, bus_id, DRN)
    await conn.commit()
    monkeypatch.setenv("DATABASE_URL", database_url)
    ca, site = tmp_path / "ca", tmp_path / "site"
    await run_tool("gateway", "authority", str(ca))
    for name, folder in (("site-1", site), ("headend-1", tmp_path / "headend")):
        await run_tool("gateway", "certificate", name, "--authority", str(ca), "--output", str(folder))
    broker = SecureBroker(tmp_path / "broker", ["nobody"])
    await run_tool(
        *("gateway", "certificate", "--broker", "localhost"),
        *("--authority", str(ca), "--output", str(broker.folder)),
    )
    await run_tool("gateway", "acl", "--output", str(broker.folder / "acl"))
    for name in ("ca.crt", "revoked.pem"):
        shutil.copy(ca / name, broker.folder / name)
    shutil.copy(ca / "ca.crt", site / "ca.crt")
    broker.start()
    log = tmp_path / "log"
    headend_env = {
        "MQTT_URL": broker.url,
        "MQTT_CA_FILE": str(ca / "ca.crt"),
        "MQTT_CERT_FILE": str(tmp_path / "headend/headend-1.crt"),
        "MQTT_KEY_FILE": str(tmp_path / "headend/headend-1.key"),
        "MQTT_SHARE_GROUP": "our-own-word",
    }
    async with Bus({1: Meter(DRN)}, "tcp") as bus:
        mqtt = f'[mqtt]\nurl = "{broker.url}"\nca_file = "ca.crt"\ncert_file = "site-1.crt"\nkey_file = "site-1.key"\n'
        (site / "site.toml").write_text(site_text(bus.port, mqtt))
        await run_tool("gateway", "run", "--check", "--config", str(site / "site.toml"))
        gateway_env = {"DATABASE_URL": "", "MQTT_URL": ""}
        processes = [
            start(log, headend_env, "headend"),
            start(log, gateway_env, "gateway", "run", "--config", str(site / "site.toml")),
        ]
        try:

            async def is_read():
                cursor = await conn.execute("SELECT count(DISTINCT channel) FROM meter_gateway.reading")
                return (await cursor.fetchone())[0] >= 4

            await until(is_read, seconds=25)
        except AssertionError:
            raise AssertionError(log.read_text()) from None
        finally:
            for process in processes:
                process.kill()
                process.wait()
            broker.kill()
    assert (site / "state/gateway-site-1.sqlite").exists()
    assert "PRIVATE" not in log.read_text()


async def test_an_acl_from_the_books(conn, database_url, capsys, monkeypatch):
    await make_site(conn, "site-7")
    await conn.commit()
    monkeypatch.setenv("DATABASE_URL", database_url)
    await run_tool("gateway", "acl", "--headend", "head-a", "--headend", "head-b")
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line.startswith("user")] == [
        "user head-a",
        "user head-b",
        "user site-7",
    ]
    assert await asyncio.to_thread(cli.main, ["gateway", "acl", "--headend", "site-7"]) == 2
    assert "rename the headend" in capsys.readouterr().err
