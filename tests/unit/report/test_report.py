"""The files of a report: what they hold, that they load nothing, escape everything and stay small."""

from __future__ import annotations

import html.parser
import json
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from turbokube.bundle.writer import BundleError, Writer
from turbokube.report import render

EVIL = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>'


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text of what is not script or style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open not in ("script", "style"):
            self.words.append(data)


@pytest.fixture(scope="module")
def written(healthy: Path) -> render.Written:
    return render.write(healthy)


def _page(written: render.Written) -> str:
    return written.paths["report.html"].read_text()


def test_a_second_report_changes_nothing_and_the_first_is_only_told_when_dry(
    synthetic: ModuleType, tmp_path: Path
) -> None:
    folder = synthetic.make(tmp_path / "run", synthetic.Shape(namespaces=1))
    files = (*render.NAMES, render.NAMESPACES)
    assert render.write(folder, dry=True).changed == files
    assert not (folder / "report.html").exists()
    assert render.write(folder).changed == files
    assert render.write(folder).changed == ()


def test_the_page_loads_nothing(written: render.Written) -> None:
    page = Page(_page(written))
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "embed", "base", "source")]
    assert not [attrs for _, attrs in page.tags if {"src", "href", "action", "srcset", "data"} & attrs.keys()]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", "".join(_own_scripts()))
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def _own_scripts() -> list[str]:
    folder = Path(render.__file__).parent
    return [(folder / name).read_text() for name in ("page.js", "page.css")]


def test_the_page_tells_verdict_and_numbers_without_script(written: render.Written) -> None:
    words = " ".join(" ".join(Page(_page(written)).words).split())
    for told in (
        *("PASS", "8,192 of 8,192", "256 of 256", "all 28 gates held", "AMD EPYC", "etcd 3.7.3"),
        *(
            "intended → seen running",
            "measured; lease was asked for",
            "16000 for scheduler and controller manager",
        ),
    ):
        assert told in words


def test_every_plot_has_its_place_on_the_page(written: render.Written) -> None:
    plots = {plot["name"] for plot in json.loads(written.paths["report.json"].read_text())["plots"]}
    assert plots == {attrs["data-plot"] for _, attrs in Page(_page(written)).tags if "data-plot" in attrs}
    pods = {"pods", "by-nodes", "startup", "nodes", "leases", "sent", "lag", "offered-create"}
    parts = {"requests", "lease-share", "latency", "seats", "fsync", "commit", "size", "cpu", "memory"}
    assert pods | parts | {"attempts", "pending", "workqueues"} <= plots


def test_every_plot_of_the_library_has_a_place_in_the_template() -> None:
    template = (Path(render.__file__).parent / "page.html.j2").read_text()
    source = (Path(render.__file__).parent / "plots.py").read_text()
    names = set(re.findall(r'(?:self\._time|Plot)\(\s*"([a-z-]+)"', source)) | {
        "fsync",
        "commit",
        "sql",
        "store-latency",
    }
    assert names == set(re.findall(r'plot\("([a-z-]+)"\)', template))


def test_what_comes_from_the_cluster_is_escaped(synthetic: ModuleType, tmp_path: Path) -> None:
    evil = {
        "run": EVIL,
        "fidelity": EVIL,
        "versions": {EVIL: EVIL},
        "profile": {EVIL: EVIL, "turbokube_template": EVIL},
    }
    folder = synthetic.make(tmp_path / "run", synthetic.Shape(namespaces=1, metadata=evil))
    writer = Writer(folder)
    writer.insert("interruptions", [(synthetic.START + 5, synthetic.START + 6, EVIL, EVIL)])
    writer.execute("UPDATE series SET labels = ? WHERE metric = 'workqueue_depth'", [])
    writer.insert("series", [(99_999, EVIL, EVIL, "process_resident_memory_bytes", "{}", "gauge")])
    writer.insert("samples", [(99_999, synthetic.START, 1e9)])
    writer.insert("scrapes", [(EVIL, synthetic.START + n, 0.1, 1, EVIL, 1) for n in (0, 15)])
    writer.close(finish=True)
    text = _page(render.write(folder))
    assert "<img" not in text
    assert text.count("<script") == 3
    assert text.count("</script>") == 3
    assert "&lt;img src=x" in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data
    assert any(band["label"] == EVIL for band in json.loads(data[1])["bands"])


def test_junit_has_a_case_per_limit(synthetic: ModuleType, tmp_path: Path) -> None:
    written = render.write(synthetic.make(tmp_path / "run", synthetic.Shape(lease_share=0.5, never=200)))
    suite = ElementTree.parse(written.paths["junit.xml"]).getroot()
    limits = json.loads(written.paths["report.json"].read_text())["limits"]
    assert [case.get("name") for case in suite.iter("testcase")] == [limit["name"] for limit in limits]
    failed = {case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None}
    assert {"pods-running", "lease-ratio-fleet"} <= failed
    assert suite.get("failures") == str(len(failed))
    skipped = {
        case.get("name"): mark.get("message", "") for case in suite.iter("testcase") for mark in case.iter("skipped")
    }
    assert "not applicable: Startup of stateless pods" in skipped["pod-startup"]
    assert suite.get("skipped") == str(len(skipped))


def test_conditions_tell_sizes_and_what_was_set(written: render.Written) -> None:
    rows = dict(json.loads(written.paths["report.json"].read_text())["conditions"])
    assert rows["Bytes of one object"] == "nodes 1,480, pods 3,120"
    assert rows["Settings that are not TurboKube's defaults"] == "turbokube_apiserver_args {'v': '2'}"


def test_json_keeps_its_keys(written: render.Written) -> None:
    found = json.loads(written.paths["report.json"].read_text())
    assert found["schema"] == 1
    assert list(found) == [
        "schema", "run", "verdict", "reasons", "headline", "conditions", "own", "cost", "slo", "limits",
        "preconditions", "offered", "watches", "bottleneck", "namespaces",
        "pods", "nodes", "fidelity", "throughput", "startup", "api",
        "leases", "oldest_renewal", "scheduler", "experts", "tables", "processes", "lag", "counts", "scrapes",
        "interruptions",
        "phases", "profile", "begin", "end", "bands", "plots",
    ]  # fmt: skip
    assert found["verdict"] == written.verdict == "PASS"
    assert found["own"]["share"] == pytest.approx(
        found["own"]["cpu_seconds"] / found["own"]["of_cpu_seconds"], rel=1e-3
    )
    assert 0 < found["own"]["share"] < found["own"]["limit"]
    assert found["pods"]["running"] == 8192


def test_the_head_tells_the_fidelity_that_was_measured_and_the_one_that_was_asked_for(
    synthetic: ModuleType, tmp_path: Path
) -> None:
    watches = {("nodes", "resource"): 1, ("csidrivers", "cluster"): 1, ("runtimeclasses", "cluster"): 1}
    kubelets = synthetic.Shape(namespaces=1, watches=watches, metadata={"fidelity": "node"})
    found = json.loads(render.write(synthetic.make(tmp_path / "run", kubelets)).paths["report.json"].read_text())
    assert (found["fidelity"]["asked"], found["fidelity"]["level"]) == ("node", "kubelet")
    assert found["fidelity"]["per_node"]["csidrivers"] == 1.0
    assert {"title": "Fidelity", "value": "kubelet", "note": "measured; node was asked for"} in found["headline"]
    assert any("node was asked for, kubelet was measured" in reason for reason in found["reasons"])


def test_an_outage_is_marked_and_a_gap_in_the_plots(synthetic: ModuleType, tmp_path: Path) -> None:
    folder = synthetic.make(tmp_path / "run", synthetic.Shape(outage=(40.0, 75.0)))
    found = json.loads(render.write(folder).paths["report.json"].read_text())
    (band,) = [band for band in found["bands"] if band["kind"] == "outage"]
    assert (band["label"], band["to"] - band["from"]) == ("kube-apiserver-0", pytest.approx(35.0))
    plots = {plot["name"]: plot for plot in found["plots"]}
    for name in ("requests", "latency", "seats"):
        plot = plots[name]
        inside = [
            value for line in plot["lines"] for cell, value in enumerate(line["y"])
            if band["from"] < plot["start"] + cell * plot["step"] < band["to"]
        ]  # fmt: skip
        assert inside
        assert set(inside) == {None}
    cpu = {line["name"]: line["y"][:-1] for line in plots["cpu"]["lines"]}  # the last cell ends with the record
    assert None in cpu["kube-apiserver-0"]
    assert None not in cpu["etcd-0"]


def test_an_empty_bundle_still_gives_a_report(tmp_path: Path) -> None:
    Writer(tmp_path / "run").close(finish=True)
    written = render.write(tmp_path / "run")
    assert written.verdict == "INCONCLUSIVE"
    assert "no load was recorded" in _page(written)


def test_no_bundle_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds no bundle"):
        render.write(tmp_path)


def test_files_stay_small_at_any_size(synthetic: ModuleType, tmp_path: Path, written: render.Written) -> None:
    small = written.paths["report.html"].stat().st_size
    large = render.write(synthetic.make(tmp_path / "run", synthetic.Shape(namespaces=256, rate=120)))
    assert small < 2_500_000
    assert large.paths["report.html"].stat().st_size < 2_500_000
    assert large.paths["report.json"].stat().st_size < 1_000_000


def _module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    """Run module run_report as Ansible does, in this process."""
    from ansible.module_utils import basic
    from ansible.module_utils.testing import patch_module_args

    monkeypatch.setattr(basic.AnsibleModule, "_log_invocation", lambda self: None)
    name = "ansible_collections.turbokube.scale.plugins.modules.run_report"
    sys.modules.pop(name, None)
    with patch_module_args(arguments), pytest.raises(SystemExit):
        runpy.run_module(name, run_name="__main__")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_module_writes_once(
    synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = synthetic.make(tmp_path / "run", synthetic.Shape(namespaces=1))
    checked = _module(monkeypatch, capsys, bundle=str(folder), _ansible_check_mode=True)
    assert checked["changed"]
    assert not (folder / "report.html").exists()
    first = _module(monkeypatch, capsys, bundle=str(folder))
    assert first["changed"]
    assert first["verdict"] in ("PASS", "FAIL", "INCONCLUSIVE")
    assert first["reasons"]
    assert first["line"].startswith("synthetic: ")
    assert all(Path(path).is_file() for path in first["paths"].values())
    assert not _module(monkeypatch, capsys, bundle=str(folder))["changed"]


def test_the_verdict_is_one_line(written: render.Written, synthetic: ModuleType, tmp_path: Path) -> None:
    assert written.line == "synthetic: PASS: all 28 gates held"
    broken = render.write(synthetic.make(tmp_path / "run", synthetic.Shape(namespaces=1, never=1)))
    assert broken.line.startswith("synthetic: FAIL: Every pod ran: 1 of 256 pods never ran (and ")


def test_the_module_on_a_bare_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "none")
    assert _module(monkeypatch, capsys, bundle=folder, _ansible_check_mode=True)["verdict"] == ""
    failed = _module(monkeypatch, capsys, bundle=folder)
    assert failed["failed"]
    assert "holds no bundle.sqlite" in failed["msg"]
