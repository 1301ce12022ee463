"""The published DKGA04 vectors through a real PKCS#11 module: the same tokens, with the vending key inside it."""

import asyncio
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

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
def fresh_module(tmp_path, monkeypatch):
    """A token of its own; the module reads its configuration once a process, hence the test's own process."""
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


def test_at_least_fifty_published_tokens_come_out_of_the_module(fresh_module, vectors):
    entries = [entry for entry in vectors["sts"] if wanted(entry)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own_process:
        tokens = own_process.submit(tokens_of_the_module, entries).result(timeout=60)
    assert tokens == [entry["expected"] for entry in entries]
    assert len(tokens) >= 50


def tokens_of_the_module(entries) -> list[str]:
    return asyncio.run(issue_all(entries))


async def issue_all(entries) -> list[str]:
    session = open_session(SOFTHSM, "vectors", PIN, writable=True)
    vault, imported, tokens = Pkcs11Vault(session), set(), []
    for number, entry in enumerate(entries):
        meter, given = identity(entry), entry["inputs"]
        place = (meter.sgc, meter.krn, meter.kt, meter.base_date)
        if place not in imported:
            key = VendingKey(VendingKeyMaterial.from_hex(given["vk"]), meter.kt, meter.base_date)
            import_key(session, place[:3], key)
            imported.add(place)
        tid, rnd = _tid(given), given.get("rnd", PUBLISHED_RND)
        name, subclass = f"vector-{number}", given["subclass"]
        if given["class"] == 0:
            issued = await vault.issue_credit(
                CreditRequest(name, meter, subclass, given["amount_tenths"], tid, rnd)
            )
        else:
            value = int(given["value16"], 0)
            issued = await vault.issue_management(ManagementRequest(name, meter, subclass, value, tid, rnd))
        tokens.append(issued.digits)
    vault.close()
    return tokens
