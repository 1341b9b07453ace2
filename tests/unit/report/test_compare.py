"""Comparisons of runs that never were: what differs is told, what is chance is not."""

from __future__ import annotations

import functools
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turbokube.scale.plugins.modules import run_compare

from turbokube.bundle.writer import FILE, BundleError
from turbokube.report import compare

# What a bundle had at first; of the tables that are not here there were none.
OLD = {
    "objects": "phase kind namespace name intended sent accepted status retries throttled failed replicas ready",
    "pods": "uid namespace name owner node created seen scheduled bound_seen started running_seen deleted_seen listed"
    " restarts",
    "requests": "phase second resource verb sent accepted throttled retried failed latency_sum latency_max",
}
TABLES = (
    "meta", "phases", "objects", "pods", "requests", "series", "samples", "scrapes", "nodes", "lag", "interruptions",
    "counts",
)  # fmt: skip

Make = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Bundles of these tests do not change, and the numbers of one take a quarter of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_run", functools.cache(compare._run))
        yield


@pytest.fixture(scope="module")
def make(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a bundle of two namespaces: make(name, profile variables, **Shape)."""
    home = tmp_path_factory.mktemp("home") / "runs"

    def made(name: str, profile: dict[str, Any] | None = None, rate: float = 5.0, **shape: Any) -> Path:
        given = {"turbokube_namespaces": 2, "turbokube_client_qps": 16000, **(profile or {})}
        folder: Path = synthetic.make(
            home / name, synthetic.Shape(namespaces=2, rate=rate, metadata={"profile": given, "run": name}, **shape)
        )
        return folder

    return made


@pytest.fixture(scope="module")
def groups(make: Make) -> dict[str, list[Path]]:
    """Three runs at 5 pods/s, three at 3 with another client QPS; each a little faster than the one before."""
    slow = {"turbokube_client_qps": 20.0}
    return {
        "fast": [make(f"fast-{n}", seed=n, rate=5.0 + n / 20) for n in range(3)],
        "slow": [make(f"slow-{n}", slow, seed=10 + n, rate=3.0 + n / 50) for n in range(3)],
    }


@pytest.fixture(scope="module")
def content(groups: dict[str, list[Path]]) -> dict[str, Any]:
    return compare.compare(compare.read(groups))


def row(content: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in content["indicators"] if each["name"] == name)


def test_settings_that_differ_come_first_and_name_both_values(content: dict[str, Any]) -> None:
    first, *rest = content["settings"]
    assert (first["name"], first["differs"]) == ("turbokube_client_qps", True)
    assert first["values"] == {"fast": ["16000"] * 3, "slow": ["20"] * 3}
    assert not any(each["differs"] for each in rest)
    told = {each["name"] for each in rest}
    assert {"turbokube_namespaces", "kubernetes", "cpu_model", "asked for", "measured", "turbokube_replicas"} <= told


def test_a_difference_beyond_chance_has_its_interval_and_its_direction(content: dict[str, Any]) -> None:
    found = row(content, "pods-per-second")["groups"]["slow"]
    assert found["outcome"] == "worse"
    assert found["low"] < found["delta"] < found["high"] < 0
    assert found["delta"] == pytest.approx(found["mean"] - row(content, "pods-per-second")["groups"]["fast"]["mean"])
    assert row(content, "pods-seconds")["groups"]["slow"]["outcome"] == "worse"


def test_cpu_is_told_per_pod_too(content: dict[str, Any]) -> None:
    whole, each = (row(content, f"{name}-etcd")["groups"]["fast"]["mean"] for name in ("cpu", "cpu-per-pod"))
    assert each == pytest.approx(1000 * whole / 512)


def test_what_repeats_do_not_show_is_not_told_as_a_difference(content: dict[str, Any]) -> None:
    assert row(content, "pods-planned")["groups"]["slow"]["outcome"] == "same"
    startup = row(content, "startup-first seen → seen running-p50")["groups"]["slow"]
    assert startup["outcome"] == "same"
    assert startup["low"] < 0 < startup["high"]


def test_a_quantile_of_a_histogram_stays_an_interval(content: dict[str, Any]) -> None:
    found = row(content, "api-pods POST-p99")
    fast = found["groups"]["fast"]
    assert found["kind"] == "interval"
    assert fast["low"] == min(low for low, _ in fast["values"])
    assert fast["high"] == max(high for _, high in fast["values"])
    assert re.fullmatch(r"[\d.]+–[\d.]+ s", fast["words"])


def test_buckets_differ_when_they_have_none_in_common() -> None:
    base = {"n": 2, "low": 0.1, "high": 0.2}
    for low, high, outcome in ((0.2, 0.4, "worse"), (0.05, 0.1, "better"), (0.1, 0.4, "same"), (0.1, 0.2, "same")):
        assert compare._intervals_apart(base, {"n": 2, "low": low, "high": high})["outcome"] == outcome
    assert compare._intervals_apart(base, {"n": 1, "low": 0.2, "high": 0.4})["outcome"] == "unknown"


def test_verdicts_stand_side_by_side(groups: dict[str, list[Path]], tmp_path: Path) -> None:
    written = compare.write(groups, tmp_path / "out")
    assert written.verdicts == {label: {folder.name: "PASS" for folder in folders} for label, folders in groups.items()}
    assert written.warnings == ()
    told = json.loads((tmp_path / "out" / "compare.json").read_text())["groups"][1]["runs"][0]
    assert told["reasons"][0].startswith("all ")
    assert told["bound"]
    assert written.differences[0] == "profile turbokube_client_qps: fast 16000, slow 20"
    assert any(words.startswith("Throughput, mean: ") and words.endswith(": worse") for words in written.differences)


def test_the_page_loads_nothing_and_tells_settings_before_numbers(
    groups: dict[str, list[Path]], tmp_path: Path
) -> None:
    written = compare.write(groups, tmp_path)
    page = written.paths["compare.html"].read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", re.sub(r"(?s)<script.*?</script>", "", page))
    assert page.index('id="settings"') < page.index('id="differences"') < page.index('id="verdicts"')
    assert page.index("turbokube_client_qps") < page.index("Throughput, mean")
    for name in ("fast fast-0", "slow slow-2"):
        assert name in page[page.index('id="data"') :]
    assert json.loads(written.paths["compare.json"].read_text())["schema"] == compare.SCHEMA
    assert compare.write(groups, tmp_path).changed == ()


def test_one_run_each_says_that_the_uncertainty_is_unknown(groups: dict[str, list[Path]]) -> None:
    single = {label: folders[:1] for label, folders in groups.items()}
    content = compare.compare(compare.read(single))
    assert any("fast and slow have one run each" in words for words in content["warnings"])
    found = row(content, "pods-per-second")["groups"]["slow"]
    assert (found["outcome"], found["low"], found["far"]) == ("unknown", None, True)
    outcomes = {column.get("outcome") for each in content["indicators"] for column in each["groups"].values()}
    assert outcomes == {None, "same", "unknown"}


def test_repeats_that_are_none_are_told(groups: dict[str, list[Path]], make: Make) -> None:
    odd = make("odd", {"turbokube_concurrency": 9}, seed=5)
    content = compare.compare(compare.read({"a": [groups["fast"][0], odd], "b": [groups["slow"][0]]}))
    assert "The runs of a are no repeats of each other: they differ in turbokube_concurrency." in content["warnings"]


def test_pods_that_never_started_are_never_not_missing(make: Make, groups: dict[str, list[Path]]) -> None:
    lost = make("lost", never=60)
    content = compare.compare(compare.read({"fast": groups["fast"], "lost": [lost]}))
    found = row(content, "startup-intended → seen running-p99")["groups"]["lost"]
    assert (found["words"], found["outcome"]) == ("never", "worse")
    assert row(content, "pods-missing")["groups"]["lost"]["mean"] == 60
    assert content["groups"][1]["runs"][0]["verdict"] == "FAIL"


def test_three_groups_are_held_against_the_first(groups: dict[str, list[Path]], make: Make) -> None:
    content = compare.compare(compare.read({**groups, "again": [make("again", seed=31, rate=5.02)]}))
    assert set(row(content, "pods-per-second")["groups"]) == {"fast", "slow", "again"}
    assert row(content, "pods-per-second")["groups"]["again"]["outcome"] == "unknown"


def test_a_bundle_of_an_older_schema_is_read(groups: dict[str, list[Path]], tmp_path: Path) -> None:
    old = older(groups["fast"][0], tmp_path / "old")
    content = compare.compare(compare.read({"old": [old], "new": [groups["fast"][0]]}))
    found = row(content, "pods-per-second")["groups"]["new"]
    assert (found["outcome"], found["delta"]) == ("same", 0.0)
    assert {run["verdict"] for group in content["groups"] for run in group["runs"]} == {"PASS"}


def older(folder: Path, to: Path) -> Path:
    """A copy that has the tables and columns of the first bundles only."""
    to.mkdir()
    with sqlite3.connect(to / FILE) as database:
        database.execute("ATTACH ? AS new", (str(folder / FILE),))
        for table in TABLES:
            columns = OLD.get(table, "*").replace(" ", ", ")
            database.execute(f"CREATE TABLE {table} AS SELECT {columns} FROM new.{table}")
    return to


def test_what_cannot_be_compared_is_refused_in_one_sentence(groups: dict[str, list[Path]], tmp_path: Path) -> None:
    there = groups["fast"][0]
    other = tmp_path / "other"
    other.mkdir()
    with sqlite3.connect(other / FILE) as database:
        database.execute("CREATE TABLE songs(name)")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / FILE).write_text("no database")
    for given, words in (
        ({"a": [there]}, "1 group"),
        ({"a": [there], "b": []}, "group b names no bundle"),
        ({"a": [there], "b": [tmp_path / "gone"]}, "gone holds no bundle.sqlite"),
        ({"a": [there], "b": [there]}, "named twice"),
        ({"a": [there], "b": [other]}, "other is not the bundle of a run: its bundle.sqlite has no meta"),
        ({"a": [there], "b": [broken]}, "cannot be read"),
    ):
        with pytest.raises(BundleError, match=words) as raised:
            compare.read(given)
        assert "\n" not in str(raised.value)


def test_bundles_are_found_by_name_path_and_pattern(groups: dict[str, list[Path]]) -> None:
    home = groups["fast"][0].parents[1]
    assert compare.find(home, ["fast-1", "runs/slow-0", str(groups["slow"][1])]) == [
        groups["fast"][1], *groups["slow"][:2]
    ]  # fmt: skip
    assert compare.find(home, ["fast-*"]) == groups["fast"]
    with pytest.raises(BundleError, match="no bundle matches"):
        compare.find(home, ["none-*"])


def test_names_are_whole_paths_where_two_runs_have_the_same(make: Make, tmp_path: Path) -> None:
    here, there = make("same"), make("aside/same", seed=3)
    names = {run["run"] for group in compare.compare(compare.read({"a": [here], "b": [there]}))["groups"]
             for run in group["runs"]}  # fmt: skip
    assert names == {str(here), str(there)}


def test_what_comes_from_a_bundle_is_escaped(make: Make, tmp_path: Path) -> None:
    evil = make("evil", {"turbokube_x": "<script>alert(1)</script>"})
    page = compare.write({"<b>a</b>": [evil], "b": [make("good")]}, tmp_path).paths["compare.html"].read_text()
    assert "<script>alert(1)" not in page
    assert "<b>a</b>" not in page


def test_the_module_writes_once(
    groups: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(basic.AnsibleModule, "_log_invocation", lambda self: None)

    def call(check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        wanted = [{"label": label, "bundles": [f"{label}-*"]} for label in groups]
        home = str(groups["fast"][0].parents[1])
        arguments = {"groups": wanted, "home": home, "dest": str(tmp_path / "to"), **changes}
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            run_compare.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    assert call(check_mode=True)["changed"]
    assert not (tmp_path / "to").exists()
    first = call()
    assert first["changed"]
    assert first["verdicts"]["slow"] == {"slow-0": "PASS", "slow-1": "PASS", "slow-2": "PASS"}
    assert first["differences"][0] == "profile turbokube_client_qps: fast 16000, slow 20"
    assert all(Path(path).is_file() for path in first["paths"].values())
    assert not call()["changed"]
    twice = call(groups=[{"label": "a", "bundles": ["fast-0"]}, {"label": "a", "bundles": ["fast-1"]}])
    assert "two groups are called a" in twice["msg"]
    assert "a-gone holds no bundle.sqlite" in call(groups=[{"label": n, "bundles": [f"{n}-gone"]} for n in "ab"])["msg"]
