"""bench/original: the original's CSVs and a run's own are read alike, and put beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.original.compare import FileError, blocks, read, table
from turbokube.report import loads

TURBOCTL = "sequence,time (ms)\nturbokube-0001,6000\nturbokube-0000,4000\nturbokube-00ff,9000\n"


def test_what_a_run_writes_is_read_as_what_turboctl_wrote(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.csv", tmp_path / "ours.csv"
    theirs.write_text(TURBOCTL)
    times = [("turbokube-0001", 100.0, 106.0), ("turbokube-0000", 103.0, 107.0), ("turbokube-00ff", 100.0, 109.0)]
    ours.write_bytes(loads.namespaces_csv(times))
    assert read(theirs) == read(ours) == {1: 6.0, 0: 4.0, 255: 9.0}


def test_blocks_are_told_beside_the_first_files() -> None:
    first, second = {0: 4.0, 1: 6.0, 255: 9.0}, {0: 10.0, 1: 10.0, 128: 5.0}
    assert {number: list(block.seconds) for number, block in blocks(first, 128).items()} == {0: [4, 6], 128: [9]}
    assert list(table({"a": first, "b": second, "c": {300: 1.0}}, 128, 4, 256))[2:] == [
        "| 0–127 | a | 2 | 5.00 | 6.00 | 6.00 | 6.00 | 205 | 1.00 |",
        "| 0–127 | b | 2 | 10.00 | 10.00 | 10.00 | 10.00 | 102 | 2.00 |",
        "| 128–255 | a | 1 | 9.00 | 9.00 | 9.00 | 9.00 | 114 | 1.00 |",
        "| 128–255 | b | 1 | 5.00 | 5.00 | 5.00 | 5.00 | 205 | 0.56 |",
        "| 256–383 | c | 1 | 1.00 | 1.00 | 1.00 | 1.00 | 1024 | – |",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not begin with sequence,time (ms)"),
        ("a,b\n", "does not begin with sequence,time (ms)"),
        ("sequence,time (ms)\n", "has no namespaces"),
        ("sequence,time (ms)\nturbokube-0000,fast\n", "line 2 is no name and milliseconds: turbokube-0000,fast"),
        ("sequence,time (ms)\ndefault,5\n", "line 2 is no name and milliseconds: default,5"),
    ],
)
def test_what_is_no_list_of_namespaces_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(FileError) as raised:
        read(path)
    assert str(raised.value).endswith(why)
