"""Every indicator against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from tests.unit.report.hand import Bundle
from turbokube.measure import sli
from turbokube.measure.series import Grid, Metrics, grid, interpolated, quantile_interval

LIMITS = {"single": 1.0, "namespace": 30.0, "cluster": 30.0}


def test_a_short_run_is_one_window_and_a_long_one_ends_with_its_last_five_minutes() -> None:
    assert sli.windows(0, 120) == ((0, 120),)
    assert sli.windows(0, 600) == ((0, 300), (300, 600))
    assert sli.windows(0, 700) == ((0, 300), (300, 600), (400, 700))


@pytest.mark.parametrize(
    ("labels", "key"),
    [
        ({"verb": "POST", "resource": "pods", "subresource": "binding", "scope": "resource"}, ("pods/binding", "POST")),
        ({"verb": "APPLY", "resource": "nodes", "subresource": "", "scope": "resource"}, ("nodes", "APPLY")),
        ({"verb": "GET", "resource": "pods", "scope": "resource"}, ("pods", "read, resource")),
        ({"verb": "LIST", "resource": "pods", "scope": "namespace"}, ("pods", "read, namespace")),
        ({"verb": "WATCH", "resource": "pods", "scope": "cluster"}, None),
        ({"verb": "CONNECT", "resource": "pods", "subresource": "exec", "scope": "resource"}, None),
        ({"verb": "GET", "resource": "pods", "subresource": "log", "scope": "resource"}, None),
        ({"verb": "DELETECOLLECTION", "resource": "pods", "scope": "namespace"}, None),
        ({"verb": "POST", "resource": "tokenreviews", "scope": "resource"}, None),
        ({"verb": "POST", "resource": "subjectaccessreviews", "scope": "resource"}, None),
        ({"verb": "POST", "resource": "widgets", "group": "example.com", "scope": "resource"}, None),
        ({"verb": "PUT", "resource": "leases", "group": "coordination.k8s.io", "scope": "resource"}, ("leases", "PUT")),
        ({"verb": "GET", "resource": "", "scope": ""}, None),
    ],
)
def test_which_calls_belong_to_which_series(labels: dict[str, str], key: tuple[str, str] | None) -> None:
    assert sli.call_key(labels) == key


def test_reads_of_one_object_have_one_second_wider_ones_thirty() -> None:
    kinds = ("POST", "read, resource", "read, namespace", "read, cluster")
    assert [sli.call_limit(kind, LIMITS) for kind in kinds] == [1.0, 1.0, 30.0, 30.0]
    assert sli.call_limit("read, namespace", LIMITS | {"namespace": 5.0}) == 5.0


def test_api_latency_sums_the_servers_before_the_share_and_the_interval(bundle: Bundle) -> None:
    labels = {"verb": "POST", "resource": "pods", "subresource": "", "scope": "namespace"}
    bundle.scraped("kube-apiserver-0", 0.0, 100.0).scraped("kube-apiserver-1", 0.0, 100.0)
    bundle.calls("kube-apiserver-0", 100.0, {"0.4": 90, "1": 99, "2.0": 100, "+Inf": 100}, **labels)
    bundle.calls("kube-apiserver-1", 100.0, {"0.4": 250, "1.0": 297, "2": 299, "+Inf": 300}, **labels)
    with bundle.read() as reader:
        api = sli.api_latency(Metrics(reader), LIMITS)
    (series,) = api.series
    assert api.metric == "apiserver_request_sli_duration_seconds"
    assert api.windows == ((0.0, 100.0),)
    assert (series.resource, series.kind, series.limit) == ("pods", "POST", 1.0)
    assert (series.whole.n, series.whole.within) == (400, 396)
    assert series.whole.share == pytest.approx(0.99)
    assert series.whole.p99 == (0.4, 1.0)  # rank 396 of 400 lies just within 1 s


def test_older_servers_are_measured_by_their_older_metric(bundle: Bundle) -> None:
    labels = {"verb": "POST", "resource": "pods", "scope": "namespace", "le": "+Inf"}
    bundle.scraped("kube-apiserver-0", 0.0, 9.0)
    bundle.series("kube-apiserver-0", "apiserver_request_duration_seconds_bucket", {0.0: 0, 9.0: 5}, **labels)
    with bundle.read() as reader:
        assert sli.api_latency(Metrics(reader), LIMITS).metric == "apiserver_request_duration_seconds"


def test_a_limit_that_is_no_edge_gives_no_share(bundle: Bundle) -> None:
    labels = {"verb": "POST", "resource": "pods", "scope": "namespace"}
    bundle.scraped("kube-apiserver-0", 0.0, 9.0).calls("kube-apiserver-0", 9.0, {"0.5": 3, "5": 9, "+Inf": 9}, **labels)
    with bundle.read() as reader:
        (series,) = sli.api_latency(Metrics(reader), LIMITS).series
    assert series.whole.within is None
    assert series.whole.share is None


def test_nothing_scraped_is_no_latency(bundle: Bundle) -> None:
    with bundle.read() as reader:
        assert sli.api_latency(Metrics(reader), LIMITS) == sli.ApiLatency(None)


def test_what_a_counter_rose_by(bundle: Bundle) -> None:
    bundle.scraped("etcd-0", 0.0, 10.0, 20.0, 30.0)
    bundle.series("etcd-0", "a_total", {0.0: 100, 10.0: 107, 30.0: 3})  # found at 100, started anew before 30
    bundle.series("etcd-0", "a_total", {20.0: 5}, code="new")  # appeared after a scrape without it
    with bundle.read() as reader:
        rises = [(rise.since, rise.time, rise.amount) for rise in Metrics(reader).rises("a_total")]
    assert rises == [(0.0, 10.0, 7), (20.0, 30.0, 3), (10.0, 20.0, 5)]


def test_rates_are_spread_over_the_scrapes_and_have_gaps(bundle: Bundle) -> None:
    bundle.scraped("etcd-0", 0.0, 10.0, 20.0, 30.0, 40.0).scraped("etcd-0", 25.0, ok=0)
    bundle.series("etcd-0", "a_total", {0.0: 0, 10.0: 20, 20.0: 60, 30.0: 90, 40.0: 100})
    with bundle.read() as reader:
        (line,) = Metrics(reader).rates("a_total", lambda series: "", Grid(0.0, 10.0, 5)).values()
    assert line == [2.0, 4.0, None, 1.0, None]


def test_an_interruption_of_a_component_is_a_gap_of_it_alone(bundle: Bundle) -> None:
    for name in ("etcd-0", "kube-apiserver-0"):
        bundle.scraped(name, 0.0, 10.0, 20.0).series(name, "a_total", {0.0: 0, 10.0: 10, 20.0: 20})
    bundle.rows("interruptions", (12.0, 14.0, "kube-apiserver-0", "refused"))
    with bundle.read() as reader:
        lines = Metrics(reader).rates("a_total", lambda series: series.component, Grid(0.0, 10.0, 2))
    assert lines == {"etcd-0": [1.0, 1.0], "kube-apiserver-0": [1.0, None]}


def test_gauges_stand_until_they_change(bundle: Bundle) -> None:
    bundle.scraped("etcd-0", 0.0, 10.0, 20.0, 30.0).series("etcd-0", "g", {0.0: 5, 20.0: 8})
    with bundle.read() as reader:
        assert Metrics(reader).levels("g", lambda series: "", Grid(0.0, 10.0, 3)) == {"": [5.0, 8.0, 8.0]}


def test_quantiles_of_a_histogram() -> None:
    buckets = {0.1: 50.0, 0.2: 90.0, 1.0: 100.0, math.inf: 100.0}
    assert quantile_interval(buckets, 0.5) == (0.0, 0.1)
    assert quantile_interval(buckets, 0.99) == (0.2, 1.0)
    assert interpolated(buckets, 0.7) == pytest.approx(0.15)
    assert quantile_interval({1.0: 0.0, math.inf: 5.0}, 0.5) == (1.0, math.inf)
    assert interpolated({1.0: 0.0, math.inf: 5.0}, 0.5) == 1.0
    assert quantile_interval({}, 0.5) is None
    assert interpolated({1.0: 0.0}, 0.5) is None


def test_a_grid_has_a_bounded_number_of_cells() -> None:
    assert grid(0, 100, 15) == Grid(0, 15, 7)
    assert grid(0, 36_000, 15, most=240) == Grid(0, 150, 240)


def test_throughput_from_the_first_created_to_the_last_running(bundle: Bundle) -> None:
    bundle.deployment("a", 4, 100.0)
    for number, ran in enumerate((101.0, 102.0, 103.0, 120.0)):
        bundle.pod(f"p{number}", "a", created=100, seen=100, started=ran, ran=ran)
    bundle.rows("requests", ("create", 100, "deployments", "POST", 6, 6, 0, 0, 0, 0.1, 0.1, 6))
    with bundle.read() as reader:
        load = sli.throughput(reader)
    assert (load.pods, load.begin, load.end, load.window) == (4, 100.0, 120.0, 5.0)
    assert load.average == pytest.approx(4 / 20)
    assert load.peak == pytest.approx(3 / 5)
    assert load.busiest() == pytest.approx((4 + 6) / 5)
    assert (load.busiest(95.0, 100.0), load.busiest(104.9, 300.0)) == (0.0, pytest.approx(10 / 5))


def test_a_pod_that_was_only_listed_counts_when_it_started(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).pod("p0", "a", created=100, seen=300, started=104, ran=300.0, listed=1)
    with bundle.read() as reader:
        assert sli.throughput(reader).end == 104


def _leases(bundle: Bundle, share: float, nodes: int = 100) -> None:
    """So many vnodes at 10 s; two servers, an election and the servers' own leases beside."""
    times = [float(t) for t in range(0, 151, 15)]
    bundle.rows("nodes", *((time, nodes, nodes, 0) for time in times))
    bundle.scraped("fleet", *times).scraped("kube-apiserver-0", *times).scraped("kube-scheduler-0", *times)
    bundle.series("fleet", "turbokube_fleet_lease_renewals_total", {t: t * nodes / 10 * share for t in times})
    bundle.series("kube-scheduler-0", "leader_election_master_status", {0.0: 1.0}, name="kube-scheduler")
    puts = {t: t * (nodes / 10 * share + 0.5 + 0.1) for t in times}
    bundle.series("kube-apiserver-0", "apiserver_request_total", puts, resource="leases", verb="PUT", code="200")
    conflicts = {t: 3 * t for t in times}
    bundle.series("kube-apiserver-0", "apiserver_request_total", conflicts, resource="leases", verb="PUT", code="409")


def _ratios(reader: Any, fidelity: str = "lease") -> Any:
    metrics = Metrics(reader)
    return sli.lease_ratios(reader, metrics, sli.LeasePeriod(metrics, 10.0, fidelity))


def test_a_kubelets_renewals_are_due_after_its_jitter_and_the_answer(bundle: Bundle) -> None:
    times = [float(t) for t in range(0, 241, 15)]
    bundle.rows("nodes", (0.0, 100, 100, 0), (240.0, 100, 100, 0)).scraped("fleet", *times)

    def period(t: float) -> float:  # answers take 0.1 s, and 1.3 s from 120 s on
        return 10.2 + (0.1 if t <= 120 else 1.3)

    made, spent = {0.0: 0.0}, {0.0: 0.0}
    for before, t in itertools.pairwise(times):
        renewals = 100 * 15 / period(t)
        made[t], spent[t] = made[before] + renewals, spent[before] + renewals * (period(t) - 10.2)
    bundle.series("fleet", "turbokube_fleet_lease_renewals_total", made)
    bundle.series("fleet", "turbokube_fleet_lease_latency_seconds_count", made)
    bundle.series("fleet", "turbokube_fleet_lease_latency_seconds_sum", spent)
    with bundle.read() as reader:
        (fleet,) = _ratios(reader, "kubelet")
        (of_a_clock,) = _ratios(reader)
    assert fleet.overall == pytest.approx(1.0, abs=0.003)
    assert all(ratio == pytest.approx(1.0, abs=0.003) for *_, ratio in fleet.windows)
    assert of_a_clock.worst[2] == pytest.approx(10 / 11.5, abs=0.01)


def test_lease_ratio_by_both_witnesses(bundle: Bundle) -> None:
    _leases(bundle, 0.9)
    with bundle.read() as reader:
        fleet, served = _ratios(reader)
    assert (fleet.source, served.source) == ("fleet", "apiserver")
    assert fleet.overall == pytest.approx(0.9)
    assert served.overall == pytest.approx(0.9)  # elections, the server's own and conflicts left aside
    assert fleet.seconds == 135.0  # the first interval after joining is not judged
    assert {round(end - begin) for begin, end, _ in fleet.windows} == {60}
    assert [round(ratio, 6) for _, _, ratio in fleet.windows] == [0.9] * 6


def test_leases_of_nodes_that_are_no_vnodes_are_left_aside(bundle: Bundle) -> None:
    _leases(bundle, 0.9)
    bundle.rows("counts", (180.0, "api", "nodes", 110), (180.0, "others", "nodes", 10))
    with bundle.read() as reader:
        fleet, served = _ratios(reader)
    assert fleet.overall == pytest.approx(0.9)
    assert served.overall == pytest.approx(0.8)  # 1 of 10 renewals a second is theirs


def test_renewals_of_all_processes_of_a_fleet_are_one_ratio(bundle: Bundle) -> None:
    bundle.rows("nodes", (0.0, 100, 100, 0), (180.0, 100, 100, 0))
    for number, share in enumerate((0.6, 0.3)):
        times = [float(t) for t in range(5 * number, 181, 15)]  # they are not scraped at the same moment
        made = {t: t * 10 * share for t in times}
        bundle.scraped(f"fleet-{number}", *times)
        bundle.series(f"fleet-{number}", "turbokube_fleet_lease_renewals_total", made)
        bundle.series(f"fleet-{number}", "turbokube_fleet_loop_lag_seconds", dict.fromkeys(times, 0.1 + number))
    with bundle.read() as reader:
        (fleet,) = _ratios(reader)
        lags = sli.lags(reader, Metrics(reader))
    assert (fleet.source, fleet.overall) == ("fleet", pytest.approx(0.9))
    assert [round(ratio, 2) for _, _, ratio in fleet.windows] == [0.9] * len(fleet.windows)
    assert lags["fleet"][2] == 1.1


def test_a_process_that_died_lacks_in_the_ratio(bundle: Bundle) -> None:
    bundle.rows("nodes", (0.0, 100, 100, 0), (240.0, 100, 100, 0))
    for number, last in enumerate((241, 125)):
        times = [float(t) for t in range(0, last, 15)]
        bundle.scraped(f"fleet-{number}", *times)
        bundle.series(f"fleet-{number}", "turbokube_fleet_lease_renewals_total", {t: t * 5 for t in times})
    with bundle.read() as reader:
        (fleet,) = _ratios(reader)
    assert fleet.worst is not None
    assert fleet.worst[2] == pytest.approx(0.5)


def test_an_outage_of_a_process_of_the_fleet_is_ours() -> None:
    assert [sli.is_ours(what) for what in ("fleet", "fleet-3", "agent", "kube-apiserver-0", "fleets", "")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_the_worst_window_is_the_one_farthest_from_one(bundle: Bundle) -> None:
    times = [float(t) for t in range(0, 181, 15)]
    bundle.rows("nodes", (0.0, 100, 100, 0), (180.0, 100, 100, 0)).scraped("fleet", *times)
    made = {t: 10 * t - (75 if t > 60 else 0) for t in times}  # 7.5 s without renewals before 75
    bundle.series("fleet", "turbokube_fleet_lease_renewals_total", made)
    with bundle.read() as reader:
        (fleet,) = _ratios(reader)
    assert fleet.worst is not None
    assert fleet.worst[2] == pytest.approx(1 - 75 / 600)
    assert fleet.worst[0] <= 60 < 75 <= fleet.worst[1]


def test_while_the_fleet_grows_nothing_is_judged(bundle: Bundle) -> None:
    bundle.rows("nodes", *((float(t), t, t, 0) for t in range(10, 100, 5))).scraped("fleet", 0.0, 50.0, 90.0)
    bundle.series("fleet", "turbokube_fleet_lease_renewals_total", {0.0: 0, 50.0: 9})
    with bundle.read() as reader:
        (fleet,) = _ratios(reader)
    assert (fleet.overall, fleet.seconds, fleet.windows) == (None, 0.0, ())


def test_nodes_and_when_they_were_lost(bundle: Bundle) -> None:
    bundle.rows("nodes", (0.0, 4, 4, 0), (5.0, 4, 3, 1), (10.0, 4, 4, 1))
    with bundle.read() as reader:
        nodes = sli.nodes(reader)
    assert nodes == sli.Nodes(4, 4, 0.75, 1, (5.0,))


def test_coverage_is_the_loads_time_between_scrapes(bundle: Bundle) -> None:
    bundle.scraped("kube-apiserver-0", 0.0, 15.0, 30.0, 45.0, 60.0).series("kube-apiserver-0", "g", {0.0: 1})
    with bundle.read() as reader:
        found = sli.coverage(Metrics(reader), [{"started": 10.0, "ended": 110.0}])
    assert found == {"kube-apiserver-0": pytest.approx(0.5)}


def test_lag_is_its_p99_and_its_worst(bundle: Bundle) -> None:
    bundle.rows("lag", *((float(n), "loop", n / 100) for n in range(1, 101)))
    bundle.scraped("fleet", 0.0).series("fleet", "turbokube_fleet_loop_lag_seconds", {0.0: 0.25})
    with bundle.read() as reader:
        assert sli.lags(reader, Metrics(reader)) == {"loop": (100, 0.99, 1.0), "fleet": (1, 0.25, 0.25)}
