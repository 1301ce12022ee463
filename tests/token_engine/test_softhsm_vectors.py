"""The published DKGA04 vectors through a real PKCS#11 module: the same tokens, with the vending key inside it."""

import os
import subprocess

import pytest

from tests.token_engine.test_pkcs11_vault import HAS_SOFTHSM, PIN, SOFTHSM
from token_engine.conformance import _tid
from token_engine.decoder_key import VendingKey
from token_engine.identifiers import BaseDate, EncryptionAlgorithm, KeyGeneration, KeyType, MeterKeyIdentity
from token_engine.key_material import VendingKeyMaterial
from token_engine.pkcs11_vault import Pkcs11Vault, import_key, open_session
from token_engine.vault import CreditRequest, ManagementRequest

PUBLISHED_RND = 5  # what every published vector uses, named or not
MANAGED = {0, 1, 5, 6, 10}


def wanted(entry) -> bool:
    if entry["algorithm"] not in ("DKGA04/EA07", "DKGA04/EA11"):
        return False
    given = entry["inputs"]
    kind = given["class"], given["subclass"]
    return (kind[0] == 0 and kind[1] <= 3) or (kind[0] == 2 and kind[1] in MANAGED)


@pytest.fixture
def session(tmp_path, monkeypatch):
    if not HAS_SOFTHSM:
        reason = "needs Debian's softhsm2 and the extra `hsm`"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and CI must have them")
        pytest.skip(reason)
    config = tmp_path / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tmp_path}\nobjectstore.backend = file\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(config))
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "vectors",
        "--pin",
        PIN,
        "--so-pin",
        "0000",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return open_session(SOFTHSM, "vectors", PIN, writable=True)


def identity(entry) -> MeterKeyIdentity:
    given = entry["inputs"]
    ea = EncryptionAlgorithm.MISTY1 if entry["algorithm"].endswith("EA11") else EncryptionAlgorithm.STA
    return MeterKeyIdentity(
        pan=given["pan"],
        sgc=given["sgc"],
        ti=int(given["ti"]),
        krn=given["krn"],
        kt=KeyType(given["kt"]),
        ken=255,
        ea=ea,
        dkga=KeyGeneration.DKGA04,
        base_date=BaseDate(given["bd"]),
    )


async def test_at_least_fifty_published_tokens_come_out_of_the_module(session, vectors):
    entries = [entry for entry in vectors["sts"] if wanted(entry)]
    vault = Pkcs11Vault(session)
    imported, same = set(), 0
    for number, entry in enumerate(entries):
        meter, given = identity(entry), entry["inputs"]
        place = (meter.sgc, meter.krn, meter.kt, meter.base_date)
        if place not in imported:
            key = VendingKey(VendingKeyMaterial.from_hex(given["vk"]), meter.kt, meter.base_date)
            import_key(session, place[:3], key)
            imported.add(place)
        request_id = f"vector-{number}"
        if given["class"] == 0:
            request = CreditRequest(
                request_id,
                meter,
                given["subclass"],
                given["amount_tenths"],
                _tid(given),
                given.get("rnd", PUBLISHED_RND),
            )
            issued = await vault.issue_credit(request)
        else:
            value = int(given["value16"], 0)
            issued = await vault.issue_management(
                ManagementRequest(
                    request_id, meter, given["subclass"], value, _tid(given), given.get("rnd", PUBLISHED_RND)
                )
            )
        assert issued.digits == entry["expected"], entry["source"]
        same += 1
    vault.close()
    assert same >= 50
