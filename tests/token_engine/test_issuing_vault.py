"""What all vaults share, seen through one whose keys can be made to fail."""

import asyncio

import pytest

from token_engine.errors import VaultTimeout
from token_engine.issuing_vault import IssuingVault
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
