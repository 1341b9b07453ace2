from __future__ import annotations

import resource

import pytest

from turbokube.vnode import files
from turbokube.vnode.spec import Spec, SpecError


def limit(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[tuple[int, int]]:
    put: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: put.append(limits))
    return put


@pytest.mark.parametrize("fidelity", ["lease", "kubelet", "node"])
def test_8192_vnodes_of_every_level_fit_into_20000_files(monkeypatch: pytest.MonkeyPatch, fidelity: str):
    limit(monkeypatch, 1024, 20_000)
    files.check(Spec(run="trial", count=8192, fidelity=fidelity))


def test_too_few_are_told_with_what_is_needed_and_what_to_do(monkeypatch: pytest.MonkeyPatch):
    limit(monkeypatch, 1024, 4096)
    with pytest.raises(SpecError) as caught:
        files.check(Spec(run="trial", count=8192, fidelity="node"))
    said = str(caught.value)
    assert "count is 8192 and fidelity is 'node'" in said
    assert "needs 16648 open files" in said
    assert "(RLIMIT_NOFILE) is 4096" in said
    assert "set processes to 5" in said
    assert "at most 1916 vnodes" in said
    files.check(Spec(run="trial", count=8192, fidelity="node", processes=5))
    files.check(Spec(run="trial", count=1916, fidelity="node"))


def test_a_process_takes_what_it_needs_and_not_more_than_it_may(monkeypatch: pytest.MonkeyPatch):
    spec = Spec(run="trial", count=2000, fidelity="kubelet")
    assert limit_of(monkeypatch, 1024, 20_000, spec) == [(files.needed(spec), 20_000)]
    assert limit_of(monkeypatch, 1024, resource.RLIM_INFINITY, spec) == [(files.needed(spec), resource.RLIM_INFINITY)]
    assert limit_of(monkeypatch, 1024, 2048, spec) == [(2048, 2048)]
    assert limit_of(monkeypatch, 4096, 20_000, spec) == []


def limit_of(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, spec: Spec) -> list[tuple[int, int]]:
    put = limit(monkeypatch, soft, hard)
    files.allow(spec)
    return put
