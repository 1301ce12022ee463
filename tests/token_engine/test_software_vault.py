"""The software vault: idempotent, refusing, and silent about its keys."""

import asyncio
import copy
import pickle
import stat
import traceback
from dataclasses import replace

import pytest

from token_engine import issuing_vault, software_vault
from token_engine.acceptance import MeterTokenState, enter
from token_engine.cipher import SAMPLE
from token_engine.decode import decode
from token_engine.errors import InvalidIdentity, InvalidKey, VaultDamaged, VaultRefused
from token_engine.identifiers import BaseDate, KeyType
from token_engine.software_vault import SoftwareVault, write_key_file
from token_engine.vault import CreditRequest, KeyChangeRequest, ManagementRequest

VK20 = "abababababababab949494949494949401234567"


@pytest.fixture
def request_of(meter):
    return lambda **changes: replace(CreditRequest("vend-1", meter, 0, 1, 85740, 5), **changes)


def run(awaitable):
    return asyncio.run(awaitable)


def refusal(awaitable):
    with pytest.raises(VaultRefused) as refused:
        run(awaitable)
    return refused.value


def test_the_published_token_comes_out(vault, request_of, meter):
    issued = run(vault.issue_credit(request_of()))
    assert issued.digits == "70630503470028726114"
    assert (issued.request_id, issued.carried, issued.tid) == ("vend-1", 1, 85740)
    assert issued.key_check_value == vault.check_value(meter)


def test_what_the_token_carries_is_told(vault, request_of, meter):
    issued = run(vault.issue_credit(request_of(amount=16393)))
    assert issued.carried == 16394
    assert decode(issued.digits, vault.decoder_key_for(meter), meter.ea).amount == 16394


def test_the_same_request_gives_the_same_token_and_other_content_is_refused(vault, request_of, meter):
    first = run(vault.issue_credit(request_of()))
    assert run(vault.issue_credit(request_of())) is first
    assert run(vault.fetch_result("vend-1")) is first
    assert run(vault.fetch_result("vend-2")) is None
    assert refusal(vault.issue_credit(request_of(amount=2))).reason == "other_content"
    assert (
        refusal(vault.issue_management(ManagementRequest("vend-1", meter, 5, 0, 85741, 5))).reason
        == "other_content"
    )
    assert run(vault.fetch_key_change("vend-1")) is None


def test_a_refused_request_leaves_its_id_free(vault, request_of):
    assert refusal(vault.issue_credit(request_of(rnd=16))).reason == "invalid_field"
    assert run(vault.fetch_result("vend-1")) is None
    assert run(vault.issue_credit(request_of())).digits == "70630503470028726114"


@pytest.mark.parametrize(
    ("changes", "identity", "reason"),
    [
        ({"request_id": ""}, {}, "invalid_request_id"),
        ({"request_id": "x" * 129}, {}, "invalid_request_id"),
        ({"amount": 0}, {}, "invalid_amount"),
        ({"amount": -5}, {}, "invalid_amount"),
        ({"amount": 18201625}, {}, "invalid_amount"),
        ({"subclass": 4}, {}, "invalid_field"),
        ({"tid": -1}, {}, "invalid_field"),
        ({"tid": 1 << 24}, {"ken": 255}, "key_expired"),
        ({"tid": 1440 * 3 + 1}, {}, "reserved_tid"),
        ({"tid": 70_000}, {"ken": 0}, "key_expired"),
        ({}, {"kt": KeyType.DDTK}, "ddtk_credit"),
        ({}, {"krn": 9}, "unknown_key"),
        ({}, {"sgc": "999999"}, "unknown_key"),
        ({}, {"base_date": BaseDate.Y2035}, "invalid_key"),
        ({}, {"dkga": 1}, "invalid_key"),
    ],
)
def test_refusals_have_stable_reasons(vault, request_of, meter, changes, identity, reason):
    assert (
        refusal(vault.issue_credit(request_of(meter=replace(meter, **identity), **changes))).reason == reason
    )


def test_engineering_tokens(vault, meter):
    issued = run(vault.issue_management(ManagementRequest("eng-1", meter, 1, 7, 6441685, 5)))
    assert (issued.digits, issued.carried) == ("68665590594316803019", 7)
    assert (
        refusal(vault.issue_management(ManagementRequest("eng-2", meter, 3, 7, 6441685, 5))).reason
        == "invalid_field"
    )
    assert (
        refusal(vault.issue_management(ManagementRequest("eng-2", meter, 5, 0, 1441, 5))).reason
        == "reserved_tid"
    )


def test_a_key_change_set_moves_a_meter(vault, meter):
    new = replace(meter, sgc="203557", krn=6, ti=2, base_date=BaseDate.Y2035)
    request = KeyChangeRequest("kct-1", meter, new, with_sgc=True)
    issued = run(vault.issue_key_change(request))
    assert run(vault.issue_key_change(request)) is issued
    assert run(vault.fetch_key_change("kct-1")) is issued
    assert run(vault.fetch_result("kct-1")) is None
    assert issued.new_key_check_value == vault.check_value(new)
    state = MeterTokenState(meter, vault.decoder_key_for(meter))
    for digits in issued.digits:
        state, outcome = enter(state, digits, BaseDate.Y2014.instant)
        assert outcome.result.is_accepted
    assert (state.identity, state.decoder_key) == (new, vault.decoder_key_for(new))


def test_the_cipher_tables_are_a_choice(vending_keys, request_of, meter):
    sample = SoftwareVault(vending_keys, SAMPLE)
    issued = run(sample.issue_credit(request_of()))
    assert issued.digits != "70630503470028726114"
    state = MeterTokenState(meter, sample.decoder_key_for(meter))
    assert enter(state, issued.digits, BaseDate.Y2014.instant, tables=SAMPLE)[1].result.is_accepted
    assert not enter(state, issued.digits, BaseDate.Y2014.instant)[1].result.is_accepted


def test_keys_show_nowhere(vault, request_of, meter):
    texts = [repr(vault), str(vault.check_values)]
    try:
        run(vault.issue_credit(request_of(rnd=99)))
    except VaultRefused as error:
        report = traceback.TracebackException.from_exception(error, capture_locals=True)
        texts += list(report.format())
    secrets = [VK20, str(int(VK20, 16)), "87f3ecbb2e46b48f", str(0x87F3ECBB2E46B48F), "\\xab\\xab"]
    for text in texts:
        assert not [secret for secret in secrets if secret in text.lower()]
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(vault)


def test_old_results_are_forgotten_but_come_out_the_same(vault, request_of, monkeypatch):
    monkeypatch.setattr(issuing_vault, "MAX_REMEMBERED", 2)
    first = run(vault.issue_credit(request_of()))
    for number in range(3):
        run(vault.issue_credit(request_of(request_id=f"later-{number}", tid=90000 + number)))
    assert run(vault.fetch_result("vend-1")) is None
    assert run(vault.issue_credit(request_of())) == first


def test_a_key_filed_wrongly_is_refused(vending_keys):
    key = vending_keys["201457", 1, KeyType.DUTK]
    with pytest.raises(InvalidKey):
        SoftwareVault({("201457", 1, KeyType.DDTK): key})
    with pytest.raises(InvalidIdentity):
        SoftwareVault({("2014", 1, KeyType.DUTK): key})
    with pytest.raises(InvalidIdentity):
        SoftwareVault({("201457", 0, KeyType.DUTK): key})


def test_a_vault_is_bounded(vending_keys, monkeypatch):
    monkeypatch.setattr(software_vault, "MAX_KEYS", 2)
    with pytest.raises(VaultRefused) as refused:
        SoftwareVault(vending_keys)
    assert refused.value.reason == "too_many_keys"


def test_a_key_file_comes_back_and_is_private(tmp_path, vending_keys, vault):
    path = tmp_path / "keys.json"
    write_key_file(path, vending_keys)
    assert SoftwareVault.from_file(path).check_values == vault.check_values
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "TEST KEYS" in path.read_text("utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(VaultDamaged, match="cannot be read"):
        SoftwareVault.from_file(tmp_path / "absent.json")
    path = tmp_path / "large.json"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr(software_vault, "MAX_FILE_BYTES", 99)
    with pytest.raises(VaultDamaged, match="larger"):
        SoftwareVault.from_file(path)
