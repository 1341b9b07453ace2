"""Claims judged by runs that never were; and those of the playbooks, which have to be whole."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turbokube.scale.plugins.modules import run_finding
from jinja2.nativetypes import NativeEnvironment

from tests.unit.report.hand import Bundle
from turbokube.bundle import runs
from turbokube.bundle.writer import BundleError
from turbokube.profile.schema import validate
from turbokube.report.figures import FIGURES, Record, figure
from turbokube.report.findings import CONFIRMED, NOT_SHOWN, REFUTED, ClaimError, claim_of, judge, repeats

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
CLAIMS = sorted(PLAYBOOKS.glob("findings/claims/*.yml"))


def claim(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Data of a claim about two cases; a rule is about the speed of `fast` unless it says otherwise."""
    speed = {"says": "it is so", "figure": "pods_per_second", "of": "fast"}
    whole = {"name": "speed", "claim": "Fast is fast.", "source": "hearsay", "cases": {"slow": "", "fast": ""}}
    return {**whole, "rules": [speed | rule for rule in rules], **changes}


def word(rules: list[dict[str, Any]], **speeds: list[float | None]) -> str:
    return judge(claim_of(claim(*rules)), {("pods_per_second", ""): speeds}).word


TWICE = {"over": "slow", "holds": [2, None], "beyond": [1.5, None]}


@pytest.mark.parametrize(
    ("slow", "fast", "expected"),
    [
        ([10.0], [20.0], CONFIRMED),
        ([10.0], [19.9], NOT_SHOWN),
        ([10.0], [15.0], NOT_SHOWN),
        ([10.0], [14.9], REFUTED),
        ([10.0, 9.0], [20.0, 21.0], CONFIRMED),
        ([10.0, 10.6], [20.0, 21.0], NOT_SHOWN),  # one of the four pairings does not hold
        ([10.0, 9.0], [13.0, 15.0], NOT_SHOWN),  # and one does not fail
        ([10.0, None], [30.0], NOT_SHOWN),
        ([], [30.0], NOT_SHOWN),
        ([0.0], [30.0], CONFIRMED),
    ],
)
def test_a_rule_holds_or_fails_for_every_pairing_of_repeats(
    slow: list[float | None], fast: list[float | None], expected: str
) -> None:
    assert word([TWICE], slow=slow, fast=fast) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(9.9, REFUTED), (10.0, NOT_SHOWN), (12.0, CONFIRMED), (20.0, CONFIRMED), (24.0, NOT_SHOWN), (24.1, REFUTED)],
)
def test_spans_have_two_ends_which_belong_to_them(value: float, expected: str) -> None:
    assert word([{"holds": [12, 20], "beyond": [10, 24]}], fast=[value]) == expected


def test_without_beyond_what_does_not_hold_fails() -> None:
    assert word([{"holds": [None, 5]}], fast=[5.1]) == REFUTED
    assert word([{"holds": [None, 5]}], fast=[4.9, 5.1]) == NOT_SHOWN


def test_a_number_divides_too() -> None:
    assert word([{"over": 157, "holds": [0.9, 1.1]}], fast=[150.0]) == CONFIRMED
    assert word([{"over": 157, "holds": [0.9, 1.1]}], fast=[40.0]) == REFUTED


def test_one_rule_that_fails_refutes_and_one_that_is_undecided_leaves_it_open() -> None:
    holds, open_, fails = {"holds": [1, None]}, {"holds": [99, None], "beyond": [1, None]}, {"holds": [None, 1]}
    assert word([holds, open_], fast=[5.0]) == NOT_SHOWN
    assert word([holds, open_, fails], fast=[5.0]) == REFUTED


def test_without_what_it_needs_there_is_no_verdict() -> None:
    needs, fails = {"holds": [10, None], "needs": True}, {"holds": [None, 1]}
    assert word([needs, fails], fast=[5.0]) == NOT_SHOWN
    assert word([needs, fails], fast=[10.0]) == REFUTED
    assert word([needs, {"holds": [1, None]}], fast=[10.0]) == CONFIRMED


def test_reasons_tell_the_numbers() -> None:
    speeds = {("pods_per_second", ""): {"slow": [10.0, 11.0], "fast": [22.0]}}
    (reason,) = judge(claim_of(claim(TWICE)), speeds).reasons
    assert reason == "it is so: holds (pods that come to run, fast ÷ slow: 2 to 2.2; holds from 2)"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"holds": [1, 2], "figure": "beauty"}, "the figure beauty"),
        ({"holds": [1, 2], "figure": "full_moon"}, "the figure full_moon"),
        ({"holds": [1, 2], "of": "faster"}, "faster, which is not one of its cases"),
        ({"holds": [1, 2], "over": "slower"}, "slower, which is not"),
        ({"holds": [1, 2], "beyond": [1.5, 3]}, "beyond has to enclose holds"),
        ({"holds": [1, None], "beyond": [0, 3]}, "beyond has to enclose holds"),
        ({"holds": [1]}, "holds"),
        ({"hold": [1, 2]}, "hold"),
    ],
)
def test_claims_are_checked(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ClaimError, match=words):
        claim_of(claim(rule))


# the runs


def finished(home: Path, name: str, moment: float, **profile: Any) -> Path:
    """A run of which there is no more than that it was."""
    given = {f"turbokube_{key}": value for key, value in profile.items()}
    runs.write(home / "runs" / name, {"run": name, "profile": given, "finished": moment})
    return home / "runs" / name


def test_repeats_have_the_settings_of_the_newest(tmp_path: Path) -> None:
    finished(tmp_path, "a-b", 1.0, rate=1, run="x")
    two = finished(tmp_path, "a-b-2", 2.0, rate=2, run="y")
    finished(tmp_path, "a-b-c", 9.0, rate=2)
    finished(tmp_path, "a-b-2-c", 9.0, rate=2)
    runs.write(tmp_path / "runs" / "a-b-4", {"profile": {"turbokube_rate": 2}, "finished": None})
    ten = finished(tmp_path, "a-b-10", 10.0, rate=2)
    assert repeats(tmp_path / "runs", "a-b") == [two, ten]
    with pytest.raises(BundleError, match="no finished run a-x"):
        repeats(tmp_path / "runs", "a-x")


@pytest.fixture(scope="module")
def home(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of `slow` at 5 pods/s and one of `fast` at 20, on 8 vnodes."""
    home = tmp_path_factory.mktemp("home")
    for number, (name, rate) in enumerate({"slow": 5.0, "slow-2": 5.1, "fast": 20.0}.items(), 1):
        folder = home / "runs" / f"speed-{name}"
        synthetic.make(folder, synthetic.Shape(namespaces=1, rate=rate, seed=number, metadata={"run": name}))
        finished(home, f"speed-{name}", float(number))
    return home


def test_the_module_judges_and_writes_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(basic.AnsibleModule, "_log_invocation", lambda self: None)

    def call(check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        given = claim({"over": "slow", "holds": [3, 5]}, figures=[{"figure": "nodes"}], **changes)
        arguments = {"claim": given, "home": str(home), "dest": "findings/speed", "_ansible_check_mode": check_mode}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            run_finding.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    assert call(check_mode=True)["changed"]
    assert not (home / "findings").exists()
    first = call()
    assert (first["changed"], first["verdict"]) == (True, CONFIRMED)
    assert first["bundles"]["slow"] == [str(home / "runs" / name) for name in ("speed-slow", "speed-slow-2")]
    assert first["figures"][0] == "nodes: slow 8 | 8, fast 8"
    assert any(note.startswith("fast: what bound: ") for note in first["notes"])
    written = json.loads(Path(first["path"]).read_text())
    assert (written["verdict"], written["claim"]["name"]) == (CONFIRMED, "speed")
    (speeds,) = [each["cases"] for each in written["figures"] if each["figure"] == "pods_per_second"]
    assert speeds["fast"][0] == pytest.approx(20, rel=0.4)
    assert not call()["changed"]
    assert "no finished run speed-gone" in call(cases={"gone": "", "slow": "", "fast": ""})["msg"]
    assert "the claim is not as it should be" in call(nmae="x")["msg"]


# the figures


def value(record: Record, name: str) -> float | None:
    return figure(name).measure(record)


def test_figures_of_a_run_that_never_was(healthy: Path, synthetic: ModuleType) -> None:
    from turbokube.bundle.reader import Reader

    with Reader(healthy) as reader:
        record = Record(reader)
        assert value(record, "nodes") == 256
        assert value(record, "pods_ran") == 8192
        assert (value(record, "fewest_pods"), value(record, "most_pods")) == (32, 32)
        assert (value(record, "most_over_mean"), value(record, "variation")) == (1, 0)
        assert value(record, "renewals_per_second") == pytest.approx(25.6, rel=0.1)
        assert value(record, "renewals_per_node") == pytest.approx(0.1, rel=0.1)
        share = value(record, "lease_share_of_requests")
        assert share == pytest.approx(25.6 / value(record, "requests_per_second"), rel=0.1)  # type: ignore[operator]
        assert value(record, "pods_per_second") == pytest.approx(62, rel=0.1)
        assert value(record, "namespace_seconds") > 0  # type: ignore[operator]


def test_vnodes_without_pods_count(bundle: Bundle) -> None:
    rows = [(f"u{n}", "ns", f"p{n}", "web", f"n{n % 2}", *[1.0] * 6, None, 0, 0, None) for n in range(8)]
    record = Record(bundle.rows("pods", *rows).rows("nodes", (1.0, 4, 4, 0)).read())
    assert (value(record, "fewest_pods"), value(record, "most_over_mean"), value(record, "variation")) == (0, 2, 1)


def test_figures_of_a_phase_are_of_its_time(bundle: Bundle) -> None:
    requests = {0.0: 0.0, 10.0: 10.0, 20.0: 110.0, 30.0: 120.0}
    bundle.scraped("kube-apiserver-0", 0.0, 10.0, 20.0, 30.0).phase("idle", 10.0, 20.0)
    bundle.series("kube-apiserver-0", "apiserver_request_total", requests, resource="leases", verb="PUT")
    bundle.series("kube-apiserver-0", "apiserver_request_total", requests, resource="pods", verb="GET")
    bundle.rows("latencies", ("idle", "pods", "LIST", 0.1, 99), ("idle", "nodes", "LIST", 2.0, 1))
    record = Record(bundle.read(), "idle")
    assert value(record, "renewals_per_second") == 10
    assert value(record, "lease_share_of_requests") == 0.5
    assert (value(record, "latency_p50_s"), value(record, "latency_p99_s")) == (0.1, 0.1)


def test_figures_for_each_pod_and_each_call(bundle: Bundle) -> None:
    bundle.deployment("web", 4, 0.0).scraped("kube-scheduler-0", 0.0, 10.0).scraped("kube-apiserver-0", 0.0, 10.0)
    for number in range(4):
        bundle.life(f"u{number}", "web", 0.5, 10.0)
    algorithm, point = (
        "scheduler_scheduling_algorithm_duration_seconds",
        "scheduler_framework_extension_point_duration_seconds",
    )
    for metric, end, labels in (
        ("process_cpu_seconds_total", 2.0, {}),
        (f"{algorithm}_sum", 1.0, {}),
        (f"{algorithm}_count", 4.0, {}),
        (f"{point}_sum", 0.2, {"extension_point": "Filter"}),
        (f"{point}_count", 4.0, {"extension_point": "Filter"}),
        (f"{point}_sum", 9.0, {"extension_point": "Score"}),
        (f"{point}_count", 4.0, {"extension_point": "Score"}),
    ):
        bundle.series("kube-scheduler-0", metric, {0.0: 0.0, 10.0: end}, **labels)
    for operation, end in (("get", 6.0), ("listWithCount", 2.0), ("update", 50.0)):
        bundle.series("kube-apiserver-0", "etcd_requests_total", {0.0: 0.0, 10.0: end}, operation=operation)
    record = Record(bundle.read())
    assert value(record, "scheduler_cpu_ms_per_pod") == 500
    assert value(record, "algorithm_ms") == 250
    assert value(record, "filter_ms") == pytest.approx(50)
    assert value(record, "scheduler_busy") == pytest.approx(0.1)
    assert value(record, "store_reads_per_pod") == 2


@pytest.mark.parametrize("name", [*FIGURES, "full_generator", "full_apiserver-cpu"])
def test_a_figure_that_a_bundle_cannot_tell_is_none(bundle: Bundle, name: str) -> None:
    found = value(Record(bundle.read(), "load"), name)
    assert found is None or (name, found) == ("pods_ran", 0)


# those that come with the playbooks


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
def test_claims_of_the_playbooks_fit_them(path: Path) -> None:
    """The playbook makes a run of each case, named as the verdict looks for it, from settings that are allowed."""
    found = claim_of(yaml.safe_load(path.read_text()))
    assert found.name == path.stem
    *plays, last = yaml.safe_load((PLAYBOOKS / "findings" / path.name).read_text())
    assert [play["vars"]["finding_case"] for play in plays] == list(found.cases)
    assert {play["ansible.builtin.import_playbook"] for play in plays} == {"../whole.yml"}
    assert {play["vars"]["turbokube_profile"] for play in plays} == {found.name}
    assert last["vars"] == {"finding": found.name}
    settings = yaml.safe_load((PLAYBOOKS / "profiles" / path.name).read_text())
    jinja = NativeEnvironment()
    for case in found.cases:
        profile = validate(
            {name: jinja.from_string(value).render(finding_case=case) if isinstance(value, str) else value
             for name, value in settings.items()}
        )  # fmt: skip
        assert profile.run == f"{found.name}-{case}"
        phases = {phase.name for group in profile.groups() for phase in group}
        assert {each.phase for each in (*found.rules, *found.figures)} - {""} <= phases
