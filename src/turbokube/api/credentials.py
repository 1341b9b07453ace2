"""Who we are to an API server: a kubeconfig, reduced to what a TLS client needs."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class CredentialError(Exception):
    """A kubeconfig that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One identity at one API server. PEM texts; `token` goes into the Authorization header.

    `pem_file`, in place of `certificate` and `key`, is a file with both, read anew for every connection: whoever acts
    for thousands of identities keeps their paths only.
    """

    server: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    token: str | None = None
    verify: bool = True
    pem_file: str | None = None

    def ssl_context(self) -> ssl.SSLContext:
        """A client context with this identity's CA and certificate."""
        context = ssl.create_default_context(cadata=self.ca) if self.ca else ssl.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.pem_file:
            context.load_cert_chain(self.pem_file)
        elif self.certificate and self.key:
            # ssl loads a key pair from files only; the file lives for this call and is ours alone
            descriptor, path = tempfile.mkstemp(suffix=".pem")
            try:
                os.write(descriptor, f"{self.certificate}\n{self.key}\n".encode())
                os.close(descriptor)
                context.load_cert_chain(path)
            finally:
                os.unlink(path)
        return context


def from_kubeconfig(path: str | Path, context: str | None = None) -> Credential:
    """The identity that `context` (default: the current one) of a kubeconfig names.

    Raises CredentialError, with one sentence, when the file cannot be read or lacks something.
    """
    import yaml  # here: the engine is handed a Credential, and yaml is memory that it can do without

    file = Path(path).expanduser()
    try:
        config = yaml.safe_load(file.read_text())
    except OSError as error:
        raise CredentialError(f"kubeconfig {file} cannot be read: {error.strerror}") from None
    except yaml.YAMLError:
        raise CredentialError(f"kubeconfig {file} is not YAML") from None
    if not isinstance(config, dict):
        raise CredentialError(f"kubeconfig {file} holds no configuration")
    wanted = context or config.get("current-context")
    chosen = _named(config, "contexts", wanted, file, "context")
    cluster = _named(config, "clusters", chosen.get("cluster"), file, "cluster")
    user = _named(config, "users", chosen.get("user"), file, "user")
    if "exec" in user or "auth-provider" in user:
        return _by_plugin(file, str(wanted))
    base = file.parent
    return Credential(
        server=str(cluster.get("server", "")).rstrip("/"),
        ca=_pem(cluster, "certificate-authority", base),
        certificate=_pem(user, "client-certificate", base),
        key=_pem(user, "client-key", base),
        token=_token(user, base),
        verify=not cluster.get("insecure-skip-tls-verify", False),
    )


def _named(config: dict[str, Any], section: str, name: object, file: Path, field: str) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            return dict(entry.get(field) or {})
    known = ", ".join(str(entry.get("name")) for entry in config.get(section) or []) or "none"
    raise CredentialError(f"kubeconfig {file} has no {field} {name!r}; it has: {known}")


def _pem(section: dict[str, Any], field: str, base: Path) -> str | None:
    if data := section.get(f"{field}-data"):
        return base64.b64decode(str(data)).decode()
    if name := section.get(field):
        try:
            return (base / str(name)).read_text()
        except OSError as error:
            raise CredentialError(f"{field} {base / name} cannot be read: {error.strerror}") from None
    return None


def _token(user: dict[str, Any], base: Path) -> str | None:
    if token := user.get("token"):
        return str(token)
    if name := user.get("tokenFile"):
        return (base / str(name)).read_text().strip()
    return None


def _by_plugin(file: Path, context: str) -> Credential:
    """Exec plugins and auth providers are the official client's business."""
    from kubernetes import client, config  # heavy, and only clouds need it

    configuration = client.Configuration()
    config.load_kube_config(  # type: ignore[no-untyped-call]
        str(file), context=context, client_configuration=configuration
    )
    read = {
        name: Path(value).read_text()
        for name in ("ssl_ca_cert", "cert_file", "key_file")
        if (value := getattr(configuration, name))
    }
    bearer = str(configuration.api_key.get("authorization", "")).removeprefix("Bearer ")
    return Credential(
        server=str(configuration.host).rstrip("/"),
        ca=read.get("ssl_ca_cert"),
        certificate=read.get("cert_file"),
        key=read.get("key_file"),
        token=bearer or None,
        verify=bool(configuration.verify_ssl),
    )
