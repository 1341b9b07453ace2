# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: may change without notice.

from __future__ import annotations

import base64
import json
import re
import tarfile
import typing as t
import urllib.error
import urllib.parse

from ansible.module_utils.urls import open_url
from ansible_collections.turbokube.scale.plugins.module_utils._image import MANIFEST

_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_TIMEOUT_S = 300


class RegistryError(Exception):
    """A registry that does not take an image; the message is one for the user."""


class Answer(t.NamedTuple):
    """What a registry said."""

    status: int
    headers: t.Mapping[str, str]
    body: bytes


class Registry:
    """A registry as the OCI distribution specification has it, for one repository of it."""

    def __init__(self, url: str, repository: str, username: str = "", password: str = "") -> None:
        self._url = url.rstrip("/")
        self._repository = repository
        self._basic = base64.b64encode(f"{username}:{password}".encode()).decode() if username else ""
        self._authorization = f"Basic {self._basic}" if self._basic else ""

    def has(self, tag: str) -> bool:
        """Whether it has an image of that tag."""
        return self._ask("HEAD", f"manifests/{tag}", headers={"Accept": MANIFEST}).status == 200

    def push(self, archive: str, tag: str) -> None:
        """Send the first image of an archive, what the registry has of it left aside. Raises RegistryError."""
        with tarfile.open(archive) as tar:
            index = json.loads(_read(tar, "index.json"))
            manifest = _blob(tar, index["manifests"][0]["digest"])
            described = json.loads(manifest)
            for one in (described["config"], *described["layers"]):
                self._send(tar, one["digest"])
        self._accepted("PUT", f"manifests/{tag}", manifest, {"Content-Type": MANIFEST})

    def _send(self, tar: tarfile.TarFile, digest: str) -> None:
        if self._ask("HEAD", f"blobs/{digest}").status == 200:
            return
        begun = self._accepted("POST", "blobs/uploads/")
        place = urllib.parse.urljoin(f"{self._url}/", begun.headers["Location"])
        place += f"{'&' if '?' in place else '?'}digest={urllib.parse.quote(digest)}"
        self._accepted("PUT", place, _blob(tar, digest), {"Content-Type": "application/octet-stream"})

    def _accepted(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        answer = self._ask(method, path, body, headers)
        if answer.status >= 300:
            words = answer.body[:300].decode(errors="replace").strip()
            raise RegistryError(
                f"{self._url} does not take {self._repository}: {method} {path}: {answer.status} {words}"
            )
        return answer

    def _ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        url = path if "://" in path else f"{self._url}/v2/{self._repository}/{path}"
        answer = self._once(method, url, body, headers or {})
        if answer.status == 401 and self._let_in(answer.headers.get("WWW-Authenticate", "")):
            answer = self._once(method, url, body, headers or {})
        return answer

    def _let_in(self, challenge: str) -> bool:
        """Get the token that a registry asks for; whether there is one."""
        asked = dict(_CHALLENGE.findall(challenge))
        if not challenge.lower().startswith("bearer") or "realm" not in asked:
            return False
        query = {"service": asked.get("service", ""), "scope": f"repository:{self._repository}:pull,push"}
        self._authorization = f"Basic {self._basic}" if self._basic else ""
        answer = self._once("GET", f"{asked['realm']}?{urllib.parse.urlencode(query)}", b"", {})
        if answer.status != 200:
            raise RegistryError(f"{asked['realm']} gives no token for {self._repository}: {answer.status}")
        found = json.loads(answer.body)
        self._authorization = f"Bearer {found.get('token') or found.get('access_token')}"
        return True

    def _once(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        own = {"Authorization": self._authorization} if self._authorization else {}
        data = body if method in ("PUT", "POST") else None
        try:
            with open_url(url, data=data, method=method, headers={**headers, **own}, timeout=_TIMEOUT_S) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())
        except OSError as error:
            raise RegistryError(f"{self._url} cannot be asked: {getattr(error, 'reason', error)}") from None


def split(image: str) -> tuple[str, str, str]:
    """The registry's host, the repository, the tag of an image's name."""
    name, tag = image.rpartition(":")[::2]
    host, repository = name.partition("/")[::2]
    return host, repository, tag


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise RegistryError(f"{tar.name} is no archive of an image: {name} is no file")
    return file.read()


def _blob(tar: tarfile.TarFile, digest: str) -> bytes:
    return _read(tar, f"blobs/sha256/{digest.removeprefix('sha256:')}")
