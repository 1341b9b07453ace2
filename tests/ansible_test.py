"""Run `ansible-test sanity` or `units` on a copy of the collection, without a container.

ansible-test accepts a tree below ansible_collections/ only, without symlinks to itself. It wants get-pip.py for the
venvs of its tests and looks for one in its cache before it downloads one; the stand-in uses ensurepip instead.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import ansible

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".cache/ansible-test"
PARTS = ["galaxy.yml", "README.md", "meta", "plugins", "roles", "playbooks", "changelogs", "LICENSES"]
PARTS += ["tests/config.yml", "tests/sanity", "tests/unit/plugins"]

GET_PIP = """\
import subprocess, sys
wanted = [a for a in sys.argv[1:] if not a.startswith("-")]
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"])
subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
"""


def get_pip_name() -> str:
    """The file name that the installed ansible-test looks for, such as get_pip_24_2.py."""
    source = Path(ansible.__file__).parent.parent / "ansible_test/_internal/python_requirements.py"
    pin = re.search(r"pip='([0-9.]+)'", source.read_text())
    if pin is None:
        raise SystemExit(f"no pin of pip in {source}")
    return f"get_pip_{pin[1].replace('.', '_')}.py"


def main() -> int:
    """Copy the collection and run ansible-test in the copy, which must not lie in a git checkout that ignores it."""
    if " " in sys.executable:
        print(f"ansible-test cannot run below a folder with a space in its name, which {ROOT} has.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "ansible_collections/turbokube/scale"
        copy_collection(tree)
        return run(tree, sys.argv[1:])


def copy_collection(tree: Path) -> None:
    """Copy what git knows of the collection, and what is new."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def run(tree: Path, arguments: list[str]) -> int:
    """ansible-test with the tools' folders in .cache; its exit status."""
    cache = HOME / ".ansible/test/cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / get_pip_name()).write_text(GET_PIP)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = {
        **os.environ,
        "HOME": str(HOME),
        "ANSIBLE_HOME": str(HOME / ".ansible"),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
    }
    command = ["ansible-test", *arguments, "--python", version, "--color", "no"]
    return subprocess.run(command, cwd=tree, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
