"""What engines of others are refused, in one sentence."""

from __future__ import annotations

import sys

import msgspec
import pytest

from turbokube.engines import limits
from turbokube.vnode.spec import Fault, Spec, SpecError, check

KWOK = Spec(run="r", count=4, engine="kwok", binary=sys.executable)
KUBEMARK = Spec(
    run="r", count=4, engine="kubemark", binary=sys.executable, fidelity="kubelet", cpu="1", memory="3840Mi"
)


def refused(spec: Spec, **changes: object) -> str:
    with pytest.raises(SpecError) as found:
        check(msgspec.structs.replace(spec, **changes))
    return str(found.value)


def test_what_an_engine_can_do_is_accepted() -> None:
    assert check(KWOK) == KWOK
    assert check(KUBEMARK) == KUBEMARK
    check(msgspec.structs.replace(KWOK, start_delay="lognormal(0,1)", stop_delay="2", run_time="5", seed=3, cpu="64"))
    check(msgspec.structs.replace(KWOK, lease_interval=5.0, lease_duration=20))
    check(msgspec.structs.replace(KUBEMARK, fidelity="node", join="csr"))


def test_one_sentence_names_all_that_does_not_go_together() -> None:
    sentence = refused(KUBEMARK, fidelity="lease", cpu="32", start_delay="1")
    assert "\n" not in sentence
    assert "fidelity 'lease' (allowed is kubelet or node)" in sentence
    assert "cpu '32' (allowed is 1)" in sentence
    assert "start_delay '1' (allowed is 0)" in sentence
    assert "memory" not in sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fidelity": "kubelet"}, "fidelity 'kubelet' (allowed is lease)"),
        ({"lease_interval": 5.0}, "lease_interval 5.0 (allowed is 10, a quarter of lease_duration)"),
        ({"faults": [Fault(after=1, share=1, action="silence")]}, "faults"),
        ({"failure_rate": 0.5}, "failure_rate 0.5 (allowed is 0)"),
        ({"processes": 2}, "processes 2 (allowed is 1)"),
    ],
)
def test_kwok_refuses(changes: dict[str, object], words: str) -> None:
    assert words in refused(KWOK, **changes)


@pytest.mark.parametrize("binary", ["", "/nonexistent/kwok", "/etc/passwd", "/tmp"])
def test_a_binary_that_cannot_be_run_is_refused(binary: str) -> None:
    assert f"binary is {binary!r}; allowed with engine kwok is the path" in refused(KWOK, binary=binary)


def test_builtin_has_no_limits() -> None:
    assert limits.refusal(Spec(run="r", count=1)) == ""
