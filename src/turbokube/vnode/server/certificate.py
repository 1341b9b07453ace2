"""The serving certificate of a fleet's kubelets: self-signed, as a kubelet's without serverTLSBootstrap.

Nobody verifies it by name: the API server does not verify kubelets unless it has --kubelet-certificate-authority,
metrics-server is given --kubelet-insecure-tls, and a certificate cannot name a range of addresses.
"""

from __future__ import annotations

import time
from pathlib import Path


def ensure(path: Path, run: str) -> Path:
    """The PEM file, key and certificate, 0600; made where it is missing, broken or near its end."""
    from ...api import pki  # here: only the module's side has cryptography, the engine is handed the file

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not pki.lasts(path):
        key = pki.new_key()
        pki.write(path, key, pki.self_signed(key, f"turbokube-{run}@{int(time.time())}"[:64]))
    return path
