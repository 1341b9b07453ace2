from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from turbokube.bundle import runs
from turbokube.bundle.ledger import Action, Entry, Ledger
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import BundleError, Writer


def test_what_was_written_is_read_back_from_one_file(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.meta(run="r", profile={"turbokube_namespaces": 2})
    writer.insert("nodes", [(1.0, 8, 8, 0), (2.0, 8, 7, 1)])
    writer.flush()
    with Reader(tmp_path) as live:  # while the writer still holds it
        assert [row["ready"] for row in live.query("SELECT ready FROM nodes ORDER BY time")] == [8, 7]
    writer.close(finish=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.sqlite"]
    with Reader(tmp_path) as reader:
        assert reader.meta() == {"run": "r", "profile": {"turbokube_namespaces": 2}}


def test_committed_rows_survive_sigkill(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from turbokube.bundle.writer import Writer
w = Writer(Path(sys.argv[1]))
for i in range(1000):
    w.insert("lag", [(float(i), "loop", 0.0)])
w.flush()
print("there", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    Writer(tmp_path).close()
    with Reader(tmp_path) as reader:
        assert reader.query("SELECT count(*) FROM lag")[0][0] == 1000


def test_rows_are_committed_within_a_second_unasked(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.insert("lag", [(1.0, "loop", 0.5)])
    end = time.monotonic() + 1.0
    with Reader(tmp_path) as reader:
        while not reader.query("SELECT 1 FROM lag"):
            assert time.monotonic() < end
            time.sleep(0.02)
    writer.close()


def test_a_disk_that_stands_still_holds_nobody_up(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    with sqlite3.connect(writer.path) as other:
        other.execute("BEGIN IMMEDIATE")  # no commit of the writer gets through
        writer.insert("lag", [(0.0, "loop", 0.0)])
        with pytest.raises(BundleError, match="the disk does not answer"):
            writer.flush(timeout=0.05)
        worst = 0.0
        for number in range(1000):
            before = time.perf_counter()
            writer.insert("lag", [(float(number), "loop", 0.0)] * 10)
            worst = max(worst, time.perf_counter() - before)
        assert worst < 0.05
    other.close()
    writer.close()
    with Reader(tmp_path) as reader:
        assert reader.query("SELECT count(*) FROM lag")[0][0] == 10_001


def test_a_writer_that_cannot_write_says_so(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.execute("INSERT INTO absent VALUES (1)", [()])
    with pytest.raises(BundleError, match="cannot be written: no such table"):
        writer.flush()
    assert writer.error is not None
    with pytest.raises(BundleError, match="cannot be written"):
        writer.close()


def test_reader_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no bundle\.sqlite"):
        Reader(tmp_path)
    (tmp_path / "bundle.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(BundleError, match="cannot be read"):
        Reader(tmp_path)


def test_bundles_of_earlier_versions_have_empty_tables_and_no_values(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "bundle.sqlite") as old:
        columns = "phase, second, resource, verb, sent, accepted, throttled, retried, failed, latency_sum, latency_max"
        old.execute(f"CREATE TABLE requests({columns})")
        old.execute("INSERT INTO requests VALUES ('create', 1, 'pods', 'create', 2, 2, 0, 0, 0, 0.1, 0.1)")
    old.close()
    with Reader(tmp_path) as reader:
        assert reader.query("SELECT * FROM actions") == []
        assert [tuple(row) for row in reader.query("SELECT sent, intended FROM requests")] == [(2, None)]
    Writer(tmp_path).close()
    with Reader(tmp_path) as reader:
        assert [tuple(row) for row in reader.query("SELECT sent, intended FROM main.requests")] == [(2, None)]


def test_ledger_goes_on_from_what_was_kept(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    ledger = Ledger(writer)
    first = ledger.plan("create", "Deployment", "ns-0", "d-0", replicas=3)
    ledger.plan("create", "Deployment", "ns-0", "d-1", replicas=3)
    first.intended, first.sent, first.accepted, first.status = 1.0, 1.1, 1.2, 201
    ledger.save(first)
    writer.close()

    writer = Writer(tmp_path)
    again = Ledger(writer)
    assert again.plan("create", "Deployment", "ns-0", "d-0", replicas=3) == first
    assert [(entry.name, entry.accepted) for entry in again.of("create")] == [("d-0", 1.2), ("d-1", None)]
    writer.close()
    with sqlite3.connect(tmp_path / "bundle.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM objects").fetchone() == (2,)


def test_a_finished_name_gets_a_suffix_and_an_unfinished_one_is_resumed(tmp_path: Path) -> None:
    assert runs.resolve(tmp_path, "r") == runs.Run("r", tmp_path / "r", "new")
    runs.write(tmp_path / "r", {"run": "r", "finished": None, "profile": {"turbokube_namespaces": 2}})
    assert runs.resolve(tmp_path, "r", {"turbokube_namespaces": 2}).state == "unfinished"
    runs.write(tmp_path / "r", {"run": "r", "finished": 5.0})
    assert runs.resolve(tmp_path, "r").name == "r-2"
    runs.write(tmp_path / "r-2", {"run": "r-2", "finished": 6.0})
    assert runs.resolve(tmp_path, "r") == runs.Run("r-3", tmp_path / "r-3", "new")


def test_another_profile_is_refused_and_the_keys_are_named(tmp_path: Path) -> None:
    before = {"turbokube_namespaces": 2, "turbokube_replicas": 8, "turbokube_preflight": "warn"}
    runs.write(tmp_path / "r", {"run": "r", "profile": before})
    with pytest.raises(BundleError, match=r"\(turbokube_namespaces 2 → 3\)"):
        runs.resolve(tmp_path, "r", {**before, "turbokube_namespaces": 3, "turbokube_preflight": "enforce"})


def test_deadlines_and_limits_of_phases_may_differ_when_a_run_goes_on(tmp_path: Path) -> None:
    def profile(override: dict[str, Any], **changes: Any) -> dict[str, Any]:
        churn = {"kind": "churn", "of": "base", "duration": 9, **changes}
        phases = [{"kind": "create", "name": "base"}, {"together": [churn, {"kind": "scrape"}]}]
        return {"turbokube_phases": phases, "turbokube_phases_override": override}

    runs.write(tmp_path / "r", {"run": "r", "profile": profile({})})
    moved = profile({"churn.limits.seconds": 5, "base.deadline": 60}, deadline=50, limits={"seconds": 9})
    assert runs.resolve(tmp_path, "r", moved).state == "unfinished"
    for other in (profile({}, duration=10), profile({"churn.duration": 10})):
        with pytest.raises(BundleError, match="turbokube_phases"):
            runs.resolve(tmp_path, "r", other)


def test_what_stands_follows_from_objects_and_accepted_actions(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    ledger = Ledger(writer)
    space = ledger.plan("create", "Namespace", "ns", "ns")
    made = ledger.plan("create", "Deployment", "ns", "d", replicas=3)
    assert ledger.standing("create") == []
    space.accepted = made.accepted = 1.0
    ledger.save(space, made)

    def action(number: int, verb: str, of: Entry, at: float | None, replicas: int | None = None) -> Action:
        return Action("churn", number, verb, *of.key, accepted=at, replicas=replicas)

    ledger.keep(action(0, "scale", made, 2.0, 5), action(1, "scale", made, None, 9))
    assert ledger.wanted(made) == 5
    deletion = action(2, "delete", space, 3.0)
    ledger.keep(deletion)
    assert (ledger.wanted(made), ledger.standing("create")) == (0, [])
    ledger.keep(action(3, "create", space, 4.0), action(4, "create", made, 5.0, 3))
    deletion.done = 6.0
    ledger.keep(deletion)  # known already: it does not delete again
    writer.close()
    for one in (ledger, Ledger(Writer(tmp_path))):
        assert {entry.name for entry in one.standing("create")} == {"ns", "d"}
        assert one.wanted(made) == 3
        assert one.actions("churn")[2].done == 6.0
