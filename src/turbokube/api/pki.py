"""Certificates: signed with a CA's key, asked for, or self-signed. For those who make them: engines are given files."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from turbokube import disk

_GOOD_FOR = datetime.timedelta(days=365)  # as kubeadm's and the kubelet's own
_RENEWED = datetime.timedelta(days=30)  # before its end
_SKEW = datetime.timedelta(minutes=5)  # a certificate is good from so long ago, for clocks that differ


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a certificate is for: the user's name to Kubernetes, and the groups."""

    user: str
    groups: Sequence[str] = ()

    def name(self) -> x509.Name:
        return x509.Name(
            [
                *(x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, group) for group in self.groups),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, self.user),
            ]
        )


class Authority:
    """A CA whose key is at hand."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises OSError or ValueError where a file cannot be read."""
        self.certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        if not isinstance(loaded, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key} is neither an RSA key nor one of an elliptic curve")
        self._key = loaded

    def issued(self, file: Path) -> bool:
        """Whether the certificate in a file is of this CA, and good for a month."""
        if (known := _lasting(file)) is None:
            return False
        try:
            known.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def issue(self, file: Path, subject: Subject) -> None:
        """Write a new client certificate and its key."""
        key = new_key()
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject.name())
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - _SKEW, self.certificate.not_valid_before_utc))
            .not_valid_after(min(now + _GOOD_FOR, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_SIGNS, critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        write(file, key, made.public_bytes(serialization.Encoding.PEM))


_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def lasts(file: Path) -> bool:
    """Whether there is a certificate in a file that is good for a month."""
    return _lasting(file) is not None


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key as kubelets make theirs."""
    return ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey, subject: Subject) -> bytes:
    """A certificate signing request, PEM."""
    made = x509.CertificateSigningRequestBuilder().subject_name(subject.name()).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def self_signed(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """A serving certificate that is its own CA, PEM (client-go/util/cert.GenerateSelfSignedCertKey)."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _GOOD_FOR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def write(file: Path, key: ec.EllipticCurvePrivateKey, certificate: bytes) -> None:
    """Keep key and certificate (PEM) in one file that only its owner reads, whole or not at all."""
    # in this order and form OpenSSL 3 reads it in 0.6 ms, else in 0.9; it does so for every connection
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    disk.replace(file, pem + certificate)


def _lasting(file: Path) -> x509.Certificate | None:
    try:
        known = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError):
        return None
    return known if known.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > _RENEWED else None
