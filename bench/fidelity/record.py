"""What one real node sends, request by request with bodies, while it starts and runs the pods of a manifest.

    python -m bench.fidelity.record [--delete-after 90] [--seconds 120] [bench/fidelity/pods/probes.yaml ...]

See README.md beside this file. Every line: time, user, verb, path, code, body.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from bench.fidelity import real
from bench.fidelity.plane import audited
from bench.fidelity.relay import Relay
from bench.fidelity.run import ready, until

REAL = ("system:node:", "system:kube-proxy")


def main() -> None:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("manifests", nargs="*", type=Path, help="applied once the node is Ready")
    words.add_argument("--seconds", type=float, default=60.0, help="how long to look on after that")
    words.add_argument("--delete-after", type=float, default=0.0, help="seconds until they are deleted; 0: never")
    words.add_argument("--images", type=int, default=50)
    words.add_argument("--start", type=float, default=0.3, help="seconds that a container takes to start")
    words.add_argument("--binaries", type=Path, help="folder with kubelet and kube-proxy; default: the cache")
    words.add_argument("--no-proxy", action="store_true")
    words.add_argument("--headers", type=Path, help="a file for the kubelet's log, requests' headers in it")
    given = words.parse_args()
    if given.delete_after > given.seconds:
        words.error("--delete-after is beyond --seconds")
    record(given)


def record(given: argparse.Namespace) -> None:
    """From the node's first request to the end."""
    with (
        real.terminated(),
        tempfile.TemporaryDirectory(prefix="fidelity-") as name,
        audited(Path(name), bodies=True) as plane,
    ):
        relay = Relay(plane.port)
        nodes = real.RealNodes(Path(name), plane.pki, plane.port, relay, real.binaries(Path(name), given.binaries))
        try:
            verbosity = 9 if given.headers else 2
            nodes.start(1, images=given.images, start=given.start, proxy=not given.no_proxy, verbosity=verbosity)
            until(lambda: ready(plane) == 1, "the node is Ready")
            files = [f"--filename={path}" for path in given.manifests]
            if files:
                plane.plane.kubectl("apply", *files)
            time.sleep(given.delete_after or given.seconds)
            if files and given.delete_after:
                plane.plane.kubectl("delete", "--wait=false", *files)
                time.sleep(given.seconds - given.delete_after)
            time.sleep(2.0)  # for the log's last batch
            show(plane.log)
            if given.headers:
                given.headers.write_bytes((nodes.nodes[0].folder / "kubelet.log").read_bytes())
        finally:
            nodes.close()
            relay.close()


def show(log: Path) -> None:
    """Print the node's requests in the order of their coming."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    mine = [event for event in events if event["user"].get("username", "").startswith(REAL)]
    for event in sorted(mine, key=lambda event: event["requestReceivedTimestamp"]):
        if line := shown(event):
            print(*line)


def shown(event: dict[str, Any]) -> tuple[str, ...]:
    """A line's words, or none for the beginning of what is told by its end."""
    watch = event["verb"] == "watch"
    if event["stage"] not in ("ResponseStarted" if watch else "ResponseComplete", "ResponseComplete"):
        return ()
    verb = "end of watch" if watch and event["stage"] == "ResponseComplete" else event["verb"]
    at = event["stageTimestamp"] if verb == "end of watch" else event["requestReceivedTimestamp"]
    body = json.dumps(event["requestObject"], separators=(",", ":")) if event.get("requestObject") else ""
    who = event["user"]["username"].removeprefix("system:")
    return at[11:23], who, verb, unquote(event["requestURI"]), str(event["responseStatus"].get("code", "")), body


if __name__ == "__main__":
    main()
