"""Bundles for the report's tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.report.hand import Bundle


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The generator: Shape and make."""
    return sys.modules.get("synthetic") or _load("synthetic")


@pytest.fixture(scope="session")
def healthy(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a quickstart in which nothing went wrong."""
    folder: Path = synthetic.make(tmp_path_factory.mktemp("runs") / "healthy")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path / "run")
