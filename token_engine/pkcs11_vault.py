"""Vending keys inside a PKCS#11 module (extra `hsm`): the key signs in there and never comes out.

Only DKGA04, whose rule is one HMAC. DKGA02's vending key enters an xor and would have to leave the module.
The decoder key does leave it, for one call: EA07 and EA11 are not PKCS#11 mechanisms. A platform for live
meters needs a module licensed by the STS Association instead, which makes the whole token inside.
"""

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any

from token_engine.cipher import PRODUCTION, StaTables
from token_engine.decoder_key import VendingKey, dkga04_message
from token_engine.errors import InvalidKey, VaultRefused, VaultTimeout
from token_engine.identifiers import BaseDate, KeyGeneration, KeyType, MeterKeyIdentity
from token_engine.issuing_vault import IssuingVault
from token_engine.key_material import CHECK_LABEL, CHECK_VALUE_BYTES, DecoderKey
from token_engine.vending_key_file import KeyAddress

DEFAULT_TIMEOUT_S = 5.0  # what the serial modules of this trade allow themselves (sts.md 10)
MAX_WAITING = 64  # one session works at a time; more callers than this would wait longer than the time-out
DKGA04_KEY_BYTES = 20
# SoftHSM refuses HMAC keys below 32 bytes; HMAC pads with zeros itself, so these sign the same.
MODULE_KEY_BYTES = 32
LABEL_PREFIX = "raseed-vk"


def key_label(sgc: str, krn: int, kt: KeyType, base_date: BaseDate) -> str:
    """The label under which a vending key is filed in the module."""
    return f"{LABEL_PREFIX}-{sgc}-{krn}-{kt.value}-{base_date.value}"


def open_session(library: str, token_label: str, pin: str, *, writable: bool = False) -> Any:
    """A logged-in session of the module. Raises VaultRefused("module") when it cannot be had."""
    try:
        pkcs11 = importlib.import_module("pkcs11")
    except ImportError:
        raise VaultRefused("module", "the extra `hsm` (python-pkcs11) is not installed") from None
    try:
        token = pkcs11.lib(library).get_token(token_label=token_label)
        return token.open(user_pin=pin, rw=writable)
    except Exception as error:  # noqa: BLE001 - the library raises many kinds; none may carry the PIN along
        raise VaultRefused("module", f"the module does not open: {type(error).__name__}") from None


def import_key(session: Any, address: KeyAddress, vending_key: VendingKey) -> None:
    """Put a DKGA04 TEST key into a module; from then on nobody can read it. Raises InvalidKey."""
    secret = vending_key.material.reveal()
    if len(secret) != DKGA04_KEY_BYTES:
        raise InvalidKey(f"DKGA04 takes a vending key of {DKGA04_KEY_BYTES} bytes")
    pkcs11 = importlib.import_module("pkcs11")
    names = pkcs11.Attribute
    session.create_object(
        {
            names.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            names.KEY_TYPE: pkcs11.KeyType.GENERIC_SECRET,
            names.VALUE: secret.ljust(MODULE_KEY_BYTES, b"\0"),
            names.LABEL: key_label(*address, vending_key.base_date),
            names.TOKEN: True,
            names.PRIVATE: True,
            names.SIGN: True,
            names.SENSITIVE: True,
            names.EXTRACTABLE: False,
        }
    )


class Pkcs11Vault(IssuingVault):
    """A vault over one session of a module; the session is used by one thread, a bounded queue before it."""

    def __init__(
        self, session: Any, timeout_s: float = DEFAULT_TIMEOUT_S, tables: StaTables = PRODUCTION
    ) -> None:
        super().__init__(tables)
        self._session = session
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pkcs11")
        self._places = BoundedSemaphore(MAX_WAITING)
        self._check_values: dict[str, str] = {}

    def close(self) -> None:
        """End the session's thread and the session, without waiting for calls that hang."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    def check_value(self, meter: MeterKeyIdentity) -> str:
        """The check value of this meter's vending key, known once a token was made with it."""
        try:
            return self._check_values[_label_of(meter)]
        except KeyError:
            raise VaultRefused("unknown_key", f"no key {_label_of(meter)} was used yet") from None

    async def _decoder_key(self, meter: MeterKeyIdentity) -> DecoderKey:
        if meter.dkga is not KeyGeneration.DKGA04:
            raise InvalidKey(f"a PKCS#11 vault makes DKGA04 keys, not {meter.dkga.name}")
        if meter.kt not in {KeyType.DDTK, KeyType.DUTK}:
            raise InvalidKey(f"a {meter.kt.name} under DKGA04 has no agreed public source")
        if not self._places.acquire(blocking=False):
            raise VaultTimeout("too many calls wait for the module")
        call = self._thread.submit(self._sign, _label_of(meter), dkga04_message(meter))
        call.add_done_callback(lambda _: self._places.release())
        try:
            digest = await asyncio.wait_for(asyncio.wrap_future(call), self._timeout_s)
        except TimeoutError:
            raise VaultTimeout(f"the module did not answer within {self._timeout_s} s") from None
        return DecoderKey(digest[: meter.ea.key_bytes])

    def _sign(self, label: str, message: bytes) -> bytes:
        """HMAC in the module; runs in the session's own thread. Raises VaultRefused."""
        pkcs11 = importlib.import_module("pkcs11")
        mechanism = pkcs11.Mechanism.SHA256_HMAC
        try:
            key = self._session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=label)
            if label not in self._check_values:
                check = bytes(key.sign(CHECK_LABEL, mechanism=mechanism))
                self._check_values[label] = check[:CHECK_VALUE_BYTES].hex().upper()
            return bytes(key.sign(message, mechanism=mechanism))
        except pkcs11.exceptions.NoSuchKey:
            raise VaultRefused("unknown_key", f"the module holds no key {label}") from None
        except pkcs11.exceptions.PKCS11Error as error:
            # A module that fails after it was asked leaves the outcome unknown: the same id may ask again.
            raise VaultTimeout(f"the module failed: {type(error).__name__}") from None


def _label_of(meter: MeterKeyIdentity) -> str:
    return key_label(meter.sgc, meter.krn, meter.kt, meter.base_date)
