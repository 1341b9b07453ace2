"""Ports are chosen once, kept, and never taken from anyone."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from turbokube.daemon import process
from turbokube.supervise import PortTaken, choose_ports, listening, recorded_ports


@pytest.fixture
def foreign() -> Iterator[int]:
    """A port on which this very process listens, which is none of a run."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_free_ports_differ_are_recorded_and_kept(state: Path) -> None:
    first = choose_ports(state, {"a": 0, "b": 0})
    assert first.changed
    assert len(set(first.after.values())) == 2
    again = choose_ports(state, {"b": 0, "a": 0})
    assert not again.changed
    assert again.after == first.after == recorded_ports(state)
    assert stat.S_IMODE((state / "ports.json").stat().st_mode) == 0o600


def test_free_ports_lie_below_those_of_outgoing_connections(state: Path) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port < lowest for port in choose_ports(state, {str(n): 0 for n in range(20)}).after.values())


def test_nothing_is_written_when_only_asked(tmp_path: Path) -> None:
    state = tmp_path / "none"
    assert choose_ports(state, {"a": 0}, write=False).changed
    assert not state.exists()


def test_a_port_asked_for_is_taken_as_it_is(state: Path) -> None:
    free = choose_ports(state, {"x": 0}, write=False).after["x"]
    assert choose_ports(state, {"a": free}).after == {"a": free}
    assert not choose_ports(state, {"a": free}).changed
    assert not choose_ports(state, {"a": 0}).changed


def test_a_port_that_another_listens_on_is_refused_with_its_holder(state: Path, foreign: int) -> None:
    with pytest.raises(
        PortTaken, match=rf"port {foreign}, asked for kube-apiserver-0, is taken by pid {os.getpid()} \("
    ):
        choose_ports(state, {"kube-apiserver-0": foreign})
    assert recorded_ports(state) == {}


def test_a_port_of_another_name_of_the_run_is_refused(state: Path) -> None:
    port = choose_ports(state, {"a": 0}).after["a"]
    with pytest.raises(PortTaken, match="another process of this run"):
        choose_ports(state, {"b": port})


def test_a_recorded_port_that_another_listens_on_by_now_is_replaced(state: Path, foreign: int) -> None:
    (state / "ports.json").write_text(f'{{"a": {foreign}}}')
    chosen = choose_ports(state, {"a": 0})
    assert chosen.changed
    assert chosen.after["a"] != foreign


def test_a_port_that_a_process_of_the_run_listens_on_is_its_own(state: Path) -> None:
    port = choose_ports(state, {"a": 0}).after["a"]
    program = f"import socket,time; s=socket.create_server(('127.0.0.1',{port})); print(1,flush=True); time.sleep(60)"
    log = state / "a.log"
    child = process.spawn([sys.executable, "-c", program], state=state, name="a", log=log)
    try:
        while not log.read_text():
            assert child.poll() is None
        assert f"pid {child.pid}" in listening(port)
        assert not choose_ports(state, {"a": port}).changed
    finally:
        child.kill()
        child.wait()
    assert listening(port) == ""
