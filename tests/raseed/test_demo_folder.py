"""What a demo keeps: ports that stay, a busy port said clearly, secrets readable by their owner only."""

import json
import socket
import stat
import tomllib

import pytest

from firmware_sim.town import build_town
from raseed import demo_folder
from raseed.demo_folder import DemoFolder, FolderUnusable, PortBusy
from token_engine.software_vault import SoftwareVault


@pytest.fixture
def folder(tmp_path):
    made = DemoFolder(tmp_path / "demo")
    made.prepare()
    return made


def test_ports_are_remembered_and_all_different(folder):
    first = demo_folder.choose_ports(folder, 0)
    assert len(set(first.values())) == len(first) == 1 + len(demo_folder.HIDDEN_PORTS)
    assert demo_folder.choose_ports(folder, None) == first


def test_a_hidden_port_that_was_taken_meanwhile_moves_and_the_others_stay(folder):
    first = demo_folder.choose_ports(folder, 0)
    with socket.create_server(("127.0.0.1", first["mqtt"])):
        second = demo_folder.choose_ports(folder, None)
    assert second["mqtt"] != first["mqtt"]
    assert {**second, "mqtt": 0} == {**first, "mqtt": 0}


def test_a_busy_port_of_the_pages_is_said_with_what_to_do(folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortBusy, match=rf"port {port} is taken.*--port"):
            demo_folder.choose_ports(folder, port)
    assert not (folder.path / "ports.json").exists()


def test_secrets_stay_and_are_their_owners(folder):
    first = demo_folder.keep_secrets(folder)
    assert demo_folder.keep_secrets(folder) == first
    assert len(set(first.values())) == 2
    passwords = demo_folder.keep_staff_passwords(folder)
    assert demo_folder.keep_staff_passwords(folder) == passwords
    for name in ("secrets.json", "staff.json"):
        assert stat.S_IMODE((folder.path / name).stat().st_mode) == 0o600


def test_a_damaged_file_says_which_and_what_to_do(folder):
    (folder.path / "secrets.json").write_text("{")
    with pytest.raises(FolderUnusable, match=r"secrets.json.*--reset"):
        demo_folder.keep_secrets(folder)


def test_test_keys_open_for_every_meter_of_the_town_and_stay(folder):
    town = build_town()
    demo_folder.keep_test_keys(folder, town)
    before = folder.vault_file.read_bytes()
    demo_folder.keep_test_keys(folder, town)
    assert folder.vault_file.read_bytes() == before
    assert stat.S_IMODE(folder.vault_file.stat().st_mode) == 0o600
    assert "TEST KEYS" in json.loads(before)["note"]
    held = set(SoftwareVault.from_file(folder.vault_file).check_values)
    needed = {(meter.sgc, meter.krn, meter.kt) for meter in town.meters}
    assert needed <= held
    # A recode can be tried, and a meter in stock has a key to come from.
    assert held == {(sgc, krn, kt) for sgc, _krn, _kt in needed for krn in (1, 2) for kt in (1, 2)}


def test_the_site_file_names_every_bus_of_the_town(folder):
    ports = demo_folder.choose_ports(folder, 0)
    demo_folder.write_site_file(folder, ports, "site-1")
    site = tomllib.loads(folder.site_file.read_text())
    assert {bus["code"] for bus in site["bus"]} == {m.bus for m in build_town().meters if m.bus}
    assert site["bus"][0]["address"] == f"127.0.0.1:{ports['tcp-1']}"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderUnusable, match="--data"):
        DemoFolder(tmp_path / "file" / "demo").prepare()
