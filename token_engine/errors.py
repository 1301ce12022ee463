"""Every way the token engine says no, each with a stable code for callers to match on."""

from typing import ClassVar

from token_engine.token_result import TokenResult


class TokenEngineError(Exception):
    """Any refusal by the token engine; `code` never changes between releases."""

    code: ClassVar[str] = "token_engine_error"


class InvalidIdentity(TokenEngineError):
    """A meter number, supply group, index or key attribute breaks the rule named in `rule`."""

    code: ClassVar[str] = "invalid_identity"

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class InvalidAmount(TokenEngineError):
    """An amount cannot be carried by a token (negative, zero where forbidden, or above the largest)."""

    code: ClassVar[str] = "invalid_amount"


class InvalidTid(TokenEngineError):
    """A token identifier is outside its base date, reserved, or not 24 bits."""

    code: ClassVar[str] = "invalid_tid"


class InvalidKey(TokenEngineError):
    """A key has the wrong size, type or generation for what was asked of it."""

    code: ClassVar[str] = "invalid_key"


class InvalidField(TokenEngineError):
    """A field of a token (class, subclass, nibble, control, flag) is outside its bits."""

    code: ClassVar[str] = "invalid_field"


class InvalidTokenText(TokenEngineError):
    """What a person typed is not 20 digits; `reason` is `letter`, `too_short` or `too_long`."""

    code: ClassVar[str] = "invalid_token_text"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TokenRejected(TokenEngineError):
    """A meter, or the decoder that stands for one, refuses a token with `result` (sts.md 9)."""

    code: ClassVar[str] = "token_rejected"

    def __init__(self, result: TokenResult) -> None:
        super().__init__(f"token rejected: {result.value}")
        self.result = result


class VaultRefused(TokenEngineError):
    """The vault will not issue; `reason` is a stable word (`unknown_key`, `other_content`, ...)."""

    code: ClassVar[str] = "vault_refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class VaultTimeout(TokenEngineError):
    """The vault did not answer in time: the outcome is UNKNOWN, ask again under the same request id."""

    code: ClassVar[str] = "vault_timeout"


class VaultDamaged(TokenEngineError):
    """A key file is truncated, changed, of another version, or opened with the wrong key."""

    code: ClassVar[str] = "vault_damaged"
