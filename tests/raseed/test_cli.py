"""The command line as a newcomer meets it: help for all, a missing setting named, a demo kept to this machine."""

import subprocess
import sys

import pytest

from raseed import cli, roles
from raseed.settings import SettingMissing, read_settings

ROLES = (
    "migrate",
    "portal",
    "worker",
    "headend",
    "gateway",
    "simulate",
    "sandbox-provider",
    "user",
    "demo",
    "token",
)


@pytest.mark.parametrize("name", ROLES)
def test_every_role_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert "usage: raseed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("migrate", "DATABASE_URL"),
        ("portal", "DATABASE_URL"),
        ("worker", "DATABASE_URL"),
        ("headend", "DATABASE_URL"),
        ("gateway", "MQTT_URL"),
        ("simulate", "MQTT_URL"),
        ("sandbox-provider", "RASEED_STATE_DIR"),
    ],
)
def test_a_missing_setting_is_named_with_an_example(name, setting, capsys, monkeypatch):
    for known in ("DATABASE_URL", "MQTT_URL", "RASEED_STATE_DIR"):
        monkeypatch.delenv(known, raising=False)
    assert cli.main([name]) == 2
    said = capsys.readouterr().err
    assert f"{setting} is not set" in said
    assert f"export {setting}=" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_demo_mode_refuses_to_bind_beyond_this_machine(host):
    with pytest.raises(ValueError, match="this machine only"):
        roles.refuse_demo_beyond_loopback(read_settings({"RASEED_DEMO": "1", "RASEED_HOST": host}))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_demo_mode_binds_to_loopback(host):
    roles.refuse_demo_beyond_loopback(read_settings({"RASEED_DEMO": "1", "RASEED_HOST": host}))


def test_without_demo_mode_any_host_will_do():
    roles.refuse_demo_beyond_loopback(read_settings({"RASEED_HOST": "0.0.0.0"}))


def test_a_number_that_is_none_is_named():
    with pytest.raises(ValueError, match="RASEED_PORT must be a number, not 'eighty'"):
        read_settings({"RASEED_PORT": "eighty"})


def test_need_names_the_variable():
    with pytest.raises(SettingMissing, match="MQTT_URL is not set"):
        read_settings({}).need("mqtt_url")


async def test_migrate_by_hand_says_what_it_did(database_url, capsys, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    import threading

    codes = []
    thread = threading.Thread(target=lambda: codes.append(cli.main(["migrate"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert "up to date" in capsys.readouterr().out


def test_outage_without_a_demo_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RASEED_CONTROL_URL", raising=False)
    assert cli.main(["simulate", "outage", "TX-1", "--data", str(tmp_path)]) == 1
    assert "raseed demo" in capsys.readouterr().err


def test_outage_with_a_dead_simulator_says_so(capsys, monkeypatch):
    monkeypatch.setenv("RASEED_CONTROL_URL", "http://127.0.0.1:9")
    assert cli.main(["simulate", "outage", "TX-1"]) == 1
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "env", "name"),
    [
        ([], "", "headend-1"),
        ([], "headend-7", "headend-7"),
        (["--name", "headend-2"], "headend-7", "headend-2"),
    ],
)
def test_each_of_several_headends_has_its_own_name(words, env, name, monkeypatch):
    from meter_gateway import headend

    called = {}

    async def run(**arguments):
        called.update(arguments)

    monkeypatch.setattr(headend, "run", run)
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1/none")
    monkeypatch.setenv("MQTT_URL", "mqtt://127.0.0.1:1")
    monkeypatch.setenv("RASEED_HEADEND_NAME", env)
    assert cli.main(["headend", *words]) == 0
    assert called["name"] == name


@pytest.mark.parametrize("role", sorted(cli.ROLES))
def test_a_role_carries_no_tool_of_a_person(role):
    """What runs for months, and must start quickly after a kill, does not load what only people use."""
    code = (
        "import sys\nfrom raseed import cli\ntry: cli.main([sys.argv[1], '--help'])\n"
        "except SystemExit: pass\nprint(*sys.modules, sep=' ')"
    )
    done = subprocess.run([sys.executable, "-c", code, role], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "raseed.cli" in loaded
    assert not {"psycopg", "pymodbus", "raseed.field_tool", "raseed.keys_tool"} & set(loaded)
