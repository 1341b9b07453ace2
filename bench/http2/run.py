"""Connections with watches as nodes have them, by api.http2 and by the h2 package, in turns: what each costs.

    python bench/http2/run.py --connections 1000 --watches 8 --rounds 2

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.integration.control_plane import ControlPlane, control_plane  # noqa: E402
from turbokube.api.target import load_target  # noqa: E402
from turbokube.vnode import join  # noqa: E402
from turbokube.vnode.spec import Spec  # noqa: E402

PREFIX = "bench-http2-"
FIGURES = (  # key, words, format
    ("connection_kb", "KB per connection, before watches", "{:.1f}"),
    ("watch_kb", "KB per watch", "{:.2f}"),
    ("whole_kb", "KB per connection with all its watches", "{:.1f}"),
    ("connect_cpu_ms", "CPU ms per connection (handshake, certificate, one POST)", "{:.2f}"),
    ("watch_cpu_us", "CPU µs per watch opened", "{:.0f}"),
    ("put_cpu_us", "CPU µs per lease PUT", "{:.0f}"),
    ("puts_per_s", "lease PUTs per second", "{:.0f}"),
    ("event_cpu_us", "CPU µs per watch event", "{:.1f}"),
)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--connections", type=int, default=1000)
    words.add_argument("--watches", type=int, default=8, help="on each connection")
    words.add_argument("--changes", type=int, default=20, help="of a Service, which is an event on two watches in five")
    words.add_argument("--rounds", type=int, default=2)
    words.add_argument("--state", type=Path, help="a run's state folder whose control plane is up; else one is made")
    options = words.parse_args()
    found: dict[str, list[dict[str, float]]] = {"ours": [], "package": []}
    with plane_of(options.state) as plane:
        spec = Spec(run="bench-http2", count=options.connections, name_prefix=PREFIX, fidelity="kubelet")
        join.prepare(load_target(plane.target), plane.state, spec, time.monotonic() + 600)
        try:
            for turn in range(options.rounds):
                for kind in sorted(found, reverse=bool(turn % 2)):
                    found[kind].append(measure(plane, kind, options))
                    print(kind, json.dumps(found[kind][-1]), file=sys.stderr, flush=True)
        finally:
            plane.kubectl("delete", "leases", "--namespace=kube-node-lease", "--selector=turbokube.io/run=bench-http2")
            for file in (plane.state / "fleet" / "pki").glob(f"{PREFIX}*.pem"):
                file.unlink()
    show(found)


@contextlib.contextmanager
def plane_of(state: Path | None) -> Iterator[ControlPlane]:
    if state is not None:
        yield ControlPlane(state, {})
    else:
        with control_plane() as made:
            yield made


def measure(plane: ControlPlane, kind: str, options: argparse.Namespace) -> dict[str, float]:
    """One process, phase by phase."""
    argv = [sys.executable, str(Path(__file__).with_name("client.py")), kind, str(plane.target), PREFIX]
    client = subprocess.Popen(
        [*argv, str(options.connections), str(options.watches)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    found: dict[str, float] = {}

    def say(word: str) -> None:
        client.stdin.write(f"{word}\n")  # type: ignore[union-attr]
        client.stdin.flush()  # type: ignore[union-attr]

    def hear() -> None:
        found.update(json.loads(client.stdout.readline()))  # type: ignore[union-attr]

    try:
        for phase in ("connect", "watch", "renew"):
            say(phase)
            hear()
        say("events")
        plane.kubectl("create", "service", "clusterip", "bench-http2", "--tcp=80")
        for number in range(options.changes):
            plane.kubectl("annotate", "--overwrite", "service", "bench-http2", f"number={number}")
        hear()
        plane.kubectl("delete", "service", "bench-http2")
        say("memory")
        hear()
    finally:
        client.stdin.close()
        client.wait(30)
    found["whole_kb"] = found["connection_kb"] + options.watches * found["watch_kb"]
    return found


def show(found: dict[str, list[dict[str, float]]]) -> None:
    print(f"| median of {len(found['ours'])} | api.http2 | h2 package | ratio |\n|---|---|---|---|")
    for key, text, form in FIGURES:
        ours, package = (statistics.median(one[key] for one in found[kind]) for kind in ("ours", "package"))
        print(f"| {text} | {form.format(ours)} | {form.format(package)} | {ours / package:.2f} |")


if __name__ == "__main__":
    main()
