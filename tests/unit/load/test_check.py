from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from turbokube.load.check import prepared
from turbokube.load.phase import LoadError
from turbokube.profile.phase_input import Defaults, parse
from turbokube.profile.phases import Create, Phase, Replay

BASE = {"kind": "create", "name": "base"}


def phase(raw: dict[str, Any]) -> Phase:
    groups = parse([BASE, raw] if raw["kind"] == "patch" else [raw], Defaults(run="r"))
    return groups[-1][0]


def test_templates_are_read_and_paths_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: '{{ name }}'}}"
    (tmp_path / "own.j2").write_text(text)
    made = prepared(phase({"kind": "create", "objects": [{"template": "./own.j2"}, {"template": "secret"}]}))
    assert isinstance(made, Create)
    assert [one.source for one in made.objects] == [text, ""]
    monkeypatch.setattr("turbokube.load.check.fitting", lambda phase: phase)  # it reads the trace
    replay = prepared(phase({"kind": "replay", "trace": "own.j2"}))
    assert isinstance(replay, Replay)
    assert replay.trace == str(tmp_path / "own.j2")


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"kind": "create", "objects": [{"template": "./none.j2"}]}, "phase create: none.j2 cannot be read"),
        ({"kind": "create", "objects": [{"template": "./own.j2"}]}, "phase create: template does not render"),
        ({"kind": "patch", "of": "base", "patch": {"a": "{{ b"}}, "phase patch: patch cannot be read"),
    ],
)
def test_what_cannot_begin_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: dict[str, Any], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.j2").write_text("{{ nothing }}")
    with pytest.raises(LoadError, match=sentence):
        prepared(phase(raw))
