"""The recode of the check has what it needs: a second meter on each wire, and the next revision's keys."""

from firmware_sim.town import build_town
from raseed import demo_folder
from raseed.check_keys import WIRES
from raseed.check_town import CheckTown
from raseed.demo_folder import DemoFolder
from token_engine.identifiers import KeyType
from token_engine.software_vault import SoftwareVault


def test_there_is_a_meter_of_its_own_on_each_wire_and_a_key_for_it(tmp_path):
    town = CheckTown.__new__(CheckTown)
    town.town = build_town()
    meters = [town.meter(commodity, wire, skip=1) for commodity, wire in WIRES]
    assert len({meter.drn for meter in meters}) == len(WIRES)
    assert {meter.kt for meter in meters} == {2}
    (tmp_path / "demo" / "keys").mkdir(parents=True)
    folder = DemoFolder(tmp_path / "demo")
    demo_folder.keep_test_keys(folder, town.town)
    held = SoftwareVault.from_file(folder.vault_file).check_values
    assert all((meter.sgc, meter.krn + 1, KeyType.DUTK) in held for meter in meters)
