# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: may change without notice.

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import typing as t

# What the engine and the agent import; what draws reports, or talks to clouds' own kinds of kubeconfig, stays away
PACKAGES = (
    "turbokube",
    "httptools",
    "jinja2",
    "markupsafe",
    "msgspec",
    "uvloop",
    "yaml",
)
_PERHAPS = ("typing_extensions", "_yaml")  # used where they are there
SITE = "/opt/turbokube"  # where they lie in the image
_NEEDLESS = re.compile(
    r"test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data|site-packages|dist-packages|config-.*|"
    r"_tkinter\..*|_test.*\.so|_?xx.*\.so|.*\.(a|pyx|pxd|c|h)"
)
_COMPILED = f".{sys.implementation.cache_tag}.pyc"
_LINKED = re.compile(r"(?:=> )?(/\S+) \(0x")
Files = list[tuple[str, str]]  # where each lies in the image, and where here


class PythonError(Exception):
    """A Python that cannot be packed; the message is one for the user."""


def files() -> Files:
    """This Python: itself, its standard library, the packages, and every library that any of them is linked with."""
    found = dict(_standard())
    for name in (*PACKAGES, *filter(importlib.util.find_spec, _PERHAPS)):
        found.update(_package(name))
    for library in _linked([executable(), *(source for source in found.values() if source.endswith(".so"))]):
        found.setdefault(library, library)
    return sorted(found.items())


def executable() -> str:
    """This Python, whatever venv it is that of."""
    return os.path.realpath(sys.executable)


def digest(some: Files) -> str:
    """What tells the same files from others, 12 digits; what Python compiled for itself is not looked at."""
    told = hashlib.sha256()
    for place, source in some:
        if not source.endswith(".pyc"):
            with open(source, "rb") as file:
                told.update(f"{place}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return told.hexdigest()[:12]


def _standard() -> Files:
    folder = os.path.realpath(sysconfig.get_path("stdlib"))
    return [(file, file) for file in _walk(folder)]


def _package(name: str) -> Files:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise PythonError(f"{sys.executable} has no {name}: apply the role turbokube.scale.library before")
    if not spec.submodule_search_locations:
        file = str(spec.origin)
        return [(f"{SITE}/{os.path.basename(file)}", file)]
    folder = os.path.realpath(spec.submodule_search_locations[0])
    return [(f"{SITE}/{name}{file.removeprefix(folder)}", file) for file in _walk(folder)]


def _walk(folder: str) -> t.Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _NEEDLESS.fullmatch(name)]
        for name in names:
            compiled = not here.endswith("__pycache__") or (
                name.endswith(_COMPILED) and os.path.exists(f"{here}/../{name.removesuffix(_COMPILED)}.py")
            )
            path = os.path.join(here, name)
            if compiled and not _NEEDLESS.fullmatch(name) and os.path.isfile(path):
                yield path


def _linked(binaries: list[str]) -> list[str]:
    """The libraries that these need, the loader among them, by the paths that they are looked for."""
    said = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    if "not found" in said:
        raise PythonError(next(line.strip() for line in said.splitlines() if "not found" in line))
    return sorted({path for path in _LINKED.findall(said) if os.path.exists(path)})
