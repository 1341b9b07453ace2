"""Every test that a commit must pass, stage by stage; `make test` calls it inside .venv.

    python tests/stages.py [--all] [STAGE ...]

All stages run even when one fails; the table at the end says which, and how long each took. What the tools keep
between runs lies in .cache, never in the home.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"


def scenarios(*names: str) -> list[str]:
    """Molecule's command for some scenarios, one after the other."""
    return ["molecule", "test", *(f"--scenario-name={name}" for name in names)]


# name → command. In the order of their speed; the control plane's stages need what `binaries` gets.
STAGES: dict[str, list[str]] = {
    "ruff": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "unit": ["pytest", "-q", "-m", "not slow", "tests/unit"],
    "changelog": ["antsibull-changelog", "lint"],
    "ansible-lint": ["ansible-lint", "--offline", "-q"],
    "sanity": [sys.executable, "tests/ansible_test.py", "sanity"],
    "units": [sys.executable, "tests/ansible_test.py", "units"],
    "binaries": ["ansible-playbook", "playbooks/binaries.yml"],
    # files side by side: most of their time is waiting, and each has a control plane of its own
    "integration": ["pytest", "-q", "-m", "not slow", "-n", "2", "--dist", "loadfile", "tests/integration"],
    "molecule": scenarios("quickstart"),
    # roles on a few hosts of a lab, which need root
    "roles": scenarios("validate", "lab", "host", "containerd", "load_balancer", "etcd"),
}
SLOW: dict[str, list[str]] = {
    "engines": ["ansible-playbook", "playbooks/binaries.yml", "-e", '{"kube_binaries_names": ["kwok", "kubemark"]}'],
    # those that take a cluster to be made before, and all of them together
    "nodes": scenarios(
        "kubelet", "control_plane", "worker", "cni", "controller_manager", "scheduler", "metrics_server", "elsewhere"
    ),
    "hosts": scenarios("cluster", "faults", "fleet_cluster"),
    "slow": ["pytest", "-q", "-m", "slow", "tests/unit", "tests/integration"],
}


def environment() -> dict[str, str]:
    """This one's, with the venv first and the tools' folders inside the checkout."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ANSIBLE_HOME": str(CACHE / "ansible"),
        "MOLECULE_GLOB": "molecule/*/molecule.yml",
        "PYTHONUNBUFFERED": "1",
        "LC_ALL": "C.UTF-8",
    }


def run(name: str, command: list[str]) -> tuple[str, float, int]:
    """Run one stage with its output as it comes; its name, seconds and exit status."""
    print(f"\n=== {name}: {' '.join(command)}", flush=True)
    start = time.monotonic()
    status = subprocess.run(command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL).returncode
    seconds = time.monotonic() - start
    print(f"=== {name}: {'ok' if status == 0 else f'FAILED ({status})'} after {seconds:.0f} s", flush=True)
    return name, seconds, status


def main() -> int:
    """Run the stages that are named, or all; 1 when any failed."""
    known = {**STAGES, **SLOW}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--all", action="store_true", help="also the tests that take longer")
    parser.add_argument("stage", nargs="*", choices=[[], *known], metavar="STAGE", help=", ".join(known))
    wanted = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    results = [run(name, known[name]) for name in wanted.stage or (known if wanted.all else STAGES)]
    print("\nstage           seconds")
    for name, seconds, status in results:
        print(f"{name:<14}{seconds:>9.0f}{'' if status == 0 else '  FAILED'}")
    print(f"{'all':<14}{sum(seconds for _, seconds, _ in results):>9.0f}")
    return int(any(status for _, _, status in results))


if __name__ == "__main__":
    sys.exit(main())
