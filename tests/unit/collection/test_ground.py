"""The collection holds together: one version, links, documented modules, roles whose specs say their defaults."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import turbokube

ROOT = Path(__file__).parents[3]
TREE = ROOT / "collections/ansible_collections/turbokube/scale"
ROLES = sorted(path.parents[1] for path in ROOT.glob("roles/*/tasks/main.yml"))
MODULES = sorted(ROOT.glob("plugins/modules/*.py"))
TYPES: dict[str, type | tuple[type, ...]] = {
    "bool": bool, "int": int, "float": (int, float), "str": str, "path": str, "raw": object, "list": list, "dict": dict,
}  # fmt: skip


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def constants(module: Path) -> dict[str, str]:
    """DOCUMENTATION, EXAMPLES and RETURN of a module."""
    return {
        node.targets[0].id: node.value.value
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if isinstance(node.value, ast.Constant)
    }


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "turbokube.__version__"}
    assert read(ROOT / "galaxy.yml")["version"] == turbokube.__version__
    releases = read(ROOT / "changelogs/changelog.yaml")["releases"]
    assert turbokube.__version__ in releases, "antsibull-changelog release was not run for this version"


def test_the_collection_needs_no_other() -> None:
    assert not read(ROOT / "galaxy.yml").get("dependencies")


def test_tree_of_links_is_whole_and_relative() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    expected = {"galaxy.yml", "README.md", "pyproject.toml", "meta", "playbooks", "plugins", "roles", "src"}
    expected |= {"changelogs", "LICENSES"}
    links = {path.name: path for path in TREE.iterdir()}
    assert set(links) == expected
    for name, link in links.items():
        assert str(link.readlink()) == f"../../../../{name}"
        assert link.resolve() == ROOT / name
        assert f"collections/ansible_collections/turbokube/scale/{name}\n" in listed


def test_action_group_holds_every_module() -> None:
    group = read(ROOT / "meta/runtime.yml")["action_groups"]["scale"]
    assert group == sorted(group)
    assert group == [f"turbokube.scale.{module.stem}" for module in MODULES]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_module_is_documented(module: Path) -> None:
    told = constants(module)
    documentation = yaml.safe_load(told["DOCUMENTATION"])
    assert documentation["module"] == module.stem
    assert documentation["version_added"]
    assert set(documentation["attributes"]) >= {"check_mode", "diff_mode", "idempotent"}
    assert f"turbokube.scale.{module.stem}:" in told["EXAMPLES"]
    assert yaml.safe_load(told["RETURN"])
    source = module.read_text()
    assert source.startswith("#!/usr/bin/python\n")
    assert "SPDX-License-Identifier: GPL-3.0-or-later" in source


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_role_says_its_defaults(role: Path) -> None:
    """Every default is an option of the same default and of the type that is told; options without are required."""
    defaults = read(role / "defaults/main.yml") or {}
    specs = read(role / "meta/argument_specs.yml")["argument_specs"]
    options = {name: option for spec in specs.values() for name, option in spec.get("options", {}).items()}
    with_default = {name: option["default"] for name, option in options.items() if "default" in option}
    assert with_default == defaults
    for name, option in options.items():
        assert name.startswith((f"{role.name}_", "turbokube_")), f"{name} lacks the role's prefix"
        assert option["description"], name
        if "default" in option and "{{" not in str(option["default"]):
            value, kind = option["default"], option["type"]
            assert isinstance(value, TYPES[kind]), f"{name} is {value!r}, not {kind}"
            assert not (isinstance(value, bool) and kind in ("int", "float")), name
        assert "default" not in option or not option.get("required"), name
    assert (role / "README.md").exists()
    assert (role / "meta/main.yml").exists()


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_role_uses_nothing_foreign(role: Path) -> None:
    """Tasks use ansible.builtin and our own modules."""
    for file in role.glob("**/*.yml"):
        for foreign in re.findall(r"^\s*(?:- )?([a-z]\w*\.[a-z]\w*\.\w+):", file.read_text(), re.MULTILINE):
            assert foreign.startswith(("ansible.builtin.", "turbokube.scale.")), f"{file}: {foreign}"


def test_pinned_kubernetes_versions_agree() -> None:
    """The role's default versions are those of the profiles, and can be built."""
    defaults = read(ROOT / "roles/kube_binaries/defaults/main.yml")
    base = read(ROOT / "playbooks/profiles/base.yml")
    for project in ("kubernetes", "etcd", "kine", "kwok"):
        version = defaults[f"kube_binaries_{project}_version"]
        assert base[f"turbokube_{project}_version"] == version
        folder = ROOT / "roles/kube_binaries/files/modules" / project / version
        assert {path.name for path in folder.iterdir()} == {"go.mod", "go.sum", "tools.go"}
