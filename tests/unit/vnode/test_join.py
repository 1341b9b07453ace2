"""What vnodes are known by, signed with the run's CA; asking the cluster is tests/integration's."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from tests.unit.authority import authority
from turbokube.api.credentials import Credential
from turbokube.api.target import Target
from turbokube.vnode import identity, join
from turbokube.vnode.spec import Spec

SPEC = Spec(run="test", count=3, fidelity="kubelet")


def make_ca(folder: Path) -> bytes:
    authority(folder)
    return (folder / "ca.crt").read_bytes()


@pytest.fixture
def target(tmp_path):
    """A cluster whose CA's key is in the run's state folder."""
    ca = base64.b64encode(make_ca(tmp_path / "pki")).decode()
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": "https://x:1", "certificate-authority-data": ca}}],
        "users": [{"name": "x", "user": {"token": "t"}}],
    }
    (tmp_path / "admin.conf").write_text(json.dumps(config))
    return Target(name="x", kubeconfigs={"admin": str(tmp_path / "admin.conf")})


def prepare(target: Target, state: Path, **changes: object) -> list[str]:
    return join.prepare(target, state, msgspec.structs.replace(SPEC, **changes), time.monotonic() + 10)


def test_each_vnode_gets_one_and_those_that_are_good_stay(target, tmp_path):
    assert prepare(target, tmp_path) == ["vnode-00000", "vnode-00001", "vnode-00002"]
    file = tmp_path / "fleet" / "pki" / "vnode-00001.pem"
    before = file.read_bytes()
    assert prepare(target, tmp_path, count=4) == ["vnode-00003"]
    assert prepare(target, tmp_path, fidelity="node") == ["kube-proxy"]
    assert file.read_bytes() == before
    assert file.parent.stat().st_mode & 0o777 == 0o700
    made = x509.load_pem_x509_certificate(before)
    assert made.subject.rfc4514_string() == "CN=system:node:vnode-00001,O=system:nodes"


def test_a_new_ca_means_new_certificates(target, tmp_path):
    prepare(target, tmp_path)
    text = json.loads((tmp_path / "admin.conf").read_text())
    ca = base64.b64encode(make_ca(tmp_path / "pki")).decode()
    text["clusters"][0]["cluster"]["certificate-authority-data"] = ca
    (tmp_path / "admin.conf").write_text(json.dumps(text))
    assert len(prepare(target, tmp_path)) == 3


def test_a_ca_that_is_away_or_another_clusters_is_said_with_what_else_there_is(target, tmp_path):
    make_ca(tmp_path / "pki")
    with pytest.raises(join.JoinError, match="not the cluster's; allowed is 'csr'"):
        prepare(target, tmp_path)
    (tmp_path / "pki" / "ca.key").unlink()
    with pytest.raises(join.JoinError, match=r"ca\.key.*; allowed is 'csr'"):
        prepare(target, tmp_path)


def test_a_vnodes_credential_is_its_file_and_nothing_of_the_fleets(tmp_path):
    fleet = Credential("https://x", "ca", "certificate", "key", "token")
    assert identity.kubelet(fleet, tmp_path, "a") == Credential("https://x", "ca", pem_file=f"{tmp_path}/a.pem")
    assert identity.proxy(fleet, tmp_path) == Credential("https://x", "ca", pem_file=f"{tmp_path}/kube-proxy.pem")
