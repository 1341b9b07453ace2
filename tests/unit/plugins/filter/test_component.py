"""A static pod's command line and environment, as a process gets them."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turbokube.scale.plugins.filter.component_command import component_command
from ansible_collections.turbokube.scale.plugins.filter.component_environment import component_environment

POD = {
    "spec": {
        "containers": [
            {
                "command": ["kube-x", "--a=1", "--b=x=y", "--many=1", "--many=2", "--switch"],
                "env": [
                    {"name": "GOGC", "value": "200"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
            }
        ]
    }
}


def test_without_overrides_only_the_executable_changes() -> None:
    assert component_command(POD, "/bin/x") == ["/bin/x", "--a=1", "--b=x=y", "--many=1", "--many=2", "--switch"]


def test_overrides_take_the_place_of_flags_and_new_ones_come_last() -> None:
    assert component_command(POD, "/bin/x", {"new": 7, "b": "z"}) == [
        "/bin/x", "--a=1", "--b=z", "--many=1", "--many=2", "--switch", "--new=7",
    ]  # fmt: skip


def test_a_flag_given_more_than_once_is_overridden_once() -> None:
    assert component_command(POD, "/bin/x", {"many": 3}) == ["/bin/x", "--a=1", "--b=x=y", "--many=3", "--switch"]


def test_none_leaves_a_flag_out() -> None:
    assert component_command(POD, "/bin/x", {"a": None, "absent": None, "switch": None}) == [
        "/bin/x", "--b=x=y", "--many=1", "--many=2",
    ]  # fmt: skip


def test_truth_is_written_as_go_reads_it() -> None:
    assert component_command(POD, "/bin/x", {"switch": False, "on": True})[-2:] == ["--switch=false", "--on=true"]


@pytest.mark.parametrize("wrong", [{}, {"spec": {"containers": []}}, {"spec": {"containers": [{}]}}])
def test_what_is_no_pod_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AnsibleFilterError, match="takes a pod"):
        component_command(wrong, "/bin/x")


def test_environment_is_the_literal_variables() -> None:
    assert component_environment(POD) == {"GOGC": "200"}
    assert component_environment({"spec": {"containers": [{}]}}) == {}
