"""Limits in a profile: what is known, and the sentence about what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from turbokube.measure.facts import load_limits
from turbokube.profile.limits import check_limits, known_limits
from turbokube.profile.schema import SLOS, ProfileError, validate

PATH = "turbokube_phases[2].limits"


@pytest.mark.parametrize(
    ("limits", "problems"),
    [
        ({"pod_startup_p99_s": 5, "achieved_share": 0.95, "apf_rejected": 0}, []),
        ({"pod_startup_p99": 5}, [f"{PATH}.pod_startup_p99 is not a limit; did you mean pod_startup_p99_s?"]),
        ({"zzz": 5}, [f"{PATH}.zzz is not a limit; docs/verdict.md lists those that are."]),
        ({"failed_share": 1}, []),
        ({"failed_share": 1.01}, [f"{PATH}.failed_share is 1.01; it must be a number from 0 to 1"]),
        ({"seconds": -1}, [f"{PATH}.seconds is -1; it must be a number of at least 0"]),
        ({"seconds": True}, [f"{PATH}.seconds is True; it must be a number of at least 0"]),
        ({"seconds": "5"}, [f"{PATH}.seconds is '5'; it must be a number of at least 0"]),
        ({"seconds": float("inf")}, [f"{PATH}.seconds is inf; it must be a number of at least 0"]),
        ([5], [f"{PATH} is [5]; it must be a dictionary of limits and numbers"]),
    ],
)
def test_a_limit_is_a_known_name_and_a_number_that_it_can_have(limits: Any, problems: list[str]) -> None:
    assert check_limits(PATH, limits) == problems


def test_limits_of_the_run_are_checked_with_the_profile() -> None:
    assert validate({"turbokube_limits": '{"seconds": 60}'}).limits == {"seconds": 60}
    with pytest.raises(ProfileError, match=r"turbokube_limits.second is not a limit; did you mean seconds\?"):
        validate({"turbokube_limits": {"second": 60}})


def test_every_table_of_slos_can_be_named_and_today_s_is_the_newest() -> None:
    tables = {name: load_limits(name) for name in SLOS}
    assert tables["current"] == max(tables.values(), key=lambda table: table["dated"])
    assert [tables[name]["api_call"]["namespace"] for name in SLOS] == [30.0, 30.0, 5.0]
    with pytest.raises(ProfileError, match="turbokube_slo is slo-2000, but it must be one of current"):
        validate({"turbokube_slo": "slo-2000"})


def test_the_page_and_the_table_are_equal() -> None:
    page = (Path(__file__).parents[3] / "docs/verdict.md").read_text()
    rows = [f"| `{n}` | {k.bound} | {k.unit or 'count'} | {k.about} |" for n, k in known_limits().items()]
    assert "\n".join(rows) in page
