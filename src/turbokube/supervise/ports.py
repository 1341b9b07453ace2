"""Loopback ports of a run: chosen once, recorded, kept."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from turbokube import disk
from turbokube.daemon import process

LOOPBACK = "127.0.0.1"
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp, as include/net/tcp_states.h numbers it
_LOWEST = 10240  # below lie the ports that services are known by


class PortTaken(ValueError):
    """A port that the user asked for is held by something else; the message names both."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The ports of a run before and after: name → port."""

    before: dict[str, int]
    after: dict[str, int]

    @property
    def changed(self) -> bool:
        return self.before != self.after


def recorded_ports(state: Path) -> dict[str, int]:
    """What <state>/ports.json holds; nothing when there is no such file."""
    try:
        return {str(name): int(port) for name, port in json.loads((state / "ports.json").read_text()).items()}
    except FileNotFoundError:
        return {}


def choose_ports(state: Path, wanted: Mapping[str, int], *, write: bool = True) -> Choice:
    """Give every name in `wanted` a port: the one asked for, or where that is 0 the recorded one, or a free one.

    A recorded port that another program listens on by now is replaced. Raises PortTaken for one that was asked for.
    """
    with _locked(state) if write else contextlib.nullcontext():
        before = recorded_ports(state)
        after, ours = dict(before), {one.pid for one in process.marked(state)}
        for name, port in wanted.items():
            holder = _foreign(port or before.get(name, 0), ours)
            if port and holder:
                raise PortTaken(
                    f"port {port}, asked for {name}, is taken by {holder}; choose another, or 0 for a free one"
                )
            others = {value for key, value in after.items() if key != name}
            if port in others:
                raise PortTaken(f"port {port}, asked for {name}, belongs to another process of this run")
            after[name] = port or (before[name] if name in before and not holder else _free(others))
        if write and after != before:
            disk.replace(state / "ports.json", json.dumps(dict(sorted(after.items())), indent=1).encode())
    return Choice(before, after)


def listening(port: int) -> str:
    """Who listens on a TCP port of loopback or of every address: "pid 7 (nginx -g …)"; empty when nobody does."""
    if not 0 < port < 65536:
        return ""
    inodes = _listeners(port)
    if not inodes:
        return ""
    pid = _owner(inodes)
    return f"pid {pid} ({_command(pid)})" if pid else "a process of another user"


def _foreign(port: int, ours: set[int]) -> str:
    """Who listens on a port, unless it is one of our processes."""
    inodes = _listeners(port) if port else set()
    if not inodes or (pid := _owner(inodes)) in ours:
        return ""
    return f"pid {pid} ({_command(pid)})" if pid else "a process of another user"


def _free(others: set[int]) -> int:
    """A port that nobody listens on, below the range from which the kernel gives outgoing connections theirs.

    One of that range could be taken by any client between now and the moment when its server binds it.
    """
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first, last = (_LOWEST, lowest_outgoing - 1) if lowest_outgoing > _LOWEST + 1000 else (_LOWEST, 65535)
    for _ in range(1000):
        port = random.randint(first, last)
        if port in others:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port
    raise PortTaken(f"no free port was found between {first} and {last} on {LOOPBACK}")


def _listeners(port: int) -> set[str]:
    """Socket inodes that listen on a port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table) as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _owner(inodes: set[str]) -> int:
    """The process that has one of these sockets open; 0 when it is not visible to us."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in os.scandir(f"/proc/{entry.name}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor.path) in wanted:
                        return int(entry.name)
    return 0


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    line = " ".join(words).strip()
    return line if len(line) <= 80 else line[:79] + "…"


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One chooser at a time, in a state folder that is made if there is none."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(state, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
