# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: may change without notice.

from __future__ import annotations

import contextlib
import ipaddress
import os
import shlex
import shutil
import subprocess
import time
import typing as t

PREFIX = "turbokube-"  # of everything that is made outside the lab's folder
KEPT = ("containerd", "kubelet", "etcd")  # below /var/lib: overlayfs cannot lie on overlayfs, nor should a store
KILL_SECONDS = 10.0
REBOOT = 133  # what systemd-nspawn --keep-unit ends with when the host asks for a reboot

# Only systemd-nspawn is in the host's cgroups, so that it can hand controllers on; a reboot starts it again.
RUN = """\
#!/bin/sh
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY={unified} SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 SYSTEMD_SECCOMP=0
status={reboot}
while [ "$status" -eq {reboot} ]; do
  find {cgroup2} -depth -type d -exec rmdir {{}} \\; 2>/dev/null
  mkdir -p {cgroup2}
  sh -c 'for folder; do echo $$ > "$folder/cgroup.procs"; done; exec "$0"' {start} {cgroups}
  status=$?
done
"""


class LabError(Exception):
    """The lab cannot be as it is wanted; the message says why."""


class Hierarchy(t.NamedTuple):
    """Where a hierarchy of cgroups is mounted, this process's place in it, its controllers (none: version 2)."""

    mount: str
    own: str
    controllers: frozenset[str]
    only: bool = False  # there is no other


def hierarchies() -> list[Hierarchy]:
    """Every hierarchy of cgroups that is mounted."""
    own: dict[frozenset[str], str] = {}
    with open("/proc/self/cgroup", encoding="ascii") as file:
        for line in file:
            _number, controllers, path = line.rstrip("\n").split(":", 2)
            own[frozenset(controllers.split(",")) - {""}] = path
    found: dict[frozenset[str], Hierarchy] = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _dash, after = line.rstrip("\n").partition(" - ")
            kind, _device, options = after.split(" ", 2)
            if kind not in ("cgroup", "cgroup2"):
                continue
            named = frozenset(options.split(",")) if kind == "cgroup" else frozenset()
            for controllers, path in own.items():
                if controllers <= named and bool(controllers) == bool(named):
                    found.setdefault(controllers, Hierarchy(before.split(" ")[4], path, controllers))
    return [hierarchy._replace(only=len(found) == 1) for hierarchy in found.values()]


class Lab:
    """Hosts of systemd-nspawn on a bridge in a network namespace that has no way out.

    All that it makes is named after it: network namespaces and cgroups `turbokube-<name>[.<host>]`, files in `folder`.
    """

    def __init__(self, name: str, folder: str, network: str) -> None:
        self.name = name
        self.folder = os.path.join(folder, name)
        self.network = ipaddress.ip_network(network)
        self.gateway = str(next(self.network.hosts()))
        self.namespace = f"{PREFIX}{name}"

    def known(self) -> set[str]:
        """The names of hosts of which anything is there, whoever left it."""
        found = {cgroup.rpartition(".")[2] for cgroup in self._cgroups()}
        found |= {name.partition(".")[2] for name in _listed("/run/netns") if name.startswith(f"{self.namespace}.")}
        return found | {name for name in _listed(self.folder) if os.path.isdir(os.path.join(self.folder, name, "root"))}

    def running(self, host: str) -> bool:
        """Whether the host has processes."""
        return any(_populated(folder) for folder in self._cgroups(host))

    def raise_network(self) -> bool:
        """Make the bridge's namespace; False when it is there."""
        if self.namespace in _listed("/run/netns"):
            return False
        _ip("netns", "add", self.namespace)
        _ip("-n", self.namespace, "link", "set", "lo", "up")
        _ip("-n", self.namespace, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.namespace, "addr", "add", f"{self.gateway}/{self.network.prefixlen}", "dev", "br0")
        _ip("-n", self.namespace, "link", "set", "br0", "up")
        # what is sent elsewhere is refused at once instead of being waited for
        _ip("-n", self.namespace, "route", "add", "unreachable", "default")
        _run("nsenter", f"--net=/run/netns/{self.namespace}", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        return True

    def raise_host(self, host: str, addresses: dict[str, str], template: str, key: str, binds: list[str]) -> bool:
        """Start a host, with the disk that it had if it was killed; False when it runs.

        `addresses` names every host of the lab; `binds` are read-only, as source:place.
        """
        if self.running(host):
            return False
        folder = os.path.join(self.folder, host)
        root = os.path.join(folder, "root")
        for name in ("upper", "work", "root", *(f"data/{one}" for one in KEPT)):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        if not os.path.ismount(root):
            layers = f"lowerdir={template},upperdir={folder}/upper,workdir={folder}/work"
            _run("mount", "-t", "overlay", "overlay", "-o", layers, root)
        self._identify(root, host, addresses, key, binds)
        self._connect(host, addresses[host])
        self._start(host, folder, binds)
        return True

    def kill(self, host: str) -> bool:
        """End every process of a host as a power cut would, and keep its disk; False when it does not run."""
        running = self.running(host)
        for folder in self._cgroups(host):
            killer = os.path.join(folder, "cgroup.kill")
            if os.path.exists(killer):
                _write(killer, "1")
        end = time.monotonic() + KILL_SECONDS
        while self.running(host):
            if time.monotonic() > end:
                raise LabError(f"processes of {host} are still there {KILL_SECONDS:g} s after they were killed")
            time.sleep(0.02)
        self._disconnect(host)
        for folder in self._cgroups(host):
            _remove_cgroup(folder, end)
        return running

    def raze_host(self, host: str) -> None:
        """Remove all of a host."""
        self.kill(host)
        folder = os.path.join(self.folder, host)
        root = os.path.join(folder, "root")
        while os.path.ismount(root):
            _run("umount", "--lazy", root)
        shutil.rmtree(folder, ignore_errors=True)

    def raze(self) -> None:
        """Remove all of the lab."""
        for host in self.known():
            self.raze_host(host)
        if self.namespace in _listed("/run/netns"):
            _ip("netns", "del", self.namespace)
        shutil.rmtree(self.folder, ignore_errors=True)

    def left(self) -> list[str]:
        """Everything of the lab that is there: cgroups, namespaces, mounts, its folder."""
        found = self._cgroups()
        found += [f"/run/netns/{n}" for n in _listed("/run/netns") if n.partition(".")[0] == self.namespace]
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            places = [line.split(" ")[4] for line in file]
        found += [place for place in places if place.startswith(f"{self.folder}/")]
        return found + ([self.folder] if os.path.exists(self.folder) else [])

    def _cgroups(self, host: str = "") -> list[str]:
        """The cgroups of a host, or of every host, wherever whoever raised it was."""
        found = []
        for hierarchy in hierarchies():
            for folder, names, _files in os.walk(hierarchy.mount):
                mine = [name for name in names if self._mine(name, host)]
                found += [os.path.join(folder, name) for name in mine]
                names[:] = [name for name in names if name not in mine]
        return found

    def _mine(self, cgroup: str, host: str) -> bool:
        lab, _dot, name = cgroup.partition(".")
        return lab == self.namespace and name != "" and host in ("", name)

    def _identify(self, root: str, host: str, addresses: dict[str, str], key: str, binds: list[str]) -> None:
        """What makes a copy of the template this host."""
        for bind in binds:
            os.makedirs(root + bind.split(":")[1], exist_ok=True)
        for one in KEPT:
            os.makedirs(f"{root}/var/lib/{one}", exist_ok=True)
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
        _write(f"{root}/etc/hosts", "\n".join(lines) + "\n")
        _write(f"{root}/etc/hostname", f"{host}\n")
        # nobody answers there, which is refused at once; CoreDNS wants an address that is not loopback
        _write(f"{root}/etc/resolv.conf", f"nameserver {self.gateway}\noptions timeout:1 attempts:1\n")
        if not os.path.exists(f"{root}/root/.ssh/authorized_keys"):
            _write(f"{root}/etc/machine-id", "")
            os.makedirs(f"{root}/root/.ssh", mode=0o700, exist_ok=True)
        _write(f"{root}/root/.ssh/authorized_keys", f"{key}\n")

    def _connect(self, host: str, address: str) -> None:
        """A namespace for the host with an interface on the bridge."""
        self._disconnect(host)
        namespace = f"{self.namespace}.{host}"
        octets = [int(part) for part in address.split(".")]
        # a host that is made anew has the MAC of the old one, which its neighbours have in their ARP tables
        mac = ":".join(f"{octet:02x}" for octet in (2, 0, *octets))
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        peer = ("peer", "name", _port(address), "netns", self.namespace)
        _ip("link", "add", "eth0", "address", mac, "netns", namespace, "type", "veth", *peer)
        _ip("-n", self.namespace, "link", "set", _port(address), "master", "br0", "up")
        _ip("-n", namespace, "addr", "add", f"{address}/{self.network.prefixlen}", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        # kubeadm and kubelet look for the address of the default route
        _ip("-n", namespace, "route", "add", "default", "via", self.gateway)
        _write(os.path.join(self.folder, host, "port"), _port(address))

    def _disconnect(self, host: str) -> None:
        """Remove the host's namespace and both ends of its interface, whoever still holds the namespace."""
        with contextlib.suppress(OSError), open(os.path.join(self.folder, host, "port"), encoding="ascii") as file:
            subprocess.run(["ip", "-n", self.namespace, "link", "del", file.read()], capture_output=True, check=False)
        if f"{self.namespace}.{host}" in _listed("/run/netns"):
            _ip("netns", "del", f"{self.namespace}.{host}")

    def _start(self, host: str, folder: str, binds: list[str]) -> None:
        cgroups = [_make_cgroup(hierarchy, f"{self.namespace}.{host}") for hierarchy in hierarchies()]
        unified = next((one for one in cgroups if os.path.exists(os.path.join(one, "cgroup.kill"))), "")
        if not unified:
            raise LabError("this kernel has no cgroup.kill (Linux 5.14), by which hosts are removed")
        nspawn = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", f"--machine={host}"]
        nspawn += [f"--directory={folder}/root", f"--network-namespace-path=/run/netns/{self.namespace}.{host}"]
        nspawn += ["--private-users=no", "--capability=all", "--drop-capability=CAP_SYS_TIME", "--console=read-only"]
        nspawn += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--kill-signal=SIGRTMIN+3"]
        nspawn += [f"--bind={folder}/data/{one}:/var/lib/{one}" for one in KEPT] + ["--bind=/dev/kmsg"]
        nspawn += [f"--bind-ro={bind}" for bind in binds]
        script = RUN.format(
            cgroups=" ".join(map(shlex.quote, cgroups)),
            unified=int(len(cgroups) == 1),
            reboot=REBOOT,
            cgroup2=shlex.quote(unified),
            start=shlex.quote(os.path.join(folder, "start")),
        )
        _write(os.path.join(folder, "run"), script)
        _write(os.path.join(folder, "start"), f"#!/bin/sh\nexec {shlex.join(nspawn)}\n")
        os.chmod(os.path.join(folder, "start"), 0o755)
        with open(os.path.join(folder, "console.log"), "ab") as log:
            subprocess.Popen(
                ["sh", os.path.join(folder, "run")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )


def raise_inotify(least: int) -> bool:
    """See that the machine, whose limit all hosts share, allows so many instances of inotify."""
    path = "/proc/sys/fs/inotify/max_user_instances"
    with open(path, encoding="ascii") as file:
        enough = int(file.read()) >= least
    if not enough:
        _write(path, str(least))
    return not enough


def _make_cgroup(hierarchy: Hierarchy, name: str) -> str:
    """A cgroup that is ready to take processes: below this process's own, or at the root of version 2 alone.

    Only the root of version 2 can hand controllers on while it has processes.
    """
    parent = os.path.join(hierarchy.mount, hierarchy.own.strip("/"))
    if hierarchy.only:
        parent = hierarchy.mount
        with open(os.path.join(parent, "cgroup.controllers"), encoding="ascii") as file:
            for controller in file.read().split():
                with contextlib.suppress(OSError):
                    _write(os.path.join(parent, "cgroup.subtree_control"), f"+{controller}")
    folder = os.path.join(parent, name)
    os.makedirs(folder, exist_ok=True)
    if "cpuset" in hierarchy.controllers:  # a new one of version 1 allows no CPU
        for setting in ("cpuset.cpus", "cpuset.mems"):
            with open(os.path.join(parent, setting), encoding="ascii") as file:
                _write(os.path.join(folder, setting), file.read())
        _write(os.path.join(folder, "cgroup.clone_children"), "1")
    return folder


def _remove_cgroup(folder: str, end: float) -> None:
    """Remove a tree of cgroups; what was killed leaves it a moment later."""
    while True:
        for inner, _names, _files in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(inner)
        if not os.path.exists(folder):
            return
        if time.monotonic() > end:
            raise LabError(f"{folder} cannot be removed: it holds processes")
        time.sleep(0.02)


def _populated(folder: str) -> bool:
    try:
        with open(os.path.join(folder, "cgroup.events"), encoding="ascii") as file:
            return "populated 1" in file.read()
    except OSError:  # of version 1, or removed
        return False


def _port(address: str) -> str:
    """The name of a host's port on the bridge; interfaces have at most 15 characters."""
    return "v" + "-".join(address.split(".")[2:])


def _listed(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{shlex.join(words)}: {(done.stderr or done.stdout).strip()}")
