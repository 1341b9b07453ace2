"""bench/coefficients/fit.py finds the costs that a made-up bundle was made with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from turbokube.bundle.writer import Writer
from turbokube.predict import coefficients
from turbokube.predict.coefficients import Cost

START = 1_000_000.0
COST = Cost(idle_cores=0.05, heartbeat_ms=3, pod_ms=20, memory_mib=100, node_kib=50, pod_kib=25)
SCHEDULER = Cost(
    idle_cores=0.05,
    heartbeat_ms=0,
    pod_ms=2,
    pod_ms_per_1000_nodes=4,
    memory_mib=100,
    node_kib=50,
    pod_kib=25,
)


@pytest.fixture(scope="module")
def fit() -> ModuleType:
    path = Path(__file__).parents[3] / "bench" / "coefficients" / "fit.py"
    spec = importlib.util.spec_from_file_location("coefficients_fit", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def make(folder: Path, *, kinds: tuple[str, ...], members: int = 1, fidelity: str = "lease") -> Path:
    """1,000 s, scraped every 10 s: 500 nodes, from 500 s on 1,000; 10 pods/s from 200 to 300 and from 700 to 800 s."""
    writer = Writer(folder)
    writer.meta(
        started=START,
        hardware={"cores": 2, "cpu_model": "Test", "memory_bytes": 2**34},
        versions={},
        profile={},
        fidelity=fidelity,
    )
    writer.insert("nodes", [(START, 500, 500, 0), (START + 500, 1000, 1000, 0)])
    pods, cpu, scheduler_cpu, renewals = 0, 0.0, 0.0, 0.0
    number = {"renewals": 1, "store": 2}
    writer.insert("series", [(1, "fleet", "fleet", "turbokube_fleet_lease_renewals_total", "{}", "counter")])
    writer.insert("series", [(2, "etcd-0", "etcd", "etcd_mvcc_db_total_size_in_bytes", "{}", "gauge")])
    names = [f"{kind}-{member}" for kind in kinds for member in range(members)]
    for name in names:
        for metric in ("process_cpu_seconds_total", "process_resident_memory_bytes"):
            number[name + metric] = len(number) + 1
            writer.insert("series", [(number[name + metric], name, name.rpartition("-")[0], metric, "{}", "gauge")])
    for second in range(0, 1001, 10):
        now, nodes = START + second, 500 if second < 500 else 1000
        if second:
            done = 100 if 200 < second <= 300 or 700 < second <= 800 else 0
            before = 500 if second <= 500 else 1000
            pods += done
            renewals += before
            heartbeats = before * (1 + 10 / 300)
            cpu += COST.idle_cores * 10 + COST.heartbeat_ms / 1e3 * heartbeats + COST.pod_ms / 1e3 * done
            scheduler_cpu += SCHEDULER.idle_cores * 10 + (2 + 4 * before / 1e3) / 1e3 * done
            moments = [now - 10 + (k + 0.5) / 10 for k in range(done)]
            writer.insert(
                "pods",
                [(f"{now}-{k}", "n", "p", "d", "v", t, t, t, t, t, t, None, 0, 0, None) for k, t in enumerate(moments)],
            )
        memory = 100 * 2**20 + (50 * nodes + 25 * pods) * 2**10
        kept = renewals * (1 + 10 / 300) if second <= 600 else None
        rows = [(number["renewals"], now, renewals)]
        if kept is not None:
            rows.append((number["store"], now, 7000 * nodes + 18000 * pods + 800 * kept))
        for name in names:
            rows.append((number[name + "process_cpu_seconds_total"], now, scheduler_cpu if "sched" in name else cpu))
            rows.append((number[name + "process_resident_memory_bytes"], now, memory))
        writer.insert("samples", rows)
    writer.close()
    return folder


def test_costs_are_found(fit: ModuleType, tmp_path: Path) -> None:
    run = fit.read(make(tmp_path / "a", kinds=fit.KINDS))
    found = fit.fit([run], coefficients.load(), "x")
    for kind in fit.KINDS:
        cost, expected = found.components[kind], SCHEDULER if kind == "kube-scheduler" else COST
        for name in Cost.__struct_fields__:
            assert getattr(cost, name) == pytest.approx(getattr(expected, name), rel=0.02, abs=0.05), (kind, name)
    assert found.store.pod_bytes == pytest.approx(18000, rel=0.05)
    assert found.store.heartbeat_bytes == pytest.approx(800, rel=0.05)
    assert found.provenance["machine"] == "2 cores of Test, 16 GiB"
    assert found.provenance["note"] == "Fitted to 1 run(s): up to 1000 nodes, 2000 pods in all."
    assert "kube-apiserver" in fit.table(found)


def test_at_a_level_heartbeats_and_pods_are_found_beside_what_is_known_of_lease(
    fit: ModuleType, tmp_path: Path
) -> None:
    at_lease = fit.fit([fit.read(make(tmp_path / "a", kinds=fit.KINDS))], coefficients.load(), "x")
    cheaper = {
        name: msgspec.structs.replace(cost, heartbeat_ms=1, pod_ms=1) for name, cost in at_lease.components.items()
    }
    known = msgspec.structs.replace(at_lease, components=cheaper)
    found = fit.fit([fit.read(make(tmp_path / "b", kinds=fit.KINDS, fidelity="kubelet"))], known, "y")
    assert (found.components, found.store) == (known.components, known.store)
    for kind in fit.KINDS:
        at, expected = found.cost(kind, "kubelet"), SCHEDULER if kind == "kube-scheduler" else COST
        assert at.heartbeat_ms == pytest.approx(expected.heartbeat_ms, rel=0.02, abs=0.05), kind
        assert at.pod_ms == pytest.approx(expected.pod_ms, rel=0.02, abs=0.1), kind
        assert found.cost(kind) == known.cost(kind)
    assert found.provenance["command"] == "x"
    assert found.provenance["levels"]["kubelet"]["command"] == "y"
    assert "kube-apiserver           at kubelet: 3.000 ms per heartbeat, 20.000 per pod" in fit.table(found)
    again = fit.fit([fit.read(tmp_path / "a")], found, "z")  # what is known of levels is kept
    assert (again.levels, again.provenance["levels"]) == (found.levels, found.provenance["levels"])


def test_runs_of_several_levels_are_refused(fit: ModuleType, tmp_path: Path) -> None:
    runs = [fit.read(make(tmp_path / level, kinds=fit.KINDS, fidelity=level)) for level in ("lease", "node")]
    with pytest.raises(fit.FitError, match="a fit needs runs of one fidelity, these have lease and node"):
        fit.fit(runs, coefficients.load(), "x")


def test_several_instances_are_refused(fit: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(fit.FitError, match="several kube-apiserver; a fit needs one of each component"):
        fit.read(make(tmp_path / "a", kinds=fit.KINDS, members=2))


def test_a_missing_component_is_named(fit: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(fit.FitError, match="no CPU or memory of agent"):
        fit.read(make(tmp_path / "a", kinds=fit.KINDS[:-1]))


def test_least_squares(fit: ModuleType) -> None:
    rows = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    assert fit.least_squares(rows, [2.0, 3.0, 5.0]) == pytest.approx([2, 3])
    assert fit.least_squares([(1.0, 2.0), (2.0, 4.0)], [3.0, 6.0]) == pytest.approx([3, 0])  # not to be told apart
    assert fit.least_squares(rows, [2.0, -1.0, 2.0]) == pytest.approx([2, 0])  # nothing costs less than nothing
