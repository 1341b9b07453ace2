"""A trace: what was done to workloads, and when. JSON Lines, gzipped; docs/replay.md has the format."""

from __future__ import annotations

import collections
import functools
import gzip
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from turbokube import disk

from .reader import Reader
from .writer import BundleError

VERSION = 1
VERBS = ("create", "delete", "scale", "roll")
KINDS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Pod")
_ALONE = ("DaemonSet", "Pod")  # have no number of replicas
Verb = Literal["create", "delete", "scale", "roll"]
Kind = Literal["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Pod"]


class Header(msgspec.Struct, kw_only=True):
    """The first line. `began`: UNIX time that the operations' times count from; `seconds`: how long was looked.

    `method`: watched (times of the watch), reconstructed (of objects and Events, whole seconds), ledger (of a bundle).
    """

    turbokube_trace: int
    method: Literal["watched", "reconstructed", "ledger"]
    kubernetes: str = ""
    began: float
    seconds: float
    namespaces: int
    operations: int
    notes: list[str] = []  # what is not in it, or not sure

    def __post_init__(self) -> None:
        if self.turbokube_trace != VERSION:
            raise ValueError(f"version {self.turbokube_trace} of the format is not known, only {VERSION}")

    def told(self) -> dict[str, Any]:
        """For who reads JSON."""
        return msgspec.structs.asdict(self)


class Operation(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line: `verb` was done at `t` seconds. What was there before has `before`, and t 0."""

    t: float
    verb: Verb
    kind: Kind
    namespace: str
    name: str
    replicas: int | None = None  # create, scale: pods from then on (Job: completions); None: the cluster decides
    parallelism: int | None = None  # of a Job
    requests: dict[str, str] = {}  # of one pod
    bytes: int = 0  # of the pod's spec or template as JSON; 0: not known
    run_time: float | None = None  # seconds until a pod ended by itself; None: it did not
    before: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.namespace, self.name


class Trace(msgspec.Struct):
    """What a file holds."""

    header: Header
    operations: list[Operation]

    def counts(self) -> dict[str, dict[str, int]]:
        """verb → kind → operations."""
        found: dict[str, dict[str, int]] = {}
        for (verb, kind), count in sorted(collections.Counter((one.verb, one.kind) for one in self.operations).items()):
            found.setdefault(verb, {})[kind] = count
        return found


def pods(found: Trace, nodes: int) -> tuple[int, int]:
    """The most pods that there are at any time, and those at the end; a DaemonSet has one on each of so many nodes."""
    now: dict[tuple[str, str, str], int] = {}
    total = most = 0
    for one in found.operations:
        before = now.pop(one.key, 0)
        if one.verb != "delete":
            alone = {"Pod": 1, "DaemonSet": nodes}.get(one.kind, before)
            now[one.key] = alone if one.replicas is None else one.replicas
        total += now.get(one.key, 0) - before
        most = max(most, total)
    return most, total


def pods_in(path: str, nodes: int) -> tuple[int, int]:
    """The same of a file; none of one that cannot be read here."""
    file = Path(path).expanduser().absolute()
    try:
        return _pods_in(file, file.stat().st_mtime_ns, nodes)
    except (OSError, BundleError):
        return 0, 0


@functools.lru_cache(maxsize=8)
def _pods_in(file: Path, _changed: int, nodes: int) -> tuple[int, int]:
    return pods(read(file), nodes)


def make(operations: Iterable[Operation], *, keep_names: bool, **header: Any) -> Trace:
    """A trace in the order of time; unless names are kept, namespaces and objects have numbers for names."""
    ordered = sorted(operations, key=lambda one: (not one.before, one.t))
    for one in ordered:
        one.t = max(0.0, round(one.t, 3))
    if not keep_names:
        _number(ordered)
    spaces = {one.namespace for one in ordered}
    return Trace(Header(turbokube_trace=VERSION, namespaces=len(spaces), operations=len(ordered), **header), ordered)


def _number(operations: list[Operation]) -> None:
    spaces: dict[str, str] = {}
    names: dict[tuple[str, str, str], str] = {}
    last: collections.Counter[tuple[str, str]] = collections.Counter()
    for one in operations:
        space = spaces.setdefault(one.namespace, f"namespace-{len(spaces) + 1}")
        if one.key not in names:
            last[one.namespace, one.kind] += 1
            names[one.key] = f"{one.kind.lower()}-{last[one.namespace, one.kind]}"
        one.name, one.namespace = names[one.key], space


def encode(trace: Trace) -> bytes:
    """The file's content; the same trace gives the same bytes."""
    lines = msgspec.json.Encoder().encode_lines([trace.header, *trace.operations])
    return gzip.compress(lines, 6, mtime=0)


def write(trace: Trace, path: Path) -> None:
    """Replace the file at one stroke."""
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.replace(path, encode(trace), 0o666)


def read(path: str | Path) -> Trace:
    """A trace from its file, gzipped or not. Raises BundleError with what is wrong, and in which line."""
    header, lines = _open(Path(path))
    decoder = msgspec.json.Decoder(Operation)
    operations: list[Operation] = []
    for number, line in enumerate(lines, 2):
        try:
            operations.append(decoder.decode(line))
        except (msgspec.MsgspecError, ValueError) as error:
            raise BundleError(f"{path} is no trace: line {number}: {error}") from None
    if len(operations) != header.operations:
        raise BundleError(f"{path} has {len(operations)} operations, its first line says {header.operations}")
    return Trace(header, operations)


def read_header(path: str | Path) -> Header:
    """The first line of a trace. Raises BundleError if it is none."""
    return _open(Path(path))[0]


def _open(path: Path) -> tuple[Header, list[bytes]]:
    try:
        raw = path.read_bytes()
        first, *lines = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).splitlines() or [b""]
        return msgspec.json.decode(first, type=Header), lines
    except FileNotFoundError:
        raise BundleError(f"there is no trace {path}; playbooks/record.yml makes one") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise BundleError(f"{path} is no trace: line 1: {error}") from None


def of_bundle(folder: str | Path, *, keep_names: bool = False) -> Trace:
    """What the ledger of a run says was done, at the times at which it was intended. Raises BundleError."""
    with Reader(folder) as reader:
        meta = reader.meta()
        requests = {row["name"]: _requests(row["spec"]) for row in reader.query("SELECT name, spec FROM phases")}
        rows = [dict(row) for row in reader.query("SELECT * FROM objects WHERE accepted IS NOT NULL")]
        acts = [dict(row) for row in reader.query("SELECT * FROM actions WHERE accepted IS NOT NULL ORDER BY accepted")]
    if not rows:
        raise BundleError(f"{folder} has no load that could be replayed")
    other: collections.Counter[str] = collections.Counter()
    operations = _creates(rows, requests, other)
    operations += _actions(acts, {one.key: one for one in operations}, other)
    begun = min(one.t for one in operations) if operations else 0.0
    for one in operations:
        one.t -= begun
    return make(
        operations,
        keep_names=keep_names,
        method="ledger",
        kubernetes=str((meta.get("versions") or {}).get("kubernetes", "")),
        began=begun,
        seconds=max((one.t for one in operations), default=0.0),
        notes=[f"{count} of {what} are not in it" for what, count in sorted(other.items()) if count],
    )


def _requests(spec: str | None) -> dict[str, str]:
    """What each pod of a create phase asks for."""
    phase: Mapping[str, Any] = msgspec.json.decode(spec) if spec else {}
    wanted = {name: str(phase.get(f"pod_{name}") or "") for name in ("cpu", "memory")}
    return {name: value for name, value in wanted.items() if value}


def _creates(
    rows: list[dict[str, Any]], requests: Mapping[str, dict[str, str]], other: collections.Counter[str]
) -> list[Operation]:
    found = []
    for row in rows:
        if row["kind"] not in KINDS:
            other[f"create {row['kind']}"] += row["kind"] != "Namespace"
            continue
        found.append(
            Operation(
                t=row["intended"] or row["accepted"], verb="create", kind=row["kind"], namespace=row["namespace"],
                name=row["name"], replicas=None if row["kind"] in _ALONE else row["replicas"],
                requests=requests.get(row["phase"], {}),
            )
        )  # fmt: skip
    return found


def _actions(
    rows: list[dict[str, Any]], created: Mapping[tuple[str, str, str], Operation], other: collections.Counter[str]
) -> list[Operation]:
    """Of a Namespace's deletion: that of all that stood in it."""
    found: list[Operation] = []
    standing = set(created)
    for row in rows:
        when, verb, space = row["intended"] or row["accepted"], row["verb"], row["namespace"]
        key = (row["kind"], space, row["name"])
        if row["kind"] == "Namespace" and verb == "delete":
            gone = [one for one in standing if one[1] == row["name"] and (created[one].t or 0.0) <= row["accepted"]]
            keys = sorted(gone)
        elif key in created and verb in VERBS:
            keys = [key]
        else:
            other[f"{verb} {row['kind']}"] += row["kind"] != "Namespace"
            continue
        for kind, within, name in keys:
            first = created[kind, within, name]
            one = Operation(t=when, verb=verb, kind=first.kind, namespace=within, name=name)
            if verb == "create":
                one = msgspec.structs.replace(first, t=when)
            if verb in ("create", "scale") and row["replicas"] is not None and kind not in _ALONE:
                one.replicas = row["replicas"]
            found.append(one)
            (standing.discard if verb == "delete" else standing.add)((kind, within, name))
    return found
