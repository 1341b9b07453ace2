"""What a run cost: which machines are paid for, for which time, and what there is for a USD."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.report.hand import Bundle
from turbokube.measure import verdict
from turbokube.measure.facts import load_limits
from turbokube.measure.series import Metrics
from turbokube.report.cost import AGENTS, GIVEN, USED, cost, usd

BEGIN, END = 1000.0, 4600.0  # an hour


def paid(bundle: Bundle, cpu_seconds: float = 0.0, elsewhere: int = 0, **settings: Any) -> dict[str, Any] | None:
    """The cost of an hour: 10 Ready nodes of 12 for a half of it, 12 for the other; 3 pods of 4 ran."""
    bundle.writer.meta(profile=settings, hardware={"cores": 4}, elsewhere=elsewhere)
    bundle.rows("nodes", (BEGIN, 12, 10, 0), (2800.0, 12, 12, 0))
    for number in range(4):
        bundle.life(f"p{number}", "d", BEGIN + 1, BEGIN + 2 if number else None, BEGIN + 9 if number == 1 else None)
    with bundle.read() as reader:
        facts = verdict.gather(reader, Metrics(reader), load_limits())
        return cost(reader, facts, BEGIN, END, cpu_seconds)


def test_on_one_machine_its_cores_are_paid_for(bundle: Bundle) -> None:
    found = paid(bundle, 1800.0)
    assert found is not None
    assert (found["basis"], found["hours"], found["usd"]) == (AGENTS, 1.0, pytest.approx(4 * 0.075))
    assert found["used_usd"] == pytest.approx(0.5 * 0.075)
    assert (found["pods"], found["pods_per_usd"]) == (3, pytest.approx(10.0))  # one of them is gone since
    assert (found["node_hours"], found["node_hours_per_usd"]) == (11.0, pytest.approx(11 / 0.3))
    assert found["words"] == "$0.3 for 60.0 min of the agent's machine (4 cores, $0.3/h)"


def test_machines_that_are_named_are_paid_for_at_their_price_or_by_their_cores(bundle: Bundle) -> None:
    given = [{"name": "fleet", "count": 3, "cores": 2, "usd_per_hour": 1.5}, {"name": "admin", "cores": 2}]
    found = paid(bundle, 1800.0, 3, turbokube_machines=given, turbokube_price_core_hour_usd=0.25)
    assert found is not None
    assert (found["basis"], found["usd"]) == (GIVEN, 3 * 1.5 + 2 * 0.25)
    assert found["words"] == "$5.00 for 60.0 min of 3 × fleet (2 cores, $1.50/h), admin (2 cores, $0.5/h)"


def test_of_machines_that_are_not_known_the_used_cpu_is_told(bundle: Bundle) -> None:
    found = paid(bundle, 7200.0, 3)
    assert found is not None
    assert (found["basis"], found["usd"], found["machines"]) == (USED, pytest.approx(0.15), [])
    assert GIVEN in found["words"]


def test_where_nothing_is_known_nothing_is_told(bundle: Bundle) -> None:
    assert paid(bundle, 0.0, 3) is None


def test_what_costs_nothing_has_no_ratio(bundle: Bundle) -> None:
    found = paid(bundle, turbokube_price_core_hour_usd=0)
    assert found is not None
    assert (found["usd"], found["pods_per_usd"], found["node_hours_per_usd"]) == (0.0, None, None)


def test_the_time_without_an_agent_is_not_paid_for_that_without_an_api_server_is(bundle: Bundle) -> None:
    bundle.rows("interruptions", (1900.0, 3700.0, "agent", "killed"), (4000.0, 4100.0, "kube-apiserver-0", "away"))
    found = paid(bundle)
    assert found is not None
    assert (found["hours"], found["node_hours"]) == (0.5, 10 * 0.25 + 12 * 0.25)


@pytest.mark.parametrize(
    ("value", "words"),
    [(12.345, "$12.35"), (1.0, "$1.00"), (0.0357, "$0.0357"), (0.0000123, "$1.23e-05"), (0, "$0.00")],
)
def test_small_sums_keep_their_digits(value: float, words: str) -> None:
    assert usd(value) == words
