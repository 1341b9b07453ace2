"""Certificates: who they are for, of whom they are, and when another is needed."""

from __future__ import annotations

import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.unit.authority import authority
from turbokube.api import pki
from turbokube.api.credentials import Credential

WHO = pki.Subject("system:node:a", ("system:nodes",))


@pytest.fixture
def ca(tmp_path):
    return authority(tmp_path / "ca")


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), pki.new_key()], ids=["rsa", "ec"])
def test_a_certificate_names_the_user_and_the_groups_and_its_file_is_the_owners(tmp_path, key):
    ca, file = authority(tmp_path / "ca", key), tmp_path / "a.pem"
    ca.issue(file, WHO)
    assert ca.issued(file)
    assert file.stat().st_mode & 0o777 == 0o600
    made = x509.load_pem_x509_certificate(file.read_bytes())
    assert made.subject.rfc4514_string() == "CN=system:node:a,O=system:nodes"
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert made.not_valid_before_utc >= ca.certificate.not_valid_before_utc
    context = Credential("https://x", (tmp_path / "ca" / "ca.crt").read_text(), pem_file=str(file)).ssl_context()
    assert isinstance(context, ssl.SSLContext)


def test_what_is_broken_near_its_end_or_of_another_ca_is_not_good(tmp_path, ca):
    file = tmp_path / "a.pem"
    assert not ca.issued(file)
    file.write_text("broken")
    assert not ca.issued(file)
    assert not pki.lasts(file)
    authority(tmp_path / "short", days=20).issue(file, WHO)
    assert not pki.lasts(file)
    authority(tmp_path / "other").issue(file, WHO)
    assert pki.lasts(file)
    assert not ca.issued(file)
    ca.issue(file, WHO)
    assert ca.issued(file)


def test_a_request_is_signed_and_says_who(tmp_path):
    asked = x509.load_pem_x509_csr(pki.request(pki.new_key(), WHO))
    assert asked.is_signature_valid
    assert asked.subject.rfc4514_string() == "CN=system:node:a,O=system:nodes"


def test_a_key_of_another_kind_is_refused(tmp_path, ca):
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "ca" / "ca.key").write_bytes(key)
    with pytest.raises(ValueError, match="neither"):
        pki.Authority(tmp_path / "ca" / "ca.crt", tmp_path / "ca" / "ca.key")
