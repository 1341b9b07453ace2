"""How fast Leases can be renewed at all: the engine's renewals without their clock, and a generic HTTP load tool.

    python bench/fleet/limit.py --connections 16 --rounds 3

Both send the same PUTs with the same certificate over as many connections, each to a Lease of its own, in turns on one
control plane. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import gauge  # noqa: E402

from bench import binaries  # noqa: E402
from tests.integration.control_plane import ControlPlane, control_plane  # noqa: E402
from turbokube.api.credentials import Credential  # noqa: E402
from turbokube.api.http1 import Http1  # noqa: E402
from turbokube.api.target import Target, load_target  # noqa: E402
from turbokube.vnode import objects  # noqa: E402
from turbokube.vnode.client import Client  # noqa: E402
from turbokube.vnode.crew import Crew  # noqa: E402
from turbokube.vnode.metrics import Counts  # noqa: E402
from turbokube.vnode.nodes import LEASES, NODES, Vnode  # noqa: E402
from turbokube.vnode.renewals import Renewals  # noqa: E402
from turbokube.vnode.spec import Spec  # noqa: E402

K6_VERSION = "1.8.1"
_SPEC = Spec(run="benchlimit", count=0, name_prefix="limit-")


class Work(msgspec.Struct):
    """What the engine's side is told on its standard input."""

    credential: Credential
    servers: list[str]
    connections: int
    seconds: float
    uids: list[str] = []  # of the Nodes that own the Leases; without them the garbage collector would take those


def main() -> None:
    if "--engine" in sys.argv:
        uvloop.run(_renew(msgspec.json.decode(sys.stdin.buffer.read(), type=Work)))
        return
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--k6", default="auto", help="path of k6, or auto: the cached one, built when there is none")
    words.add_argument("--connections", type=int, default=16)
    words.add_argument("--seconds", type=float, default=20.0, help="of one turn")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--output", type=Path, help="JSON file; default: runs/bench-limit.json of the checkout")
    given = words.parse_args()
    k6 = binaries.built(given.k6, "k6", K6_VERSION, Path(__file__).resolve().parent / "k6", "go.k6.io/k6")
    results: list[dict[str, Any]] = []
    conditions = gauge.conditions()
    with tempfile.TemporaryDirectory(prefix="turbokube-bench-") as name, control_plane() as plane:
        folder, target = Path(name), load_target(plane.target)
        credential = target.credential("fleet")
        work = Work(credential, target.addresses(credential), given.connections, given.seconds)
        asyncio.run(_create(work))
        sides: dict[str, Callable[[], None]] = {
            "turbokube": lambda: _engine(work),
            "k6": lambda: _tool(k6, work, folder),
        }
        for number in range(given.rounds):
            for side in list(sides) if number % 2 == 0 else reversed(sides):
                results.append({"side": side, **_measured(sides[side], plane, target, given.seconds)})
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    settings = {"connections": given.connections, "seconds": given.seconds, "k6_version": K6_VERSION}
    report = {"conditions": conditions, "settings": settings, "results": results, **table(results)}
    output: Path = given.output or ROOT / "runs" / "bench-limit.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{output}")


def _measured(side: Callable[[], None], plane: ControlPlane, target: Target, seconds: float) -> dict[str, float]:
    """PUTs that the API server accepted per second; CPU of the client (its start too) and servers for each."""
    servers = {name: gauge.component(plane, name) for name in ("kube-apiserver", "etcd")}
    before, used = gauge.looks(target, 0)[0], resource.getrusage(resource.RUSAGE_CHILDREN)
    serving = {name: gauge.cpu(pids) for name, pids in servers.items()}
    side()
    serving = {name: gauge.cpu(pids) - serving[name] for name, pids in servers.items()}
    done, after = resource.getrusage(resource.RUSAGE_CHILDREN), gauge.looks(target, 0)[0]
    puts = after.renewals - before.renewals
    mine = done.ru_utime + done.ru_stime - used.ru_utime - used.ru_stime
    latencies = zip(before.latency("leases", "PUT"), after.latency("leases", "PUT"), strict=True)
    took, count = (last - first for first, last in latencies)
    return {
        "puts_per_s": puts / seconds,
        "client_cpu_ms": mine * 1000 / puts,
        "server_ms": took * 1000 / count,
        **{f"{name}_cpu_ms": value * 1000 / puts for name, value in serving.items()},
    }


# the engine's side


async def _create(work: Work) -> None:
    transport = Http1(work.credential, work.servers, size=8)
    for index in range(work.connections):
        node = objects.node(_SPEC, index, "v1.36.3", time.time())
        made = (await transport.request("POST", NODES, node)).checked().body
        work.uids.append(msgspec.json.decode(made, type=objects.Node).metadata.uid)
        lease = objects.lease(_SPEC, _SPEC.name(index), work.uids[-1], b"", time.time())
        (await transport.request("POST", LEASES, lease)).checked()
    await transport.close()


def _engine(work: Work) -> None:
    """In a process of its own, as a fleet is."""
    command = [sys.executable, str(Path(__file__).resolve()), "--engine"]
    subprocess.run(command, input=msgspec.json.encode(work), check=True)


async def _renew(work: Work) -> None:
    """The product's renewal, called again as soon as it is done: no wheel, nothing else left out."""
    transport = Http1(work.credential, work.servers, size=work.connections, user_agent="turbokube-fleet/bench")
    client = Client(transport, Counts(), 10.0)
    renewals = Renewals(_SPEC, client, Crew(work.connections))
    end = time.monotonic() + work.seconds

    async def forever(index: int) -> None:
        vnode = Vnode(index, _SPEC.name(index), client)
        vnode.uid, vnode.joined = work.uids[index], True
        answer = await transport.request("GET", f"{LEASES}/{vnode.name}")
        vnode.lease_version = objects.resource_version(answer.checked().body)
        while time.monotonic() < end:
            await renewals.renew(vnode, time.monotonic())

    await asyncio.gather(*(forever(index) for index in range(work.connections)))
    await transport.close()


# the tool's side


def _tool(k6: Path, work: Work, folder: Path) -> None:
    """k6 over HTTP/1.1, one connection for each of its users."""
    files = {"ca": work.credential.ca, "certificate": work.credential.certificate, "key": work.credential.key}
    for name, text in files.items():
        file = folder / f"{name}.pem"
        file.touch(mode=0o600)
        file.write_text(text or "")
    body = objects.lease(_SPEC, "NAME", "OWNER", b"VERSION", 0.0).decode()
    given = {
        "CONNECTIONS": work.connections,
        "SECONDS": work.seconds,
        "CERTIFICATE": folder / "certificate.pem",
        "KEY": folder / "key.pem",
        "SERVER": work.servers[0],
        "LEASES": LEASES,
        "PREFIX": _SPEC.name_prefix,
        "BODY": body.replace("1970-01-01T00:00:00.000000Z", "MOMENT"),
        "OWNERS": ",".join(work.uids),
    }
    protocol = {"SSL_CERT_FILE": str(folder / "ca.pem"), "GODEBUG": "http2client=0"}
    environment = {**os.environ, **protocol, "HOME": str(folder)}
    arguments = [f"--env={name}={value}" for name, value in given.items()]
    script = Path(__file__).resolve().parent / "k6" / "renew.js"
    command = [str(k6), "run", "--quiet", "--no-usage-report", *arguments, str(script)]
    with (folder / "k6.log").open("ab") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)


def table(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Print medians side by side; returns them and the engine's share of the tool's rate."""
    keys = [key for key in results[0] if key != "side"]
    found = {
        side: {key: gauge.middle([one[key] for one in results if one["side"] == side]) for key in keys}
        for side in ("turbokube", "k6")
    }
    print(f"{'':28}{'turbokube':>12}{'k6':>12}")
    for key in keys:
        print(f"{key:28}{found['turbokube'][key]:>12.3f}{found['k6'][key]:>12.3f}")
    share = found["turbokube"]["puts_per_s"] / found["k6"]["puts_per_s"]
    print(f"share of the tool's rate: {share:.2f}")
    return {"medians": found, "share": share}


if __name__ == "__main__":
    main()
