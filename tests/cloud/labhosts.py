"""Droplets that are hosts of a lab, and load balancers that are processes beside its bridge. Needs root."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from ansible_collections.turbokube.scale.plugins.module_utils._lab import Lab, raise_inotify

FORWARD = Path(__file__).with_name("forward.py")


class LabHosts:
    """A lab as role lab makes it, from its newest template. `network` is the VPC's."""

    public = "private"  # a lab's hosts have one address

    def __init__(self, name: str, folder: Path, network: str, binds: list[str]) -> None:
        templates = [path for path in (folder / "templates").glob("*") if path.suffix != ".part"]
        if not templates:
            raise SystemExit(f"{folder} has no template: role lab makes one")
        self._template = str(max(templates, key=lambda path: path.stat().st_mtime))
        self._lab = Lab(name, str(folder / "machines"), network)
        self._binds, self._lock = binds, threading.Lock()
        self._addresses: dict[str, str] = {}
        self._balancers: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        raise_inotify(1024)
        self._lab.raise_network()

    def up(self, name: str, address: str, keys: list[str]) -> None:
        """Boot a host."""
        with self._lock:
            self._addresses[name] = address
            self._lab.raise_host(name, dict(self._addresses), self._template, "\n".join(keys), self._binds)

    def down(self, name: str) -> None:
        """Remove a host, with its disk."""
        with self._lock:
            self._addresses.pop(name, None)
            self._lab.raze_host(name)

    def balance(self, name: str, address: str, port: int, backends: list[str]) -> None:
        """Forward connections to the backends in turn."""
        self.unbalance(name)
        subprocess.run(["ip", "-n", self._lab.namespace, "addr", "add", f"{address}/32", "dev", "br0"], check=True)
        into = ["nsenter", f"--net=/run/netns/{self._lab.namespace}", sys.executable, str(FORWARD)]
        self._balancers[name] = address, subprocess.Popen([*into, address, str(port), *backends])

    def unbalance(self, name: str) -> None:
        """End forwarding."""
        if name in self._balancers:
            address, process = self._balancers.pop(name)
            process.kill()
            process.wait()
            subprocess.run(["ip", "-n", self._lab.namespace, "addr", "del", f"{address}/32", "dev", "br0"], check=True)
