"""turbokube_machines: what it may hold, and what is wrong with it in words."""

from __future__ import annotations

from typing import Any

import pytest

from turbokube.profile.machines import Machines, machines
from turbokube.profile.schema import ProfileError, validate


def test_a_machine_without_a_price_costs_its_cores() -> None:
    given = [{"name": "a", "cores": 4}, {"name": "b", "count": 2, "cores": 8, "usd_per_hour": 0.5}]
    assert machines(given, 0.1) == [Machines("a", 1, 4, pytest.approx(0.4)), Machines("b", 2, 8, 0.5)]
    assert validate({"turbokube_machines": given}).machines == given


@pytest.mark.parametrize(
    ("one", "why"),
    [
        ({"cores": 2}, "name must be text"),
        ({"name": "a"}, "it must have cores, usd_per_hour or both"),
        ({"name": "a", "cores": -1}, "cores must be a number of at least 0"),
        ({"name": "a", "cores": 2, "count": 0}, "count must be a whole number of at least 1"),
        ({"name": "a", "usd_per_hour": "1"}, "usd_per_hour must be a number of at least 0"),
        ({"name": "a", "cores": 2, "price": 1}, "price is none of name, count, cores, usd_per_hour"),
    ],
)
def test_what_is_wrong_is_said(one: dict[str, Any], why: str) -> None:
    with pytest.raises(ProfileError) as raised:
        validate({"turbokube_machines": [one]})
    assert raised.value.problems == [f"turbokube_machines has {one}, but {why}"]
