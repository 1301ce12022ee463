"""Keys in a module: a stand-in that can fail in every way, and SoftHSM where this machine has it."""

import asyncio
import hmac
import importlib.util
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from token_engine import pkcs11_vault
from token_engine.errors import InvalidKey, VaultRefused, VaultTimeout
from token_engine.identifiers import KeyType
from token_engine.pkcs11_vault import Pkcs11Vault, import_key, key_label, open_session
from token_engine.vault import CreditRequest, KeyChangeRequest

PIN = "4711-0815"
SOFTHSM = next(
    (
        str(path)
        for folder in ("/usr/lib", "/usr/local/lib")
        for path in Path(folder).glob("**/softhsm/libsofthsm2.so")
    ),
    None,
)
HAS_SOFTHSM = SOFTHSM is not None and importlib.util.find_spec("pkcs11") is not None


class Names:
    """Any attribute is its own name, as an enum's members are."""

    def __getattr__(self, name):
        return name


class StandInSession:
    """A module's session that signs like a module, or does what `fault` says."""

    def __init__(self, module):
        self.module, self.objects, self.fault, self.closed = module, {}, None, False

    def create_object(self, attributes):
        self.objects[attributes["LABEL"]] = attributes

    def get_key(self, object_class, label):
        if label not in self.objects:
            raise self.module.exceptions.NoSuchKey(label)
        secret = self.objects[label]["VALUE"]

        def sign(message, mechanism):
            assert (object_class, mechanism) == ("SECRET_KEY", "SHA256_HMAC")
            if self.fault:
                self.fault()
            return hmac.digest(secret, message, "sha256")

        return SimpleNamespace(sign=sign)

    def close(self):
        self.closed = True


@pytest.fixture
def module(monkeypatch):
    failure = type("PKCS11Error", (RuntimeError,), {})
    missing = type("NoSuchKey", (failure,), {})
    stand_in = SimpleNamespace(
        Attribute=Names(),
        ObjectClass=Names(),
        KeyType=Names(),
        Mechanism=Names(),
        exceptions=SimpleNamespace(PKCS11Error=failure, NoSuchKey=missing),
    )
    session = StandInSession(stand_in)
    token = SimpleNamespace(open=lambda user_pin, rw: session if user_pin == PIN else 1 / 0)
    stand_in.lib = lambda path: SimpleNamespace(get_token=lambda token_label: token)
    monkeypatch.setitem(sys.modules, "pkcs11", stand_in)
    return stand_in


@pytest.fixture
def session(module, vending_keys):
    session = open_session("module.so", "token", PIN, writable=True)
    for address, key in vending_keys.items():
        if address[0] != "123456":  # that group's DKGA02 key may not leave the module, so it never goes in
            import_key(session, address, key)
    return session


def credit(meter, **changes):
    return replace(CreditRequest("vend-1", meter, 0, 1, 85740, 5), **changes)


def refusal(awaitable):
    with pytest.raises(VaultRefused) as refused:
        asyncio.run(awaitable)
    return refused.value.reason


def check_same_tokens(pkcs11_vault_, software, meter, misty_meter):
    """What comes out of a module is what the software vault makes, check values too."""
    for number, subject in enumerate((meter, misty_meter, replace(meter, krn=2))):
        request = credit(subject, request_id=f"vend-{number}")
        assert asyncio.run(pkcs11_vault_.issue_credit(request)) == asyncio.run(software.issue_credit(request))
    request = KeyChangeRequest("kct", meter, replace(meter, krn=3, base_date="35"), with_sgc=True)
    made = asyncio.run(pkcs11_vault_.issue_key_change(request))
    assert made == asyncio.run(software.issue_key_change(request))


def test_same_tokens_as_the_software_vault(session, vault, meter, misty_meter):
    module_vault = Pkcs11Vault(session)
    check_same_tokens(module_vault, vault, meter, misty_meter)
    assert module_vault.check_value(meter) == vault.check_value(meter)
    module_vault.close()
    assert session.closed


def test_a_repeated_request_does_not_ask_the_module_again(session, meter):
    module_vault = Pkcs11Vault(session)
    first = asyncio.run(module_vault.issue_credit(credit(meter)))
    session.objects.clear()
    assert asyncio.run(module_vault.issue_credit(credit(meter))) is first


def test_what_a_module_cannot_do_is_refused(session, meter):
    module_vault = Pkcs11Vault(session)
    assert refusal(module_vault.issue_credit(credit(replace(meter, krn=9)))) == "unknown_key"
    assert refusal(module_vault.issue_credit(credit(replace(meter, dkga=2)))) == "invalid_key"
    assert refusal(module_vault.issue_credit(credit(replace(meter, kt=KeyType.DCTK)))) == "invalid_key"
    with pytest.raises(VaultRefused):
        module_vault.check_value(meter)


def test_a_failing_module_leaves_the_outcome_unknown(session, module, meter):
    def fail():
        raise module.exceptions.PKCS11Error

    module_vault = Pkcs11Vault(session)
    session.fault = fail
    with pytest.raises(VaultTimeout):
        asyncio.run(module_vault.issue_credit(credit(meter)))
    session.fault = None
    assert asyncio.run(module_vault.issue_credit(credit(meter))).digits == "70630503470028726114"


def test_a_hanging_module_times_out_and_the_queue_before_it_is_bounded(session, meter, monkeypatch):
    monkeypatch.setattr(pkcs11_vault, "MAX_WAITING", 1)
    release = threading.Event()
    session.fault = lambda: release.wait(5)
    module_vault = Pkcs11Vault(session, timeout_s=0.02)
    with pytest.raises(VaultTimeout, match="did not answer"):
        asyncio.run(module_vault.issue_credit(credit(meter)))
    with pytest.raises(VaultTimeout, match="too many"):
        asyncio.run(module_vault.issue_credit(credit(meter)))
    release.set()
    module_vault.close()


def test_two_tasks_under_one_id_get_one_answer(session, meter):
    async def both(second):
        module_vault = Pkcs11Vault(session)
        tasks = (module_vault.issue_credit(credit(meter)), module_vault.issue_credit(second))
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second = asyncio.run(both(credit(meter)))
    assert first is second
    answers = asyncio.run(both(credit(meter, amount=2)))
    assert sorted(type(answer).__name__ for answer in answers) == ["IssuedToken", "VaultRefused"]


def test_a_module_that_does_not_open_says_so_without_the_pin(module, monkeypatch):
    with pytest.raises(VaultRefused) as refused:
        open_session("module.so", "token", "wrong-pin")
    assert refused.value.reason == "module"
    assert "wrong-pin" not in str(refused.value)
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(VaultRefused, match="extra"):
        open_session("module.so", "token", PIN)


def test_only_dkga04_keys_go_in(module, vending_keys):
    session = open_session("module.so", "token", PIN)
    address = ("123456", 1, KeyType.DUTK)
    with pytest.raises(InvalidKey):
        import_key(session, address, vending_keys[address])


@pytest.mark.skipif(not HAS_SOFTHSM, reason="needs SoftHSM and the extra `hsm`")
def test_softhsm_makes_the_same_tokens_and_keeps_the_key(
    tmp_path, monkeypatch, vending_keys, vault, meter, misty_meter
):
    config = tmp_path / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tmp_path}\nobjectstore.backend = file\nlog.level = ERROR\n")
    monkeypatch.setitem(os.environ, "SOFTHSM2_CONF", str(config))
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "raseed", "--pin", PIN, "--so-pin", "0000"],
        check=True,
        capture_output=True,
    )
    import pkcs11

    session = open_session(SOFTHSM, "raseed", PIN, writable=True)
    for address, key in vending_keys.items():
        if address[0] != "123456":
            import_key(session, address, key)
    label = key_label(meter.sgc, meter.krn, meter.kt, meter.base_date)
    held = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=label)
    with pytest.raises(pkcs11.exceptions.PKCS11Error):
        held[pkcs11.Attribute.VALUE]
    module_vault = Pkcs11Vault(session)
    check_same_tokens(module_vault, vault, meter, misty_meter)
    module_vault.close()
