"""What all vaults share, seen through one whose keys can be made to fail."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_engine.decoder_key import VendingKey
from token_engine.errors import VaultRefused, VaultTimeout
from token_engine.identifiers import BaseDate, EncryptionAlgorithm, KeyGeneration, KeyType, MeterKeyIdentity
from token_engine.issuing_vault import IssuingVault
from token_engine.key_material import VendingKeyMaterial
from token_engine.software_vault import SoftwareVault
from token_engine.vault import CreditRequest


class SlowVault(SoftwareVault):
    """Times out as often as it is told, then answers."""

    time_outs = 1

    async def _decoder_key(self, meter):
        if self.time_outs:
            self.time_outs -= 1
            raise VaultTimeout("no answer")
        return await super()._decoder_key(meter)


def test_a_time_out_is_asked_again_under_the_same_id(vending_keys, meter):
    vault = SlowVault(vending_keys)
    request = CreditRequest("vend-1", meter, 0, 1, 85740, 5)
    with pytest.raises(VaultTimeout):
        asyncio.run(vault.issue_credit(request))
    assert asyncio.run(vault.fetch_result("vend-1")) is None
    assert asyncio.run(vault.issue_credit(request)).digits == "70630503470028726114"


def test_a_kind_of_vault_must_say_where_its_keys_are():
    with pytest.raises(TypeError):
        IssuingVault()


KEYS = {
    ("201457", 1, kt): VendingKey(VendingKeyMaterial(bytes(range(kt, kt + 20))), kt, BaseDate.Y2014)
    for kt in (KeyType.DDTK, KeyType.DUTK)
}
PANS = ("600727000000000009", "600727123456789034")
METERS = st.builds(
    MeterKeyIdentity,
    pan=st.sampled_from(PANS[:1]),
    sgc=st.just("201457"),
    ti=st.sampled_from([1, 99]),
    krn=st.sampled_from([1, 1, 1, 2]),
    kt=st.sampled_from([KeyType.DUTK, KeyType.DUTK, KeyType.DDTK]),
    ken=st.sampled_from([255, 0]),
    ea=st.sampled_from([EncryptionAlgorithm.STA, EncryptionAlgorithm.STA, EncryptionAlgorithm.MISTY1]),
    dkga=st.just(KeyGeneration.DKGA04),
    base_date=st.just(BaseDate.Y2014),
)
REQUESTS = st.builds(
    CreditRequest,
    request_id=st.text("abc", max_size=3),
    meter=METERS,
    subclass=st.integers(-1, 5),
    amount=st.one_of(st.integers(-1, 20_000), st.sampled_from([1_818_600, 18_201_624, 18_201_625])),
    tid=st.one_of(st.integers(0, 0xFFFFFF), st.sampled_from([1, 1441, -1, 1 << 24])),
    rnd=st.integers(-1, 16),
)


def one_by_one(vault, request):
    try:
        return asyncio.run(vault.issue_credit(request))
    except VaultRefused as refusal:
        return refusal.reason


@settings(max_examples=300, deadline=None)
@given(st.lists(REQUESTS, max_size=12))
def test_a_batch_is_what_one_by_one_is(requests):
    single, together = SoftwareVault(KEYS), SoftwareVault(KEYS)
    batch = asyncio.run(together.issue_credits(requests))
    assert len(batch) == len(requests)
    given_ = [answer.reason if isinstance(answer, VaultRefused) else answer for answer in batch]
    assert given_ == [one_by_one(single, request) for request in requests]


def test_a_batch_is_idempotent_and_times_out_whole(vending_keys, meter):
    vault = SlowVault(vending_keys)
    requests = [CreditRequest(f"free-{n}", meter, 0, 1 + n, 85740 + n, 5) for n in range(3)]
    with pytest.raises(VaultTimeout):
        asyncio.run(vault.issue_credits(requests))
    first = asyncio.run(vault.issue_credits(requests))
    assert first[0].digits == "70630503470028726114"
    assert asyncio.run(vault.issue_credits(requests)) == first
    changed = asyncio.run(vault.issue_credits([replace(requests[0], amount=9)]))
    assert changed[0].reason == "other_content"
