"""Where what vnodes are known by lies on disk: one PEM file each, certificate and key."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..api.credentials import Credential

PROXY = "kube-proxy"


def kubelet(fleet: Credential, folder: Path, name: str) -> Credential:
    """Who node `name` is: system:node:<name>. `fleet` says where, and what to trust."""
    return _by_file(fleet, folder / f"{name}.pem")


def proxy(fleet: Credential, folder: Path) -> Credential:
    """Who all kube-proxies are: system:kube-proxy."""
    return _by_file(fleet, folder / f"{PROXY}.pem")


def _by_file(fleet: Credential, file: Path) -> Credential:
    return dataclasses.replace(fleet, certificate=None, key=None, token=None, pem_file=str(file))
