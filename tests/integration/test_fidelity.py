"""The level that a real API server's metrics tell is the one that the fleet has, to the watch."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.integration.control_plane import ControlPlane
from tests.integration.fleets import wait_for
from turbokube.api.target import load_target
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.measure import fidelity, sli
from turbokube.measure.scrape import Scraper
from turbokube.measure.series import Metrics
from turbokube.vnode import fleet
from turbokube.vnode.spec import Spec

COUNT = 8
SECONDS = 8
RENEWED = sli.LeaseRatio("apiserver", 1.0, SECONDS, ())


def scraped(plane: ControlPlane, folder: Path) -> fidelity.Fidelity:
    """What some seconds of a fleet tell."""
    target, writer = load_target(plane.target), Writer(folder)
    scraper = Scraper(writer, target.credential("scraper"), target.components, 1.0)

    async def scrape() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(scraper.run(), SECONDS)

    begin = time.time()
    asyncio.run(scrape())
    writer.insert("nodes", [(moment, COUNT, COUNT, 0) for moment in (begin, time.time())])
    writer.close(finish=True)
    with Reader(folder) as reader:
        return fidelity.measure(reader, Metrics(reader), (RENEWED,), 1.0)


@pytest.mark.parametrize("level", ["lease", "kubelet", "node"])
def test_the_level_of_a_fleet_is_measured(plane: ControlPlane, tmp_path: Path, level: str) -> None:
    target, spec = load_target(plane.target), Spec(run=f"true-{level}", count=COUNT, fidelity=level)
    wait_for(lambda: _nodes(plane) <= COUNT, 90)  # those of tests before are counted for a while
    try:
        fleet.present(lambda: target, plane.state, spec, timeout=120)
        found = scraped(plane, tmp_path / "bundle")
    finally:
        fleet.absent(target, plane.state, spec, timeout=120)
    assert found.level == level, found
    kubelets, proxies = int(level != "lease"), int(level == "node")
    assert found.per_node == {
        fidelity.RENEWALS: 1.0,
        fidelity.NODE_BY_NAME: kubelets + proxies,
        **dict.fromkeys(("csidrivers", "runtimeclasses"), kubelets),
        **dict.fromkeys(("endpointslices", "servicecidrs"), proxies),
    }


def _nodes(plane: ControlPlane) -> float:
    """Nodes in the store, as its API server counts them about once a minute."""
    text = plane.kubectl("get", "--raw", "/metrics")
    counts = [
        line.rpartition(" ")[2]
        for line in text.splitlines()
        if line.startswith("apiserver_resource_objects{") and 'resource="nodes"' in line
    ]
    return max(map(float, counts), default=0.0)
