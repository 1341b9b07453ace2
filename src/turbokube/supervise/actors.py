"""Credentials of the actors of a run, signed by the run's own CA: kubeadm makes them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turbokube import disk
from turbokube.api.credentials import CredentialError, from_kubeconfig


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: the common name and the organizations of a client certificate, kept as <folder>/<name>.conf."""

    name: str
    user: str
    groups: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Issuer:
    """What a kubeconfig is made with: kubeadm, its configuration, and the server and CA that it means."""

    kubeadm: str
    config: str
    server: str
    ca_file: Path

    def missing(self, folder: Path, actors: Sequence[Actor]) -> list[Actor]:
        """The actors that have no kubeconfig, or one for another server or another CA."""
        return [one for one in actors if not self._fits(folder / f"{one.name}.conf")]

    def issue(self, folder: Path, actor: Actor) -> None:
        """Write an actor's kubeconfig, readable by its owner only. Raises CredentialError with kubeadm's own words."""
        groups = [word for group in actor.groups for word in ("--org", group)]
        made = subprocess.run(
            [self.kubeadm, "kubeconfig", "user", "--config", self.config, "--client-name", actor.user, *groups],
            capture_output=True,
            check=False,
        )
        if made.returncode:
            raise CredentialError(f"kubeadm made no kubeconfig for {actor.name}: {made.stderr.decode().strip()}")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk.replace(folder / f"{actor.name}.conf", made.stdout)

    def _fits(self, path: Path) -> bool:
        try:
            had = from_kubeconfig(path)
            return had.server == self.server and (had.ca or "").strip() == self.ca_file.read_text().strip()
        except (CredentialError, OSError):
            return False
