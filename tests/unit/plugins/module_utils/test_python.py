"""What is packed of a Python: all that the engine imports, and nothing that only compiling or testing needs."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

from ansible_collections.turbokube.scale.plugins.module_utils import _python
from ansible_collections.turbokube.scale.plugins.modules import library_image


def test_it_runs_the_engine_by_itself(tmp_path: Path) -> None:
    """Where nothing else of this machine's Python is in sight."""
    files = dict(_python.files())
    for place, source in files.items():
        if place.startswith(_python.SITE):
            link = tmp_path / place.lstrip("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(source, link)
    modules = "turbokube.vnode.replica", "turbokube.agent.session"
    argv = [_python.executable(), "-S", "-c", f"import sys, {', '.join(modules)}; print(*sorted({{m.__file__ for m in "
            "sys.modules.values() if getattr(m, '__file__', None)}), sep='\\n')"]  # fmt: skip
    environment = {"PYTHONPATH": str(tmp_path / _python.SITE.lstrip("/")), "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment).stdout.split()
    assert len(said) > 100
    lacking = [name for name in said if name.removeprefix(str(tmp_path)) not in files]
    assert lacking == []


def test_what_is_needless_stays_away() -> None:
    places = [found[0] for found in _python.files()]
    assert not [place for place in places if "/test/" in place or "/ensurepip/" in place or place.endswith(".a")]
    assert not [place for place in places if "plotly" in place or "/kubernetes/" in place]
    assert [place for place in places if "ld-linux" in place or "ld-musl" in place]
    assert len(places) == len(set(places))


def test_the_digest_tells_sources_apart_and_looks_at_nothing_compiled(tmp_path: Path) -> None:
    source, compiled = tmp_path / "a.py", tmp_path / "a.pyc"
    source.write_text("a = 1")
    compiled.write_text("1")
    files = [("/a.py", str(source)), ("/a.pyc", str(compiled))]
    first = _python.digest(files)
    compiled.write_text("2")
    assert _python.digest(files) == first
    assert _python.digest([("/b.py", str(source))]) != first
    source.write_text("a = 2")
    assert _python.digest(files) != first


def test_an_archive_takes_the_place_of_those_before(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("a = 1")
    (tmp_path / "turbokube-old.tar").touch()
    path = tmp_path / "turbokube-new.tar"
    library_image.write(path, "localhost/turbokube:1", [(f"{_python.SITE}/a.py", str(source))])
    assert [one.name for one in tmp_path.glob("*.tar")] == ["turbokube-new.tar"]
    with tarfile.open(path) as archive:
        layer = max(archive.getmembers(), key=lambda member: member.size)
        with tarfile.open(fileobj=archive.extractfile(layer)) as inside:
            members = {member.name: member.mode for member in inside}
    assert members[f"{_python.SITE}/a.py".lstrip("/")] == 0o644
    assert members[_python.executable().lstrip("/")] == 0o755
    assert members["tmp"] == 0o1777
