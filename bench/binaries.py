"""Binaries that benches need beside the control plane's, built with Go from pinned modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.control_plane import cache


def built(given: str, name: str, version: str, module: Path, package: str) -> Path:
    """The path given, or with `auto` the one in the binary cache, built there from the pinned module if need be."""
    if given != "auto":
        return Path(given)
    binary = cache() / f"{name}-{version}" / name
    if not binary.exists():
        print(f"building {name} {version}: about two minutes", file=sys.stderr)
        binary.parent.mkdir(parents=True, exist_ok=True)
        part = binary.with_name(f".{name}.{os.getpid()}.{time.monotonic_ns()}.part")
        go(module, "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", f"-o={part}", package)
        part.replace(binary)
    return binary


def go(module: Path, *arguments: str, **environment: str) -> str:
    """What PATH's Go writes in the folder of a go.mod; ends the bench where there is no Go."""
    program = shutil.which("go")
    if program is None:
        sys.exit(f"go {arguments[0]} in {module}: Go is needed in PATH, and there is none")
    environment = {**os.environ, "CGO_ENABLED": "0", **environment}
    done = subprocess.run([program, *arguments], cwd=module, env=environment, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()
