"""The vault's contract: what callers may rely on, whichever vault it is."""

from dataclasses import FrozenInstanceError

import pytest

from token_engine.errors import TokenEngineError
from token_engine.software_vault import SoftwareVault
from token_engine.vault import (
    CreditRequest,
    EngineeringVault,
    IssuedKeyChange,
    IssuedToken,
    VaultRefused,
    VaultTimeout,
    VendingKeyVault,
    largest_not_above,
)


def test_digits_stay_out_of_logs():
    issued = IssuedToken("r", "70630503470028726114", 1, 85740, "ABCDEF")
    assert "7063" not in repr(issued)
    assert "7063" not in repr(IssuedKeyChange("r", ("70630503470028726114",), "A", "B"))


def test_requests_cannot_be_changed_after_they_were_made(meter):
    request = CreditRequest("r", meter, 0, 1, 1, 1)
    with pytest.raises(FrozenInstanceError):
        request.amount = 2


def test_a_software_vault_fits_both_protocols(vault: SoftwareVault):
    plain: VendingKeyVault = vault
    engineering: EngineeringVault = vault
    assert plain is engineering


def test_what_callers_import_from_here_is_the_engines_own():
    assert issubclass(VaultRefused, TokenEngineError)
    assert issubclass(VaultTimeout, TokenEngineError)
    assert largest_not_above(180223) == 180214
