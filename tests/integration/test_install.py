"""The collection as a stranger gets it: built, installed into another folder, used from there without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLLECTION = "turbokube.scale"

PLAY = """\
- hosts: all
  gather_facts: false
  roles:
    - role: turbokube.scale.library
      vars: {library_venv: "{{ venv }}", library_python: "{{ ansible_playbook_python }}"}
  tasks:
    - turbokube.scale.library_info:
      register: told
    - ansible.builtin.copy:
        content: "{{ told | to_json }}"
        dest: "{{ venv }}.json"
        mode: "0600"
"""


class Elsewhere:
    """A folder with the installed collection, and tools that know of nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        self.environment |= {
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
            "ANSIBLE_HOME": str(folder / "home"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run a command here; its output. Fails with what it said."""
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    elsewhere = Elsewhere(tmp_path_factory.mktemp("some where"))  # a space in the path is fine
    elsewhere.run("ansible-galaxy", "collection", "build", "--output-path", str(elsewhere.folder), cwd=ROOT)
    (tarball,) = elsewhere.folder.glob("turbokube-scale-*.tar.gz")
    elsewhere.run("ansible-galaxy", "collection", "install", str(tarball), "-p", "collections", "--offline")
    return elsewhere


def test_tarball_holds_what_is_needed(installed: Elsewhere) -> None:
    (tarball,) = installed.folder.glob("turbokube-scale-*.tar.gz")
    with tarfile.open(tarball) as tar:
        names = tar.getnames()
    top = {name.split("/")[0] for name in names}
    needed = {"plugins", "roles", "playbooks", "src", "meta", "pyproject.toml", "README.md", "LICENSES", "changelogs"}
    assert top - {"MANIFEST.json", "FILES.json", "CHANGELOG.md", "CHANGELOG.rst"} == needed
    assert not [name for name in names if "__pycache__" in name or ".egg-info" in name]


def test_everything_is_documented(installed: Elsewhere) -> None:
    modules = sorted(path.stem for path in ROOT.glob("plugins/modules/*.py"))
    listed = json.loads(installed.run("ansible-doc", "-t", "module", "-l", "--json", COLLECTION))
    assert sorted(listed) == [f"{COLLECTION}.{module}" for module in modules]
    told = json.loads(installed.run("ansible-doc", "-t", "module", "--json", *listed))
    assert all(told[name]["doc"]["short_description"] for name in listed)
    roles = sorted(path.parents[1].name for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    documented = json.loads(installed.run("ansible-doc", "-t", "role", "--json", COLLECTION, "-l"))
    assert sorted(documented) == [f"{COLLECTION}.{role}" for role in roles]
    for role in documented:
        assert "main" in json.loads(installed.run("ansible-doc", "-t", "role", "--json", role))[role]["entry_points"]


def test_one_role_alone_builds_the_library_from_the_collection(installed: Elsewhere) -> None:
    """On a host whose Python has no turbokube; the second time changes nothing."""
    bare, venv = installed.folder / "bare", installed.folder / "venv"
    installed.run(sys.executable, "-m", "venv", "--without-pip", str(bare))
    (installed.folder / "play.yml").write_text(PLAY)
    (installed.folder / "hosts.yml").write_text(
        f"all: {{hosts: {{here: {{ansible_connection: local, ansible_python_interpreter: '{bare}/bin/python'}}}}}}\n"
    )
    command = ["ansible-playbook", "-i", "hosts.yml", "play.yml", "-e", json.dumps({"venv": str(venv)})]
    installed.run(*command)
    told = json.loads(Path(f"{venv}.json").read_text())
    assert told["version"] == __import__("turbokube").__version__
    assert told["executable"] == f"{venv}/bin/python"
    where = installed.run(f"{venv}/bin/python", "-c", "import turbokube; print(turbokube.__file__)")
    assert where.startswith(str(venv)), "not the checkout's"
    again = installed.run(*command)
    assert "changed=0 " in again, again
    shutil.rmtree(venv)
