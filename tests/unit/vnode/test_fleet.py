"""Which processes a fleet has, and what becomes of them; the engine itself is a stub that joins at once."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from turbokube.api.credentials import Credential
from turbokube.daemon import process
from turbokube.vnode import fleet
from turbokube.vnode.spec import Spec, SpecError, check

SPEC = Spec(run="trial", count=10, connections=8)
_STUB = """
import asyncio, os, pathlib, sys
import msgspec
from turbokube.daemon import control
from turbokube.vnode.spec import Start

folder = pathlib.Path(sys.argv[1])
start = msgspec.json.decode((folder / "start.json").read_bytes(), type=Start)
mine = start.spec.part(start.shard)


def status():
    n = len(mine.indices)
    worst = {"lateness_p99": 0.1 * mine.shard, "oldest_renewal": 5.0 + mine.shard}
    pods = {"Pending": 0, "Running": 3}
    return {"synced": True, "wanted": n, "present": n, "joined": n, "ready": n, "conflict": "", "waiting": 0,
            "pods": pods, "renewals": 7, **worst}


async def handle(request):
    global mine
    if request["op"] == "scale":
        mine = msgspec.structs.replace(mine, count=request["count"])
        spec = msgspec.structs.replace(start.spec, count=request["count"])
        (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
    return status()


async def main():
    (folder / "spec.json").write_bytes(msgspec.json.encode(start.spec))
    if start.spec.cpu == "666":
        sys.exit("no such processor")
    async with control.serve(control.socket_path(folder.parent, folder.name), handle):
        facts = {"pid": os.getpid(), "metrics_url": f"http://127.0.0.1/{folder.name}"}
        new = folder / "state.new"
        new.write_bytes(msgspec.json.encode(facts))
        new.replace(folder / "state.json")
        await asyncio.sleep(60)

asyncio.run(main())
"""


class _Target:
    """The only thing that is asked of a target here."""

    def credential(self, actor: str) -> Credential:
        return Credential(server="https://127.0.0.1:1", ca=None, certificate=None, key=None, token="t")

    def addresses(self, credential: Credential) -> list[str]:
        return [credential.server]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    spawn = process.spawn
    monkeypatch.setattr(
        process,
        "spawn",
        lambda argv, **options: spawn(
            [sys.executable, "-c", _STUB, str(options["state"] / options["name"])], **options
        ),
    )
    monkeypatch.setattr(fleet, "_labelled", lambda target, run: {"nodes": 0, "leases": 0})
    yield tmp_path
    process.stop(process.marked(tmp_path))


def present(state: Path, check_mode: bool = False, **changes: Any) -> fleet.Result:
    target: Any = _Target()
    wish = msgspec.structs.replace(SPEC, **changes)
    return fleet.present(lambda: target, state, wish, timeout=20, check_mode=check_mode)


def alive(state: Path) -> dict[str, int]:
    return {found.name: found.pid for found in process.marked(state)}


def kill(state: Path, name: str) -> None:
    found = process.find(state, name)
    assert found is not None
    found.signal(signal.SIGKILL)
    while found.alive():
        time.sleep(0.01)


def test_one_process_is_named_as_ever(state: Path) -> None:
    result = present(state)
    assert (result.changed, result.started, list(alive(state))) == (True, ["fleet"], ["fleet"])
    assert (result.pid, result.metrics_url) == (alive(state)["fleet"], "http://127.0.0.1/fleet")
    assert not present(state).changed
    assert fleet.info(state)["pid"] == result.pid


def test_several_processes_make_one_fleet(state: Path) -> None:
    assert present(state, processes=3, check_mode=True).changed
    assert not alive(state)
    result = present(state, processes=3)
    assert sorted(alive(state)) == result.started == ["fleet-0", "fleet-1", "fleet-2"]
    assert (result.pid, result.metrics_url) == (None, None)
    assert result.metrics_urls == [f"http://127.0.0.1/fleet-{k}" for k in range(3)]
    assert (result.status["ready"], result.status["renewals"], result.status["pods"]["Running"]) == (10, 21, 9)
    assert (result.status["oldest_renewal"], result.status["lateness_p99"]) == (7.0, 0.2)
    assert not present(state, processes=3).changed
    pids = alive(state)
    assert present(state, processes=3, count=5).status["wanted"] == 5
    assert alive(state) == pids
    assert not present(state, processes=3, count=5, check_mode=True).changed


def test_one_that_died_is_named_and_only_it_is_started_again(state: Path) -> None:
    present(state, processes=3)
    before = alive(state)
    kill(state, "fleet-1")
    facts = fleet.info(state)
    assert (facts["running"], facts["dead"], facts["wanted"], facts["ready"]) == (False, ["fleet-1"], 10, 7)
    assert present(state, processes=3, check_mode=True).before["dead"] == ["fleet-1"]
    result = present(state, processes=3)
    assert (result.changed, result.started) == (True, ["fleet-1"])
    after = alive(state)
    assert {name for name in after if after[name] == before[name]} == {"fleet-0", "fleet-2"}
    assert fleet.info(state)["running"]


def test_one_that_dies_while_the_fleet_is_awaited_is_named(state: Path) -> None:
    present(state, processes=2)
    daemons = [fleet._Daemon(state, name) for name in ("fleet-0", "fleet-1")]
    kill(state, "fleet-1")
    with pytest.raises(fleet.FleetError, match=r"daemon fleet-1 cannot be steered.*fleet-1\.log"):
        fleet._wait_for(daemons, lambda now: False, time.monotonic() + 5)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (3, 2), (2, 1)])
def test_another_number_of_processes_replaces_them_all(state: Path, one: int, other: int) -> None:
    present(state, processes=one)
    before = set(alive(state).values())
    result = present(state, processes=other)
    assert result.changed
    assert sorted(alive(state)) == result.started == fleet.names(msgspec.structs.replace(SPEC, processes=other))
    assert not before & set(alive(state).values())
    assert not present(state, processes=other).changed


def test_none_of_them_starts_before_the_last_of_those_that_go_has_gone(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present(state, processes=2)
    seen: list[dict[str, int]] = []
    start = fleet._start
    monkeypatch.setattr(fleet, "_start", lambda *given: (seen.append(alive(state)), start(*given))[1])
    present(state, processes=3)
    assert seen == [{}]


def test_none_stays_when_one_does_not_come_up(state: Path) -> None:
    with pytest.raises(fleet.FleetError, match=r"(?s)fleet-\d ended with code 1.*no such processor"):
        present(state, processes=2, cpu="666")
    assert not alive(state)


def test_absent_ends_them_all_and_check_mode_does_not(state: Path) -> None:
    present(state, processes=2)
    target: Any = _Target()
    assert fleet.absent(target, state, SPEC, check_mode=True).changed
    assert len(alive(state)) == 2
    assert fleet.absent(target, state, SPEC).changed
    assert not alive(state)
    assert not fleet.absent(target, state, SPEC).changed
    assert fleet.info(state) == {"running": False}


@pytest.mark.parametrize("died", [False, True])
def test_absent_asks_all_to_let_their_vnodes_go_or_one_in_place_of_all(
    state: Path, monkeypatch: pytest.MonkeyPatch, died: bool
) -> None:
    present(state, processes=2)
    if died:
        kill(state, "fleet-0")
    counts = iter([{"nodes": 10, "leases": 10}, {"nodes": 0, "leases": 0}])
    monkeypatch.setattr(fleet, "_labelled", lambda target, run: next(counts))
    names: list[list[str]] = []
    wait = fleet._wait_for
    monkeypatch.setattr(
        fleet, "_wait_for", lambda daemons, *rest: (names.append(sorted(alive(state))), wait(daemons, *rest))[1]
    )
    target: Any = _Target()
    assert fleet.absent(target, state, SPEC).changed
    assert names == [["fleet"] if died else ["fleet-0", "fleet-1"]]
    assert not alive(state)


def test_processes_share_the_vnodes_and_the_connections() -> None:
    spec = msgspec.structs.replace(SPEC, processes=3, serve_port=10250)
    parts = [spec.part(shard) for shard in range(3)]
    assert sorted(index for part in parts for index in part.indices) == list(range(10))
    assert [index % 3 for part in parts for index in part.indices] == [0] * 4 + [1] * 3 + [2] * 3
    assert all(part.owns(index) == (index in part.indices) for part in parts for index in range(10))
    assert [part.owns(None) for part in parts] == [True, False, False]
    assert [(part.connections, part.serve_port) for part in parts] == [(3, 10250), (3, 10251), (3, 10252)]
    assert SPEC.part(0) == SPEC


def test_hosts_have_a_share_each_of_vnodes_and_of_numbered_processes(state: Path) -> None:
    for host in (0, 1):
        (state / str(host)).mkdir()
    wish = {"count": 9, "processes": 4, "hosts": 2}
    found = [present(state / str(host), host=host, **wish) for host in (0, 1)]
    assert [result.started for result in found] == [["fleet-0", "fleet-2"], ["fleet-1", "fleet-3"]]
    assert [result.status["ready"] for result in found] == [5, 4]
    assert not any(present(state / str(host), host=host, **wish).changed for host in (0, 1))
    assert present(state / "1", host=1, **wish | {"count": 3}).status["wanted"] == 1
    for host in (0, 1):
        process.stop(process.marked(state / str(host)))


def test_hosts_own_every_vnode_once() -> None:
    hosts = [msgspec.structs.replace(SPEC, processes=6, hosts=3, host=host) for host in range(3)]
    shares = [[index for shard in one.shards for index in one.part(shard).indices] for one in hosts]
    assert sorted(index for share in shares for index in share) == list(range(10))
    assert [sorted(share) for share in shares] == [list(one.here) for one in hosts]
    assert fleet.names(hosts[2]) == ["fleet-2", "fleet-5"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hosts": 2, "host": 2, "processes": 2}, "host is 2; allowed is 0 to 1"),
        ({"hosts": 2, "processes": 3}, "processes is 3; allowed is 1 to 64 on each host"),
        ({"processes": 65}, "processes is 65; allowed is 1 to 64$"),
    ],
)
def test_hosts_and_processes_fit_together(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        check(msgspec.structs.replace(SPEC, **changes))


@pytest.mark.parametrize("others", [True, False])
def test_a_host_waits_for_the_others_to_let_their_vnodes_go(
    state: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    present(state, processes=2, hosts=2, host=1)
    counts = iter([10, 5, 2, 0] if others else [10, *[5] * 100])
    monkeypatch.setattr(fleet, "_labelled", lambda target, run: {"nodes": next(counts), "leases": 0})
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.05)))
    target: Any = _Target()
    wish = msgspec.structs.replace(SPEC, hosts=2, host=1, processes=2)
    if others:
        assert fleet.absent(target, state, wish).changed
        assert next(counts, None) is None
    else:
        with pytest.raises(fleet.FleetError, match="5 nodes"):
            fleet.absent(target, state, wish, timeout=1)
    assert not alive(state)
