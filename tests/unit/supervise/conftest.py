"""A run's state folder whose processes are gone when the test ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from turbokube.supervise import remove_sockets, stop_all


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "a state"  # a space, since a checkout may lie anywhere
    folder.mkdir(mode=0o700)
    yield folder
    stop_all(folder, patience=1.0)
    remove_sockets(folder)
