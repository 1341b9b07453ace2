"""One real control plane for all tests of a session that name it: one etcd, one API server, loopback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.control_plane import NAMES, SHARED, ControlPlane, binaries, control_plane
from tests.integration.runs import loaded_fleet, run  # noqa: F401 (fixtures)


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A control plane with one extra scheduler; what a test makes in it, it removes."""
    if missing := sorted(set(NAMES) - {"kine"} - set(binaries())):
        pytest.fail(
            f"no {', '.join(missing)}: `make binaries` gets them, TURBOKUBE_BINARIES names a folder that has them"
        )
    with control_plane(**SHARED) as running:
        yield running


@pytest.fixture(scope="session")
def target(plane: ControlPlane) -> Path:
    """Path of the control plane's target.json."""
    return plane.target


def pytest_configure() -> None:
    """SIGTERM ends the session as Ctrl-C does, so that what fixtures started is torn down."""
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated"))
