"""What vnodes are known by above fidelity `lease`: certificates of their own, signed here or asked of the cluster.

kubeadm, which makes the credentials of a run's few actors, takes 0.25 s for each: half an hour for 8,192.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from ..api.credentials import Credential
from ..api.http1 import Http1
from ..api.target import Target
from ..api.transport import ApiError, Response, Unreachable
from ..api.watch import ListWatch
from ..daemon.control import ControlError
from .clock import rfc3339
from .identity import PROXY
from .spec import RUN_LABEL, Spec

if TYPE_CHECKING:
    from ..api.pki import Subject

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SECRETS = "/api/v1/namespaces/kube-system/secrets"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"

_KUBELET_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
# what kubeadm binds the group of its bootstrap tokens to (phase bootstrap-token)
_ROLES = ("system:node-bootstrapper", "system:certificates.k8s.io:certificatesigningrequests:nodeclient")
_JOIN = "turbokube.io/join"  # label of what is removed in the end
_VNODE = "turbokube.io/vnode"  # annotation of a CSR: the file that its certificate goes into
_AT_ONCE = 16  # CSRs being posted
_TOKEN_LIFE = 3600.0  # seconds, should nobody remove it
_PATIENCE = 15.0  # seconds until API servers must know a token that has just been made, and what it may


class JoinError(ControlError):
    """Vnodes that cannot get what they are to be known by; the message is one for the user."""


def prepare(target: Target, state: Path, spec: Spec, deadline: float) -> list[str]:
    """Have a file of certificate and key for each vnode of `spec`, above `lease`, and at `node` one for kube-proxy.

    They lie in <state>/fleet/pki; those that are good for a month stay. `deadline`: time.monotonic. Returns whose were
    made. Raises JoinError.
    """
    folder = state / "fleet" / "pki"
    for each in (state, folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    if spec.join == "certificate":
        return _sign(target, state / "pki", folder, spec)
    return _ask(target, folder, spec, deadline)


def _wanted(spec: Spec) -> Iterator[tuple[str, Subject]]:
    """The names of the files, and who they are for."""
    from ..api.pki import Subject

    for index in spec.here:
        name = spec.name(index)
        yield name, Subject(f"system:node:{name}", ("system:nodes",))
    if spec.fidelity == "node":
        yield PROXY, Subject("system:kube-proxy")


# join: certificate


def _sign(target: Target, pki: Path, folder: Path, spec: Spec) -> list[str]:
    from ..api.pki import Authority

    try:
        authority = Authority(pki / "ca.crt", pki / "ca.key")
        known = (target.credential("fleet").ca or "").strip()
    except (OSError, ValueError) as error:
        raise JoinError(f"join is 'certificate', but there is no CA to sign with: {error}; allowed is 'csr'") from None
    if (pki / "ca.crt").read_text().strip() not in known:
        raise JoinError(f"join is 'certificate', but the CA in {pki} is not the cluster's; allowed is 'csr'")
    made = []
    for name, subject in _wanted(spec):
        file = folder / f"{name}.pem"
        if not authority.issued(file):
            authority.issue(file, subject)
            made.append(name)
    return made


# join: csr


class _Meta(msgspec.Struct):
    name: str
    annotations: dict[str, str] = {}


class _Condition(msgspec.Struct):
    type: str
    message: str = ""


class _Status(msgspec.Struct):
    certificate: str = ""  # PEM, in base64
    conditions: list[_Condition] = []


class _Request(msgspec.Struct):
    metadata: _Meta
    status: _Status


def _ask(target: Target, folder: Path, spec: Spec, deadline: float) -> list[str]:
    from ..api import pki

    missing = {name: subject for name, subject in _wanted(spec) if not pki.lasts(folder / f"{name}.pem")}
    if missing:
        admin = target.credential("admin")
        asking = _Asking(admin, target.addresses(admin), folder, spec.run, missing)
        try:
            asyncio.run(asking.run(deadline))
        except TimeoutError:
            left = len(asking.keys)
            raise JoinError(f"in time only {len(missing) - left} of {len(missing)} certificates were issued") from None
        except (ApiError, Unreachable) as error:
            raise JoinError(f"certificates cannot be asked for: {error}") from None
    return list(missing)


class _Asking:
    """Certificate signing requests for some vnodes, by a bootstrap token that lives as long as this takes."""

    def __init__(
        self, admin: Credential, servers: list[str], folder: Path, run: str, missing: dict[str, Subject]
    ) -> None:
        from ..api import pki

        self.keys = {name: pki.new_key() for name in missing}  # of those whose certificate has not come
        self._pki = pki
        self._credential = admin
        self._servers = servers
        self._folder = folder
        self._run = run
        self._missing = missing
        self._id, self._secret = secrets.token_hex(3), secrets.token_hex(8)

    async def run(self, deadline: float) -> None:
        """Until every file is there. Raises JoinError, TimeoutError, ApiError, Unreachable."""
        token = dataclasses.replace(
            self._credential, certificate=None, key=None, pem_file=None, token=f"{self._id}.{self._secret}"
        )
        admin = Http1(self._credential, self._servers, size=4)
        bootstrap = Http1(token, self._servers, size=_AT_ONCE)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._sweep(admin)  # what one that was killed has left
                await self._make_token(admin)
                names = (name for name in self._missing if name != PROXY)
                await asyncio.gather(
                    self._collect(admin),
                    self._ask_for_proxy(admin),
                    *(self._ask_for_each(bootstrap, names) for _ in range(_AT_ONCE)),
                )
        finally:
            with contextlib.suppress(ApiError, Unreachable):
                await self._sweep(admin)
            await bootstrap.close()
            await admin.close()

    async def _ask_for_each(self, bootstrap: Http1, names: Iterator[str]) -> None:
        for name in names:
            patience = time.monotonic() + _PATIENCE
            while (answer := await self._post(bootstrap, name, _KUBELET_SIGNER)).status in (401, 403):
                if time.monotonic() > patience:
                    break
                await asyncio.sleep(0.2)
            answer.checked()

    async def _ask_for_proxy(self, admin: Http1) -> None:
        """Nobody approves what is not a node's but the admin."""
        if PROXY not in self._missing:
            return
        asked = (await self._post(admin, PROXY, _CLIENT_SIGNER)).checked()
        made: dict[str, Any] = msgspec.json.decode(asked.body)
        approval = {"type": "Approved", "status": "True", "reason": "TurboKube", "message": f"of run {self._run}"}
        made["status"] = {"conditions": [approval]}
        path = f"{CSRS}/{made['metadata']['name']}/approval"
        (await admin.request("PUT", path, msgspec.json.encode(made))).checked()

    async def _post(self, transport: Http1, name: str, signer: str) -> Response:
        request = self._pki.request(self.keys[name], self._missing[name])
        return await self._create(
            transport,
            CSRS,
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            {"generateName": "csr-", "annotations": {_VNODE: name}},
            spec={
                "request": base64.b64encode(request).decode(),
                "signerName": signer,
                "usages": ["digital signature", "client auth"],
            },
        )

    async def _collect(self, admin: Http1) -> None:
        """Write each certificate down as it comes."""
        selector = {"labelSelector": f"{RUN_LABEL}={self._run},{_JOIN}"}
        async for event in ListWatch(admin, CSRS, _Request, selector).events():
            if event.object is None or event.type == "DELETED":
                continue
            name, status = event.object.metadata.annotations.get(_VNODE, ""), event.object.status
            for condition in status.conditions:
                if condition.type != "Approved":
                    raise JoinError(f"the certificate of {name} was not issued: {condition.type}, {condition.message}")
            if status.certificate and (key := self.keys.pop(name, None)) is not None:
                self._pki.write(self._folder / f"{name}.pem", key, base64.b64decode(status.certificate))
            if not self.keys:
                return

    async def _make_token(self, admin: Http1) -> None:
        group = f"system:bootstrappers:turbokube-{self._id}"
        token = {
            "token-id": self._id,
            "token-secret": self._secret,
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": group,
            "expiration": rfc3339(time.time() + _TOKEN_LIFE),
        }
        meta = {"name": f"bootstrap-token-{self._id}"}
        made = self._create(
            admin, SECRETS, "v1", "Secret", meta, type="bootstrap.kubernetes.io/token", stringData=token
        )
        (await made).checked()
        for number, role in enumerate(_ROLES):
            made = self._create(
                admin,
                BINDINGS,
                "rbac.authorization.k8s.io/v1",
                "ClusterRoleBinding",
                {"name": f"turbokube:join-{self._id}-{number}"},
                roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                subjects=[{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
            )
            (await made).checked()

    async def _create(
        self, transport: Http1, path: str, api_version: str, kind: str, metadata: dict[str, Any], **rest: Any
    ) -> Response:
        """An object with the run's label."""
        labels = {RUN_LABEL: self._run, _JOIN: "csr"}
        value = {"apiVersion": api_version, "kind": kind, "metadata": {**metadata, "labels": labels}, **rest}
        return await transport.request("POST", path, msgspec.json.encode(value))

    async def _sweep(self, admin: Http1) -> None:
        """Leave nothing of this behind."""
        for path in (BINDINGS, SECRETS, CSRS):
            selector = quote(f"{RUN_LABEL}={self._run},{_JOIN}")
            (await admin.request("DELETE", f"{path}?labelSelector={selector}")).checked()
