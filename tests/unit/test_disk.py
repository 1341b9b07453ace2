"""Files that are replaced at one stroke."""

from __future__ import annotations

import os

from turbokube import disk


def test_a_reader_has_the_old_file_or_the_new_one(tmp_path):
    file = tmp_path / "a.json"
    disk.replace(file, b"old")
    with open(file, "rb") as reader:
        disk.replace(file, b"new")
        assert reader.read() == b"old"
    assert file.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_file_is_its_owners_unless_more_is_said(tmp_path):
    before = os.umask(0o022)
    try:
        disk.replace(tmp_path / "key", b"")
        disk.replace(tmp_path / "report", b"", 0o666)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("key", "report")] == [0o600, 0o644]
