"""Bundles of segments as one: every row once, sums exact."""

from __future__ import annotations

from pathlib import Path

from turbokube.bundle.merge import merge
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer


def segment(folder: Path, number: int, pods: int) -> Path:
    writer = Writer(folder)
    space = f"turbokube-{number:04x}"
    row = (f"{space}-{{}}", space, "p", "d", "n", 1.0, 1.1, 2.0, 2.1, 3.0, 3.1, None, 0, 0, None)
    writer.insert("pods", [(row[0].format(one), *row[1:]) for one in range(pods)])
    writer.insert("objects", [("create", "Namespace", space, space, 1.0, 1.0, 1.0, 201, 0, 0, 0, 0, 1.0, None)])
    writer.insert("objects", [("create", "Deployment", space, "d", 1.0, 1.0, 1.1, 201, 0, 0, 0, pods, 3.1, 1)])
    writer.insert("requests", [("create", 1, "deployments", "create", 1, 1, 0, 0, 0, 0.1, 0.1, 1)])
    writer.insert("latencies", [("create", "deployments", "create", 0.1, 2 + number)])
    writer.insert("lag", [(1.0, "loop", 0.01 * number)])
    writer.insert("interruptions", [(1.0, 2.0, "agent", "the run had no agent")])
    writer.insert(
        "series", [(1, "agent", "agent", "cpu", "{}", "counter"), (2, "etcd-0", "etcd", "cpu", "{}", "counter")]
    )
    writer.insert("samples", [(1, 1.0, 5.0 + number), (2, 1.0, 99.0)])
    writer.insert("nodes", [(1.0, 0, 0, 0)])
    writer.insert("phases", [("create", "create", "{}", 1.0 + number, 9.0 + number, "done", "")])
    writer.close(finish=True)
    return folder


def test_every_row_is_there_once_and_sums_are_exact(tmp_path: Path) -> None:
    folders = {number: segment(tmp_path / str(number), number, pods) for number, pods in enumerate((3, 5))}
    main = tmp_path / "main"
    writer = Writer(main)
    writer.insert("series", [(1, "etcd-0", "etcd", "cpu", "{}", "counter")])
    writer.insert("samples", [(1, 1.0, 7.0)])
    told = merge(writer, folders)
    merge(writer, folders)  # an agent that died after the first half does it again
    writer.close(finish=True)
    with Reader(main) as reader:

        def one(sql: str) -> object:
            return tuple(reader.query(sql)[0])

        assert one("SELECT count(*), count(DISTINCT namespace) FROM pods") == (8, 2)
        assert one("SELECT count(*), sum(replicas) FROM objects WHERE kind = 'Deployment'") == (2, 8)
        assert one("SELECT sum(count), count(*) FROM latencies") == (5, 1)
        assert one("SELECT sum(sent) FROM requests") == (2,)
        assert one("SELECT count(*) FROM nodes") == (0,)
        whose = reader.query("SELECT component, value FROM samples JOIN series ON series = id ORDER BY component")
        assert [tuple(row) for row in whose] == [("agent-0", 5.0), ("agent-1", 6.0), ("etcd-0", 7.0)]
        what = {row[0] for row in reader.query("SELECT what FROM interruptions")}
        assert what == {"agent-0", "agent-1"}
    assert [(one["pods"], one["running"], one["objects"]) for one in told] == [(3, 3, 1), (5, 5, 1)]
    assert [(one["started"], one["ended"], one["state"]) for one in told] == [(1.0, 9.0, "done"), (2.0, 10.0, "done")]
