"""A small authority of our own: certificates by which gateways, meters and headends prove their names to the broker."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Outlives any certificate that it signs.
CA_DAYS: Final = 3650
# Half of a meter's life would be too long for a lost key, a year too short for a site that nobody visits.
DAYS: Final = 825
# A list of revoked names stays valid this long: the broker refuses everybody once it is too old.
CRL_DAYS: Final = 3650
# A machine whose clock is a little late must not refuse what was issued just now.
SLACK: Final = timedelta(minutes=10)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class InvalidRequest(ValueError):
    """A name, request or authority that cannot be signed or used; the text says why."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in PEM form, and its key's, empty when its owner made the key itself."""

    certificate: bytes
    key: bytes
    serial: int


def make_ca(name: str, now: datetime) -> Issued:
    """Return a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key.public_key(), now, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(is_ca=True), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return Issued(_pem(certificate), _key_pem(key), certificate.serial_number)


class Authority:
    """Signs with the key of `make_ca`. Raises InvalidRequest when certificate and key do not belong together."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        try:
            self._certificate = x509.load_pem_x509_certificate(certificate)
            loaded = serialization.load_pem_private_key(key, password=None)
        except ValueError as error:
            raise InvalidRequest(f"the authority's files cannot be read: {error}") from None
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or (
            loaded.public_key() != self._certificate.public_key()
        ):
            raise InvalidRequest("the authority's key does not belong to its certificate")
        self._key = loaded

    def issue_client(
        self, name: str, now: datetime, *, days: int = DAYS, request: bytes | None = None
    ) -> Issued:
        """Return the certificate of an edge or a headend; `request` is a PKCS#10 request in PEM form.

        Of a request only its key counts: the name is the one that we were told. Raises InvalidRequest.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} is no name of an edge or a headend: letters, digits, - and _, up to 64"
            )
        own = None
        if request is None:
            own = ec.generate_private_key(ec.SECP256R1())
            public: CertificatePublicKeyTypes = own.public_key()
        else:
            public = _requested_key(request)
        builder = self._builder(name, public, now, days)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        return self._sign(builder, own)

    def issue_broker(self, hosts: Sequence[str], now: datetime, *, days: int = DAYS) -> Issued:
        """Return the certificate of a broker reached by these host names or addresses. Raises InvalidRequest."""
        if not hosts:
            raise InvalidRequest("name at least one host by which the broker is reached")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(hosts[0], key.public_key(), now, days)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        return self._sign(builder.add_extension(names, critical=False), key)

    def revoke(self, serials: Iterable[tuple[int, datetime]], now: datetime) -> bytes:
        """Return the list of revoked certificates (serial, since when) in PEM form, for mosquitto's crlfile."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._certificate.subject)
        builder = builder.last_update(now - SLACK).next_update(now + timedelta(days=CRL_DAYS))
        for serial, since in serials:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
            builder = builder.add_revoked_certificate(one)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _builder(
        self, name: str, public: CertificatePublicKeyTypes, now: datetime, days: int
    ) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, self._certificate.subject, public, now, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        return builder.add_extension(_usage(is_ca=False), critical=True)

    def _sign(self, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey | None) -> Issued:
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(_pem(certificate), b"" if key is None else _key_pem(key), certificate.serial_number)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: CertificatePublicKeyTypes, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _requested_key(request: bytes) -> CertificatePublicKeyTypes:
    try:
        asked = x509.load_pem_x509_csr(request)
    except ValueError:
        raise InvalidRequest("the request is no PKCS#10 request in PEM form") from None
    if not asked.is_signature_valid:
        raise InvalidRequest("the request is not signed by the key that it names")
    return asked.public_key()


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
