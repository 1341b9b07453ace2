"""What containers would use."""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
from typing import Any

import msgspec
import pytest
from server_fakes import pod, vnode

from turbokube.vnode.server import stats
from turbokube.vnode.server.usage import CORE, GIB, Usage, parse
from turbokube.vnode.spec import Spec


def usage(**spec: Any) -> Usage:
    return Usage(Spec(run="trial", count=2, **spec))


@pytest.mark.parametrize(
    ("text", "unit", "mean"),
    [
        ("250m", CORE, 0.25),
        ("64Mi", GIB, 64 * 2**20),
        ("uniform(100m, 300m)", CORE, 0.2),
        ("exponential(2Gi)", GIB, 2 * 2**30),
        ("lognormal(-1,0.5)", CORE, 0.4169),
        ("lognormal(-1,0.5)", GIB, 0.4169 * 2**30),
    ],
)
def test_usage_is_a_quantity_or_a_distribution_of_them(text, unit, mean):
    chance = random.Random(3)
    drawn = [parse(text, unit).draw(chance) * unit for _ in range(20_000)]
    assert statistics.fmean(drawn) == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize("text", ["", "lots", "-1", "uniform(2Gi,1Gi)", "uniform(1", "normal(1,2)", "250m)"])
def test_what_is_no_usage(text):
    with pytest.raises(ValueError, match=r"quantity|duration|convert"):
        parse(text, CORE)


def test_cpu_adds_up_and_memory_is_half_of_the_request():
    known = usage(pod_cpu_usage="500m")
    began = float(int(time.time()) - 100)
    known.see(pod(began=began), vnode())
    one = known.pod("vnode-00000", "ns", "p1")
    assert one is not None
    assert one.cpu_seconds(began + 60) == pytest.approx(30, abs=0.1)
    assert one.cpu_seconds(began + 62) - one.cpu_seconds(began + 60) == pytest.approx(1.0)
    assert one.memory == 16 * 2**20
    assert known.node("vnode-00000", began + 60)[0] == pytest.approx(30, abs=0.1)


def test_without_a_word_nothing_is_used_but_no_sample_is_zero():
    known = usage()
    known.see(pod(memory=""), vnode())
    now = time.time()
    text = stats.resource_metrics(known, "vnode-00000", now)
    values = [float(line.split()[1]) for line in text.splitlines() if re.match(r"(container|node)_", line)]
    assert all(value > 0 for value in values)  # metrics-server drops zeros
    assert stats.resource_metrics(known, "vnode-00000", now + 60).count("0.020000000") == 2


def test_an_annotation_counts_for_the_pod_and_can_change():
    known = usage(pod_cpu_usage="100m")
    began = float(int(time.time()))
    known.see(pod(began=began, cpu="2", memory="1Gi"), vnode())
    one = known.pod("vnode-00000", "ns", "p1")
    assert one is not None
    assert (one.cores, one.memory) == (2.0, 2.0**29)
    known.see(pod(began=began, cpu="0", memory="1Gi"), vnode())
    spent = one.cpu_seconds(time.time())
    assert one.cores == 0
    assert one.cpu_seconds(time.time() + 60) == spent > 0
    known.see(pod(began=began, cpu="nonsense"), vnode())
    assert one.cores == pytest.approx(0.1)


def test_a_seed_decides_so_that_the_next_engine_says_the_same():
    def cores(seed: int, number: int) -> float:
        known = usage(pod_cpu_usage="uniform(100m,900m)", seed=seed)
        known.see(pod(number), vnode())
        return next(iter(known.running("vnode-00000"))).cores

    assert cores(1, 1) == cores(1, 1)
    assert len({cores(1, 1), cores(1, 2), cores(2, 1)}) == 3


def test_what_a_node_has_spent_stays_spent_when_its_pods_end():
    known = usage(pod_cpu_usage="1")
    began = float(int(time.time()) - 50)
    known.see(pod(1, began=began), vnode())
    known.see(pod(2, began=began), vnode())
    before = known.node("vnode-00000", time.time())[0]
    known.see(pod(1, phase="Succeeded", began=began), vnode())
    known.forget("u2")
    spent, cores, memory = known.node("vnode-00000", time.time() + 60)
    assert spent >= before > 100
    assert (cores, memory) == (0, 2**20)
    assert known.pod("vnode-00000", "ns", "p1") is not None  # its logs can be had until it is deleted
    assert known.pod("vnode-00000", "ns", "p2") is None


def test_pods_of_two_vnodes_are_kept_apart():
    known = usage()
    known.see(pod(1), vnode(0))
    known.see(pod(2), vnode(1))
    first, second = (stats.resource_metrics(known, f"vnode-{n:05d}", time.time()) for n in (0, 1))
    assert ('pod="p1"' in first, 'pod="p2"' in first) == (True, False)
    assert ('pod="p1"' in second, 'pod="p2"' in second) == (False, True)


def test_a_restarted_container_counts_from_zero_and_its_pod_goes_on():
    known = usage(pod_cpu_usage="1")
    began = float(int(time.time()) - 100)
    known.see(pod(began=began, states=[("running", began)]), vnode())
    one = known.pod("vnode-00000", "ns", "p1")
    assert one is not None
    known.see(pod(began=began, states=[("waiting", 0.0)]), vnode())
    assert list(known.running("vnode-00000")) == []
    assert known.node("vnode-00000", time.time())[1:] == (0, 2**20)
    known.see(pod(began=began, states=[("running", began + 90)]), vnode())
    (container,) = one.containers
    assert container.cpu_seconds(time.time()) == pytest.approx(10, abs=1.5)
    assert one.cpu_seconds(time.time()) == pytest.approx(110, abs=2.5)
    assert container.last is not None
    assert container.last[0] == began


def test_what_ended_under_an_earlier_engine_uses_nothing_and_has_logs():
    known = usage(pod_cpu_usage="1")
    began = float(int(time.time()) - 100)
    known.see(pod(phase="Succeeded", began=began, states=[("terminated", began)]), vnode())
    one = known.pod("vnode-00000", "ns", "p1")
    assert one is not None
    assert (one.containers[0].started, one.running) == (began, [])
    assert known.node("vnode-00000", time.time())[1:] == (0, 2**20)


def test_who_waits_for_a_containers_end_is_told():
    async def story() -> None:
        known = usage()
        known.see(pod(1), vnode())
        one = known.pod("vnode-00000", "ns", "p1")
        assert one is not None
        (container,) = one.containers
        waiting = asyncio.create_task(one.end_of(container))
        await asyncio.sleep(0)
        assert not waiting.done()
        known.forget("u1")
        await asyncio.wait_for(waiting, 1)
        assert container.ended

    asyncio.run(story())


def test_the_summary_has_the_fields_of_stats_v1alpha1():
    known = usage(pod_cpu_usage="250m", memory="1Gi")
    known.see(pod(), vnode())
    told = msgspec.json.decode(stats.summary(known, "vnode-00000", 2.0**30, time.time()))
    assert told["node"]["nodeName"] == "vnode-00000"
    assert told["node"]["memory"]["availableBytes"] == 2**30 - 17 * 2**20
    (one,) = told["pods"]
    assert one["podRef"] == {"name": "p1", "namespace": "ns", "uid": "u1"}
    assert one["cpu"]["usageNanoCores"] == one["containers"][0]["cpu"]["usageNanoCores"] == 250_000_000
    assert one["memory"]["workingSetBytes"] == 16 * 2**20


def test_the_exposition_names_every_family_once_with_its_type():
    known = usage()
    known.see(pod(), vnode())
    text = stats.resource_metrics(known, "vnode-00000", 1_700_000_000.5)
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert [name for name, _ in families] == sorted(name for name, _ in families)
    assert dict(families)["container_cpu_usage_seconds_total"] == "counter"
    assert re.search(
        r'^container_memory_working_set_bytes{container="a",namespace="ns",pod="p1"} 16777216 17\d{11}$', text, re.M
    )
    assert "\nscrape_error 0\n" in text
