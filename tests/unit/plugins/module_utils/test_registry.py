"""Images sent to a registry: each blob once, by the protocol's own steps, with the token that it asks for."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.turbokube.scale.plugins.module_utils._image import MANIFEST, Image, write_archive
from ansible_collections.turbokube.scale.plugins.module_utils._registry import Registry, RegistryError, split
from ansible_collections.turbokube.scale.plugins.modules import library_image


class Stand:
    """A registry that keeps what it is sent; with a password it hands out tokens."""

    def __init__(self, password: str = "") -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.password = password
        self.full = False

    def answer(self, method: str, path: str, headers: Any, body: bytes, url: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(f"{method} {path.partition('?')[0]}")
        if path.startswith("/token"):
            known = f"Basic {base64.b64encode(f'me:{self.password}'.encode()).decode()}"
            good = headers.get("Authorization") == known and "scope=repository%3Aload%2Fturbokube%3Apull%2Cpush" in path
            return (200, {}, b'{"token": "t"}') if good else (403, {}, b"")
        if self.password and headers.get("Authorization") != "Bearer t":
            return 401, {"WWW-Authenticate": f'Bearer realm="{url}/token",service="s"'}, b""
        name = path.removeprefix("/v2/load/turbokube/")
        if method == "HEAD":
            kind, key = name.partition("/")[::2]
            return (200 if key in {"blobs": self.blobs, "manifests": self.manifests}[kind] else 404), {}, b""
        if self.full:
            return 507, {}, b"no room"
        if method == "POST" and name == "blobs/uploads/":
            return 202, {"Location": "/v2/load/turbokube/blobs/uploads/1?state=x"}, b""
        if method == "PUT" and name.startswith("blobs/uploads/1?state=x&digest="):
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            assert name.endswith(digest.replace(":", "%3A"))
            self.blobs[digest] = body
            return 201, {}, b""
        assert (method, headers["Content-Type"]) == ("PUT", MANIFEST)
        described = json.loads(body)
        assert all(one["digest"] in self.blobs for one in (described["config"], *described["layers"]))
        self.manifests[name.removeprefix("manifests/")] = body
        return 201, {}, b""


@contextlib.contextmanager
def serving(stand: Stand) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, said = stand.answer(self.command, self.path, self.headers, body, url)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(said))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_HEAD = do_POST = do_PUT = handle_any

        def log_message(self, *words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def archive(tmp_path: Path) -> str:
    binary = tmp_path / "python"
    binary.write_bytes(b"\x7fELF")
    write_archive(str(tmp_path / "a.tar"), [Image("registry.example.com/load/turbokube:1", str(binary), [])], "amd64")
    return str(tmp_path / "a.tar")


@pytest.mark.parametrize("password", ["", "secret"])
def test_an_image_is_sent_once(archive: str, password: str) -> None:
    stand = Stand(password)
    with serving(stand) as url:
        registry = Registry(url, "load/turbokube", "me" if password else "", password)
        assert not registry.has("1")
        registry.push(archive, "1")
        assert registry.has("1")
        assert len(stand.blobs) == 2
        sent = sum(line.startswith("POST") for line in stand.asked)
        registry.push(archive, "2")
    assert set(stand.manifests) == {"1", "2"}
    assert sum(line.startswith("POST") for line in stand.asked) == sent == 2


def test_what_a_registry_refuses_is_told(archive: str) -> None:
    stand = Stand()
    stand.full = True
    with serving(stand) as url, pytest.raises(RegistryError, match=r"does not take load/turbokube: POST .*507 no room"):
        Registry(url, "load/turbokube").push(archive, "1")
    with serving(Stand("secret")) as url, pytest.raises(RegistryError, match="gives no token for load/turbokube: 403"):
        Registry(url, "load/turbokube", "me", "wrong").has("1")
    with pytest.raises(RegistryError, match="cannot be asked"):
        Registry("http://127.0.0.1:9", "load/turbokube").has("1")


def test_the_module_sends_what_the_registry_lacks(archive: str) -> None:
    stand = Stand()
    with serving(stand) as url:
        wish = {"registry_url": url, "username": "", "password": ""}
        image = "registry.example.com/load/turbokube:1"
        assert library_image.pushed(wish, archive, image, check_mode=True)
        assert stand.manifests == {}
        assert library_image.pushed(wish, archive, image, check_mode=False)
        assert not library_image.pushed(wish, archive, image, check_mode=False)


def test_names_of_images() -> None:
    assert split("registry.example.com:5000/a/b:1-2") == ("registry.example.com:5000", "a/b", "1-2")
