# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Binaries against a release site on loopback. Binaries are shell scripts that tell a version; nothing is built."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import socket
import tarfile
import threading
import time
import typing as t

import pytest
from ansible_collections.turbokube.scale.plugins.module_utils import _binaries
from ansible_collections.turbokube.scale.plugins.module_utils._binaries import Getter, SourceError, Wanted
from ansible_collections.turbokube.scale.plugins.module_utils._detached import Job

VERSIONS = {"kubernetes": "1.36.3", "etcd": "3.7.3", "kine": "0.17.5", "kwok": "0.8.0"}
ARCHITECTURE = _binaries.architecture()


def script(version: str) -> bytes:
    """A binary that says this version."""
    return f"#!/bin/sh\necho v{version}\n".encode()


class Site:
    """A release site: path → body. A body that is cut is announced whole and broken off in the middle."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.asked: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                body = site.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if self.path in site.cut else body)

            def log_message(self, format: str, *args: t.Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def kubernetes(self, name: str, body: bytes, checksum: str | None = None) -> str:
        """Publish a binary with its checksum; the path of it."""
        path = f"/v{VERSIONS['kubernetes']}/bin/linux/{ARCHITECTURE}/{name}"
        self.files[path] = body
        self.files[f"{path}.sha256"] = (checksum or hashlib.sha256(body).hexdigest()).encode()
        return path

    def etcd(self, checksum: str | None = None) -> None:
        """Publish the tarball."""
        folder = f"etcd-v{VERSIONS['etcd']}-linux-{ARCHITECTURE}"
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name in ("etcd", "etcdctl"):
                body = script(VERSIONS["etcd"])
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.size = len(body)
                tar.addfile(entry, io.BytesIO(body))
        digest = checksum or hashlib.sha256(file.getvalue()).hexdigest()
        self.files[f"/v{VERSIONS['etcd']}/{folder}.tar.gz"] = file.getvalue()
        self.files[f"/v{VERSIONS['etcd']}/SHA256SUMS"] = f"{digest}  {folder}.tar.gz\n".encode()


@pytest.fixture
def site() -> t.Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def want(tmp_path: t.Any, site: Site | None, *names: str, **more: t.Any) -> Wanted:
    urls = {"kubernetes": site.url, "etcd": site.url} if site else {}
    return Wanted(names=list(names), versions=VERSIONS, cache=str(tmp_path), urls=urls, **more)


def get(wanted: Wanted) -> dict[str, t.Any]:
    """Get, and return the last report."""
    reports: list[dict[str, t.Any]] = []
    Getter(wanted, lambda report: reports.append({**report, "errors": dict(report["errors"])})).get()
    assert reports[-1]["done"]
    return reports[-1]


def files(tmp_path: t.Any) -> list[str]:
    return sorted(name for folder in os.walk(tmp_path / "bin") for name in folder[2])


def test_release_with_its_checksum_is_kept_and_found(tmp_path: t.Any, site: Site) -> None:
    site.kubernetes("kubectl", script("1.36.3"))
    wanted = want(tmp_path, site, "kubectl")
    assert get(wanted)["errors"] == {}
    assert wanted.found("kubectl") == str(tmp_path / f"bin/linux-{ARCHITECTURE}/kubernetes-1.36.3/kubectl")
    asked = len(site.asked)
    get(wanted)
    assert len(site.asked) == asked, "what is there is not asked for again"


def test_one_tarball_brings_etcd_and_etcdctl(tmp_path: t.Any, site: Site) -> None:
    site.etcd()
    assert get(want(tmp_path, site, "etcd", "etcdctl"))["errors"] == {}
    assert files(tmp_path) == ["etcd", "etcdctl"]
    assert sum(path.endswith(".tar.gz") for path in site.asked) == 1


@pytest.mark.parametrize("name", ["kubectl", "etcd"])
def test_wrong_checksum_leaves_nothing(tmp_path: t.Any, site: Site, name: str) -> None:
    site.kubernetes("kubectl", script("1.36.3"), checksum="0" * 64)
    site.etcd(checksum="0" * 64)
    wanted = want(tmp_path, site, name)
    (error,) = get(wanted)["errors"].values()
    assert "0000 is published" in error
    assert "go build: " in error, "every source that was tried is named"
    assert files(tmp_path) == []


def test_broken_off_download_leaves_nothing(tmp_path: t.Any, site: Site) -> None:
    site.cut.add(site.kubernetes("kubectl", script("1.36.3") + b"#" * 3_000_000))
    (error,) = get(want(tmp_path, site, "kubectl"))["errors"].values()
    assert "kubectl" in error
    assert files(tmp_path) == []


def test_binary_of_another_version_is_refused(tmp_path: t.Any, site: Site) -> None:
    site.kubernetes("kubectl", script("1.36.30"))
    (error,) = get(want(tmp_path, site, "kubectl"))["errors"].values()
    assert "which is not 1.36.3" in error
    assert files(tmp_path) == []


def test_half_binary_in_the_cache_is_got_again(tmp_path: t.Any, site: Site) -> None:
    site.kubernetes("kubectl", script("1.36.3"))
    wanted = want(tmp_path, site, "kubectl")
    place = wanted.place("kubectl")
    os.makedirs(os.path.dirname(place))
    for path in (place, os.path.join(os.path.dirname(place), ".kubectl.1.2.part")):
        with open(path, "wb") as file:
            file.write(b"\x7fELF")
    os.chmod(place, 0o755)
    assert wanted.found("kubectl") is None
    get(wanted)
    assert wanted.found("kubectl") == place
    assert files(tmp_path) == ["kubectl"], "what a killed one left is gone"


def test_own_folder_comes_first_and_is_used_as_it_is(tmp_path: t.Any, site: Site) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "kubectl").write_bytes(script("1.30.0"))
    (own / "kubectl").chmod(0o755)
    site.kubernetes("kubeadm", script("1.36.3"))
    wanted = want(tmp_path, site, "kubectl", "kubeadm", path=str(own))
    report = get(wanted)
    assert wanted.found("kubectl") == str(own / "kubectl")
    assert any(str(own) in note and "kubeadm" in note for note in report["notes"])
    (own / "kubectl").write_bytes(b"\x7fELF of another machine")
    with pytest.raises(SourceError, match="does not run on this machine"):
        wanted.found("kubectl")


def test_unreachable_site_is_asked_once_and_passed_over_in_seconds(
    tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_binaries, "CONNECT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        wanted = want(tmp_path, None, "kubectl", "kubeadm", "kubelet")
        wanted.urls["kubernetes"] = url
        start = time.monotonic()
        report = get(wanted)
    assert time.monotonic() - start < 4
    assert sum(url in note for note in report["notes"]) == 1, "said in one line"
    assert len(report["errors"]) == 3
    for error in report["errors"].values():
        assert f"release site {url}: " in error
        assert "go build: no go.mod is held, not for kubernetes 1.36.3" in error


def test_version_that_is_not_held_is_named(tmp_path: t.Any) -> None:
    (tmp_path / "modules/kine/0.1.0").mkdir(parents=True)
    (error,) = get(want(tmp_path, None, "kine"))["errors"].values()
    assert "go.mod is held for 0.1.0, not for kine 0.17.5" in error


def test_release_site_is_not_asked_for_what_it_does_not_have(tmp_path: t.Any, site: Site) -> None:
    report = get(want(tmp_path, site, "kubemark", "kwok"))
    assert len(report["errors"]) == 2
    assert site.asked == []
    assert not any("release site" in error for error in report["errors"].values())


def test_go_that_is_too_old_is_not_used(tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "modules/kine/0.17.5"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module x\n\ngo 1.26.5\n")
    old = tmp_path / "path"
    old.mkdir()
    (old / "go").write_text("#!/bin/sh\necho go version go1.19.8 linux/amd64\n")
    (old / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{old}:{os.environ['PATH']}")
    (error,) = get(want(tmp_path, None, "kine"))["errors"].values()
    assert "Go 1.26.5 or newer is needed, PATH has 1.19.8" in error


def test_proxy_that_cannot_be_reached_is_asked_once(tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "modules/kubernetes/1.36.3"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module x\n\ngo 1.26.0\n")
    log = tmp_path / "log"
    fake = tmp_path / "path"
    fake.mkdir()
    (fake / "go").write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n[ $1 = version ] && echo go version go1.26.10 linux/amd64 && exit\n'
        "echo no such host >&2; exit 1\n"
    )
    (fake / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
    report = get(want(tmp_path, None, "kubectl", "kubeadm"))
    assert len(report["errors"]) == 2
    for error in report["errors"].values():
        assert "go build: the Go module proxy does not give k8s.io/kubernetes@v1.36.3 (no such host)" in error
    assert len(report["notes"]) == 1
    assert log.read_text().count("list -m") == 1
    assert files(tmp_path) == []


def test_machine_that_nothing_serves(tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_binaries.platform, "machine", lambda: "riscv64")
    (error,) = get(want(tmp_path, None, "kine"))["errors"].values()
    assert "Linux on riscv64 is not served, only Linux on amd64 and arm64" in error


def test_detached_job_is_alone_and_outlives_its_starter(tmp_path: t.Any) -> None:
    job = Job(str(tmp_path))
    assert job.status() == {}

    def work() -> None:
        time.sleep(0.5)
        job.report({"done": True})

    assert job.start(work)
    assert not job.start(work), "one at a time"
    assert job.running()
    assert not job.wait(0.1)
    assert job.wait(10)
    assert job.status() == {"done": True}
    job.forget()
    assert job.status() == {}


def test_detached_job_that_fails_leaves_its_reason_and_no_lock(tmp_path: t.Any) -> None:
    job = Job(str(tmp_path))

    def work() -> None:
        raise RuntimeError("no more room")

    assert job.start(work)
    assert job.wait(10)
    with open(job.log_path, encoding="utf-8") as file:
        assert "no more room" in file.read()
