"""The serving certificate of a fleet's kubelets: self-signed, as a kubelet's without serverTLSBootstrap.

Nobody verifies it by name: the API server does not verify kubelets unless it has --kubelet-certificate-authority,
metrics-server is given --kubelet-insecure-tls, and a certificate cannot name a range of addresses.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

_GOOD_FOR = datetime.timedelta(days=365)  # as the kubelet's (client-go/util/cert.GenerateSelfSignedCertKey)
_RENEWED = datetime.timedelta(days=30)  # before its end


def ensure(path: Path, run: str) -> Path:
    """The PEM file, key and certificate, 0600; made where it is missing or near its end."""
    # here: only the module's side has it, the engine is handed the file
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    if path.exists():
        known = x509.load_pem_x509_certificate(path.read_bytes())
        if known.not_valid_after_utc - now > _RENEWED:
            return path
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"turbokube-{run}@{int(now.timestamp())}"[:64])])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _GOOD_FOR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + made.public_bytes(serialization.Encoding.PEM)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    new.replace(path)
    return path
