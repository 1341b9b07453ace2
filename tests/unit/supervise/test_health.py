"""Health is the status of an answer, and nothing of its body."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from turbokube.supervise import Health


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        good = self.path == "/healthy"
        self.send_response(200 if good else 500)
        self.end_headers()
        self.wfile.write(b"ok" if good else b"[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_status_decides(address: str) -> None:
    assert Health(f"http://{address}/healthy").check() == ""
    assert Health(f"http://{address}/healthy", status=204).check()


def test_what_failed_is_told(address: str) -> None:
    why = Health(f"http://{address}/ready").check()
    assert "status 500" in why
    assert "[-]etcd failed" in why
    assert "ping" not in why


def test_a_connection_is_enough_where_nothing_more_is_asked(address: str) -> None:
    assert Health(f"tcp://{address}").check() == ""
    assert "refused" in Health("tcp://127.0.0.1:1").check()


def test_a_certificate_that_is_not_there_yet_is_no_health(address: str, tmp_path: object) -> None:
    assert Health(f"https://{address}/healthy", ca_file=f"{tmp_path}/none.crt").check()
