from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meter_gateway.broker.broker_ca import Authority, InvalidRequest, make_ca

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority():
    made = make_ca("test", NOW)
    return Authority(made.certificate, made.key), x509.load_pem_x509_certificate(made.certificate)


def test_a_client_certificate_proves_a_name_and_nothing_else(authority):
    issued = authority[0].issue_client("site-1", NOW, days=30)
    found = x509.load_pem_x509_certificate(issued.certificate)
    found.verify_directly_issued_by(authority[1])
    assert found.subject.rfc4514_string() == "CN=site-1"
    assert found.serial_number == issued.serial
    assert found.not_valid_after_utc == NOW + timedelta(days=30)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_broker_certificate_is_for_its_names_and_addresses(authority):
    issued = authority[0].issue_broker(["broker.example", "192.0.2.7"], NOW)
    found = x509.load_pem_x509_certificate(issued.certificate)
    found.verify_directly_issued_by(authority[1])
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    with pytest.raises(InvalidRequest):
        authority[0].issue_broker([], NOW)


def make_request(key, name="anybody"):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def test_of_a_request_only_the_key_counts(authority):
    key = ec.generate_private_key(ec.SECP256R1())
    issued = authority[0].issue_client("site-1", NOW, request=make_request(key, "headend-1"))
    found = x509.load_pem_x509_certificate(issued.certificate)
    assert issued.key == b""
    assert found.public_key() == key.public_key()
    assert found.subject.rfc4514_string() == "CN=site-1"
    with pytest.raises(InvalidRequest, match="PKCS#10"):
        authority[0].issue_client("site-1", NOW, request=b"nonsense")


@pytest.mark.parametrize("name", ["", "+", "a/b", "site 1", "x" * 65])
def test_a_name_that_could_mean_more_than_itself_is_refused(authority, name):
    with pytest.raises(InvalidRequest, match="no name"):
        authority[0].issue_client(name, NOW)


def test_revoked_serials_are_listed_and_signed(authority):
    body = authority[0].revoke([(5, NOW), (7, NOW)], NOW)
    found = x509.load_pem_x509_crl(body)
    assert {one.serial_number for one in found} == {5, 7}
    assert found.is_signature_valid(authority[1].public_key())


def test_files_that_do_not_belong_together_are_no_authority(authority):
    one, other = make_ca("one", NOW), make_ca("other", NOW)
    with pytest.raises(InvalidRequest, match="does not belong"):
        Authority(one.certificate, other.key)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        Authority(b"", one.key)
