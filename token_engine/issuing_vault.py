"""What every vault does alike around its keys: checks a request, remembers it by id, makes the tokens."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

from token_engine.cipher import PRODUCTION, StaTables
from token_engine.encode import KeyChange, credit_token, key_change_tokens, management_token
from token_engine.errors import InvalidField, TokenEngineError, VaultRefused, VaultTimeout
from token_engine.fields import check_bits, decode_amount, encode_amount
from token_engine.identifiers import (
    EncryptionAlgorithm,
    KeyType,
    MeterKeyIdentity,
    is_reserved_tid,
    key_expired,
)
from token_engine.key_material import DecoderKey
from token_engine.vault import (
    MAX_REQUEST_ID,
    CreditRequest,
    IssuedKeyChange,
    IssuedToken,
    KeyChangeRequest,
    ManagementRequest,
)

# A repeated request makes the same token again (nothing here is random), so forgetting an old one costs
# only the check that its content is the same; the database keeps that for good.
MAX_REMEMBERED = 100_000

Request = CreditRequest | ManagementRequest | KeyChangeRequest
RequestT = TypeVar("RequestT", CreditRequest, ManagementRequest, KeyChangeRequest)
ResultT = TypeVar("ResultT", IssuedToken, IssuedKeyChange)


class IssuingVault(ABC):
    """An EngineeringVault, idempotent by request id, over keys that its kind keeps in its own way.

    `tables` are those of EA07: PRODUCTION, SAMPLE or a set read with StaTables.from_text.
    """

    def __init__(self, tables: StaTables = PRODUCTION) -> None:
        self._tables = tables
        self._issued: OrderedDict[str, tuple[Request, IssuedToken | IssuedKeyChange]] = OrderedDict()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a vault is never pickled or copied")

    @abstractmethod
    async def _decoder_key(self, meter: MeterKeyIdentity) -> DecoderKey:
        """The meter's key. Raises VaultRefused("unknown_key"), InvalidKey, VaultTimeout."""

    @abstractmethod
    def check_value(self, meter: MeterKeyIdentity) -> str:
        """The check value of the vending key this meter needs. Raises VaultRefused("unknown_key")."""

    async def issue_credit(self, request: CreditRequest) -> IssuedToken:
        """See VendingKeyVault.issue_credit."""
        return await self._once(request, self._credit, IssuedToken)

    async def issue_management(self, request: ManagementRequest) -> IssuedToken:
        """See EngineeringVault.issue_management."""
        return await self._once(request, self._management, IssuedToken)

    async def issue_key_change(self, request: KeyChangeRequest) -> IssuedKeyChange:
        """See EngineeringVault.issue_key_change."""
        return await self._once(request, self._key_change, IssuedKeyChange)

    async def fetch_result(self, request_id: str) -> IssuedToken | None:
        """See VendingKeyVault.fetch_result."""
        _, result = self._issued.get(request_id, (None, None))
        return result if isinstance(result, IssuedToken) else None

    async def fetch_key_change(self, request_id: str) -> IssuedKeyChange | None:
        """See EngineeringVault.fetch_key_change."""
        _, result = self._issued.get(request_id, (None, None))
        return result if isinstance(result, IssuedKeyChange) else None

    async def _once(
        self, request: RequestT, make: Callable[[RequestT], Awaitable[ResultT]], kind: type[ResultT]
    ) -> ResultT:
        _check_request_id(request)
        known = self._remembered(request, kind)
        if known is not None:
            return known
        try:
            made = await make(request)
        except (VaultRefused, VaultTimeout):
            raise
        except TokenEngineError as error:
            raise VaultRefused(error.code, str(error)) from None
        return self._remember(request, made)

    def _remember(self, request: Request, made: ResultT) -> ResultT:
        # Another task may have asked under this id while the keys were being fetched: the first one holds.
        known = self._remembered(request, type(made))
        if known is not None:
            return known
        self._issued[request.request_id] = (request, made)
        if len(self._issued) > MAX_REMEMBERED:
            self._issued.popitem(last=False)
        return made

    def _remembered(self, request: Request, kind: type[ResultT]) -> ResultT | None:
        known, result = self._issued.get(request.request_id, (None, None))
        if known is None:
            return None
        if known != request or not isinstance(result, kind):
            raise VaultRefused("other_content", f"request {request.request_id} was made with other content")
        return result

    async def issue_credits(self, requests: Sequence[CreditRequest]) -> list[IssuedToken | VaultRefused]:
        """Many credit tokens in one call, each as issue_credit gives it; a refused one is its refusal.

        EA07 tokens are made together with numpy. Raises VaultTimeout: ask again, with the same ids.
        """
        results: dict[int, IssuedToken | VaultRefused] = {}
        rows: list[tuple[int, CreditRequest, int]] = []
        singly: list[tuple[int, CreditRequest]] = []
        seen = set[str]()
        for place, request in enumerate(requests):
            known = request.request_id in self._issued or request.request_id in seen
            seen.add(request.request_id)
            if known or request.meter.ea is not EncryptionAlgorithm.STA:
                singly.append((place, request))
                continue
            try:
                _check_credit(request)
                key = await self._decoder_key(request.meter)
            except TokenEngineError as error:
                results[place] = _refusal_of(error)
            else:
                rows.append((place, request, int.from_bytes(key.reveal(), "big")))
        for (place, request, _key), digits in zip(rows, self._digits(rows), strict=True):
            carried = decode_amount(encode_amount(request.amount))
            made = IssuedToken(
                request.request_id, digits, carried, request.tid, self.check_value(request.meter)
            )
            try:
                results[place] = self._remember(request, made)
            except VaultRefused as refusal:
                results[place] = refusal
        for place, request in singly:
            try:
                results[place] = await self.issue_credit(request)
            except VaultRefused as refusal:
                results[place] = refusal
        return [results[place] for place in range(len(requests))]

    def _digits(self, rows: Sequence[tuple[int, CreditRequest, int]]) -> list[str]:
        from token_engine.batch import credit_digits  # numpy is loaded only where a fleet is served

        return credit_digits(
            [(key, r.subclass, r.amount, r.tid, r.rnd) for _place, r, key in rows], self._tables
        )

    async def _credit(self, request: CreditRequest) -> IssuedToken:
        meter = request.meter
        carried = _check_credit(request)
        digits = credit_token(
            await self._decoder_key(meter),
            meter.ea,
            subclass=request.subclass,
            amount=request.amount,
            tid=request.tid,
            rnd=request.rnd,
            tables=self._tables,
        )
        return IssuedToken(request.request_id, digits, carried, request.tid, self.check_value(meter))

    async def _management(self, request: ManagementRequest) -> IssuedToken:
        meter = request.meter
        _check_tid(request.tid, meter)
        digits = management_token(
            await self._decoder_key(meter),
            meter.ea,
            subclass=request.subclass,
            value=request.value,
            tid=request.tid,
            rnd=request.rnd,
            tables=self._tables,
        )
        return IssuedToken(request.request_id, digits, request.value, request.tid, self.check_value(meter))

    async def _key_change(self, request: KeyChangeRequest) -> IssuedKeyChange:
        old, new = request.old, request.new
        change = KeyChange(
            old, new, await self._decoder_key(old), await self._decoder_key(new), request.with_sgc
        )
        return IssuedKeyChange(
            request.request_id,
            key_change_tokens(change, self._tables),
            self.check_value(old),
            self.check_value(new),
        )


def _refusal_of(error: TokenEngineError) -> VaultRefused:
    """What one by one would have refused with. Raises VaultTimeout, which is no refusal."""
    if isinstance(error, VaultTimeout):
        raise error
    return error if isinstance(error, VaultRefused) else VaultRefused(error.code, str(error))


def _check_request_id(request: Request) -> None:
    if not 0 < len(request.request_id) <= MAX_REQUEST_ID:
        raise VaultRefused("invalid_request_id", f"a request id has 1 to {MAX_REQUEST_ID} characters")


def _check_credit(request: CreditRequest) -> int:
    """What the token will carry. Raises VaultRefused, InvalidAmount, InvalidField."""
    _check_request_id(request)
    if request.amount < 1:
        raise VaultRefused("invalid_amount", "a credit token carries at least one tenth")
    if request.meter.kt is KeyType.DDTK:
        raise VaultRefused("ddtk_credit", "a meter under a default key (DDTK) takes no credit")
    carried = decode_amount(encode_amount(request.amount))
    _check_tid(request.tid, request.meter)
    if not 0 <= request.subclass <= 3:
        raise InvalidField(f"credit in units has subclass 0 to 3, not {request.subclass}")
    check_bits("rnd", request.rnd, 4)
    check_bits("tid", request.tid, 24)
    return carried


def _check_tid(tid: int, meter: MeterKeyIdentity) -> None:
    if is_reserved_tid(tid):
        raise VaultRefused("reserved_tid", "the TID of 00:01 is kept for special reserved tokens")
    if key_expired(tid, meter.ken):
        raise VaultRefused("key_expired", f"the meter's key expired (KEN {meter.ken}): change the key first")
