"""Traces: written and read again, numbered names, what a bundle's ledger tells."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from turbokube.bundle import trace
from turbokube.bundle.trace import Operation
from turbokube.bundle.writer import BundleError, Writer


def operation(t: float, verb: Any, name: str, space: str = "shop", kind: Any = "Deployment", **more: Any) -> Operation:
    return Operation(t=t, verb=verb, kind=kind, namespace=space, name=name, **more)


def made(operations: list[Operation], **more: Any) -> trace.Trace:
    return trace.make(operations, **{"keep_names": False, "method": "watched", "began": 5.0, "seconds": 9.0, **more})


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    operations = [operation(0.1234, "create", "web", replicas=3, requests={"cpu": "1"}, bytes=900),
                  operation(2.0, "scale", "web", replicas=0), operation(3.0, "delete", "web")]  # fmt: skip
    first = made(operations, keep_names=True, kubernetes="v1.36.3", notes=["a note"])
    path = tmp_path / "deep" / "trace.jsonl.gz"
    trace.write(first, path)
    again = trace.read(path)
    assert again == first
    assert again.operations[0].t == 0.123
    assert (again.header.operations, again.header.namespaces, again.header.turbokube_trace) == (3, 1, 1)
    assert again.operations[1].replicas == 0  # which is not the same as none
    assert again.counts() == {"create": {"Deployment": 1}, "delete": {"Deployment": 1}, "scale": {"Deployment": 1}}
    assert trace.encode(first) == path.read_bytes()
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert trace.read(plain) == first
    assert plain.read_text().startswith('{"turbokube_trace":1,')


def test_names_become_numbers_and_stay_apart() -> None:
    operations = [
        operation(1, "create", "web"), operation(2, "create", "web", space="bank"),
        operation(3, "create", "secret-api"), operation(4, "create", "web", kind="Job"), operation(5, "delete", "web"),
    ]  # fmt: skip
    found = [(one.verb, one.namespace, one.name) for one in made(operations).operations]
    assert found == [
        ("create", "namespace-1", "deployment-1"), ("create", "namespace-2", "deployment-1"),
        ("create", "namespace-1", "deployment-2"), ("create", "namespace-1", "job-1"),
        ("delete", "namespace-1", "deployment-1"),
    ]  # fmt: skip


def test_what_was_there_before_comes_first() -> None:
    found = made([operation(2, "delete", "b"), operation(0, "create", "a"), operation(0, "create", "b", before=True)])
    assert [(one.verb, one.before) for one in found.operations] == [
        ("create", True), ("create", False), ("delete", False)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([b"not json"], "is no trace: line 1"),
        ([], "is no trace: line 1"),
        ([b'{"name": "x"}'], "is no trace: line 1"),
        ([b'{"turbokube_trace":2,"method":"watched","began":0,"seconds":1,"namespaces":1,"operations":0}'],
         "version 2 of the format is not known"),
        ([b'{"turbokube_trace":1,"method":"watched","began":0,"seconds":1,"namespaces":1,"operations":1}',
          b'{"t":0,"verb":"eat"}'], "is no trace: line 2"),
        ([b'{"turbokube_trace":1,"method":"watched","began":0,"seconds":1,"namespaces":1,"operations":3}'],
         "has 0 operations, its first line says 3"),
    ],
)  # fmt: skip
def test_what_is_no_trace_is_refused_in_one_sentence(tmp_path: Path, lines: list[bytes], words: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(BundleError, match=words) as raised:
        trace.read(path)
    assert "\n" not in str(raised.value)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    trace.write(made([operation(n, "create", f"web-{n}") for n in range(500)]), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match="cannot be read"):
        trace.read(path)


# bundles


def bundle(folder: Path, objects: list[tuple[Any, ...]], actions: list[tuple[Any, ...]] = []) -> Path:  # noqa: B006
    """objects: kind, namespace, name, intended, replicas; actions: number, verb, the same."""
    writer = Writer(folder)
    spec = msgspec.json.encode({"pod_memory": "32Mi", "pod_cpu": ""}).decode()
    writer.insert("phases", [("create", "create", spec, 100.0, 200.0, "done", "")])
    rows = [("create", kind, space, name, at, at, None if at is None else at + 1, 201, 0, 0, 0, replicas, None, 1)
            for kind, space, name, at, replicas in objects]  # fmt: skip
    writer.insert("objects", rows)
    acts = [("later", number, verb, kind, space, name, at, at, at + 1, 200, 0, 0, 0, None, replicas)
            for number, verb, kind, space, name, at, replicas in actions]  # fmt: skip
    writer.insert("actions", acts)
    writer.meta(versions={"kubernetes": "v1.36.3"})
    writer.close()
    return folder


def test_a_bundle_tells_what_was_intended_when(tmp_path: Path) -> None:
    folder = bundle(
        tmp_path,
        [("Namespace", "n", "n", 99.0, 0), ("Deployment", "n", "web", 100.0, 3), ("DaemonSet", "n", "log", 101.0, 8),
         ("ConfigMap", "n", "c", 101.5, 0), ("Deployment", "n", "never", None, 3)],
        [(0, "scale", "Deployment", "n", "web", 104.0, 5), (1, "roll", "Deployment", "n", "web", 105.0, None),
         (2, "patch", "Deployment", "n", "web", 105.5, None), (3, "delete", "Deployment", "n", "web", 106.0, 0),
         (4, "create", "Deployment", "n", "web", 107.0, 4)],
    )  # fmt: skip
    found = trace.of_bundle(folder, keep_names=True)
    assert [(one.t, one.verb, one.kind, one.name, one.replicas) for one in found.operations] == [
        (0.0, "create", "Deployment", "web", 3), (1.0, "create", "DaemonSet", "log", None),
        (4.0, "scale", "Deployment", "web", 5), (5.0, "roll", "Deployment", "web", None),
        (6.0, "delete", "Deployment", "web", None), (7.0, "create", "Deployment", "web", 4),
    ]  # fmt: skip
    assert found.operations[0].requests == found.operations[-1].requests == {"memory": "32Mi"}
    assert found.header.notes == ["1 of create ConfigMap are not in it", "1 of patch Deployment are not in it"]
    assert (found.header.began, found.header.seconds, found.header.kubernetes) == (100.0, 7.0, "v1.36.3")


def test_pods_and_daemonsets_have_no_replicas(tmp_path: Path) -> None:
    folder = bundle(
        tmp_path, [("Pod", "n", "p", 100.0, 1), ("DaemonSet", "n", "d", 100.0, 8)],
        [(0, "delete", "Pod", "n", "p", 101.0, 0), (1, "create", "Pod", "n", "p", 102.0, 1)],
    )  # fmt: skip
    assert [one.replicas for one in trace.of_bundle(folder).operations] == [None] * 4


def test_the_end_of_a_namespace_is_that_of_what_stood_in_it(tmp_path: Path) -> None:
    folder = bundle(
        tmp_path,
        [("Namespace", "n", "n", 99.0, 0), *(("Deployment", "n", name, 100.0, 3) for name in "abc"),
         ("Deployment", "m", "a", 100.0, 3)],
        [(0, "delete", "Deployment", "n", "b", 101.0, 0), (1, "delete", "Namespace", "n", "n", 104.0, None),
         (2, "create", "Namespace", "n", "n", 105.0, None), (3, "create", "Deployment", "n", "a", 106.0, 3)],
    )  # fmt: skip
    found = trace.of_bundle(folder, keep_names=True).operations
    assert [(one.t, one.verb, one.namespace, one.name) for one in found if one.t] == [
        (1.0, "delete", "n", "b"), (4.0, "delete", "n", "a"), (4.0, "delete", "n", "c"), (6.0, "create", "n", "a"),
    ]  # fmt: skip


def test_a_bundle_without_load_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no load that could be replayed"):
        trace.of_bundle(bundle(tmp_path, []))


PODS = [
    operation(0.0, "create", "old", replicas=3, before=True),
    operation(1.0, "create", "each", kind="DaemonSet"),
    operation(2.0, "create", "one", kind="Pod"),
    operation(3.0, "scale", "old", replicas=10),
    operation(4.0, "roll", "old"),
    operation(5.0, "create", "old", space="other", replicas=2),
    operation(6.0, "delete", "old"),
    operation(7.0, "create", "batch", kind="Job", replicas=4, parallelism=2),
    operation(8.0, "delete", "one", kind="Pod"),
]


def test_pods_at_their_most_and_at_the_end() -> None:
    assert trace.pods(made(PODS), 5) == (10 + 5 + 1 + 2, 2 + 5 + 4)


def test_a_file_that_is_not_here_counts_nothing_one_that_is_written_anew_is_counted_anew(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl.gz"
    assert trace.pods_in(str(path), 5) == (0, 0)
    trace.write(made(PODS[:1]), path)
    assert trace.pods_in(str(path), 5) == (3, 3)
    trace.write(made(PODS[:3]), path)
    os.utime(path, ns=(0, 0))
    assert trace.pods_in(str(path), 5) == (9, 9)
    path.write_text("no trace")
    assert trace.pods_in(str(path), 5) == (0, 0)
