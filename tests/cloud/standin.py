"""A stand-in for DigitalOcean's API, over TLS: pages, limits of rate, and faults on demand.

    python -m tests.cloud.standin --state DIR --token TOKEN [--lab NAME --lab-folder DIR [--bind SRC:DST ...]]

It writes DIR/ca.crt and DIR/endpoint, and serves until it is ended. Faults are posted to /standin/faults, without a
token.
"""

from __future__ import annotations

import argparse
import http.server
import json
import re
import ssl
import threading
import time
import urllib.parse
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cloud.account import SIZES, Account, Object, Refused, size
from turbokube.api import pki

PER_MINUTE, PER_HOUR, KEYS_PER_MINUTE = 250, 5000, 10
PATHS = {
    "droplets": "droplets",
    "droplets/autoscale": "autoscale_pools",
    "load_balancers": "load_balancers",
    "firewalls": "firewalls",
    "vpcs": "vpcs",
    "account/keys": "ssh_keys",
    "tags": "tags",
}
SERVER_ERROR: Object = {"id": "server_error", "message": "Server Error"}
Answer = tuple[int, Object | None, dict[str, str]]
MADE = {"ssh_keys": 201, "vpcs": 201, "tags": 201}  # others are accepted: 202


@dataclass
class Fault:
    """The next requests that it fits fail: `status` 0 cuts the connection; `done`: what was asked is done before.

    `after`: so many that it fits go well first.
    """

    method: str
    path: str
    status: int = 500
    times: int = 1
    after: int = 0
    done: bool = False


class Standin:
    """The server, in a thread. `slack`: the limits of rate are so many times as high."""

    def __init__(self, account: Account, folder: Path, token: str, port: int = 0, slack: int = 1) -> None:
        self.account, self.token, self.slack = account, token, slack
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.heard: Callable[[str, str, Object, int, Object | None], None] = lambda *_: None  # of every answer
        self._times: defaultdict[str, deque[float]] = defaultdict(deque)
        key, self.ca = pki.new_key(), folder / "ca.crt"
        self.ca.write_bytes(certificate := pki.self_signed(key, "standin"))
        pki.write(folder / "standin.pem", key, certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "standin.pem")
        handler = type("Bound", (_Handler,), {"standin": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.endpoint = f"https://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that a request meets."""
        for fault in self.faults:
            if fault.times and fault.method == method and re.fullmatch(fault.path, path):
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def limit(self, path: str) -> tuple[int, dict[str, str]]:
        """Status and headers of the limits of rate."""
        now, times = time.time(), self._times["all"]
        times.append(now)
        while times[0] < now - 3600:
            times.popleft()
        last = sum(when > now - 60 for when in times)
        headers = {"ratelimit-limit": str(PER_HOUR), "ratelimit-reset": str(int(times[0] + 3600))}
        headers["ratelimit-remaining"] = str(max(0, PER_HOUR * self.slack - len(times)))
        if path == "GET /v2/account/keys":
            keys = self._times[path]
            keys.append(now)
            if sum(when > now - 60 for when in keys) > KEYS_PER_MINUTE * self.slack:
                return 429, {**headers, "retry-after": "6"}
        if last > PER_MINUTE * self.slack:
            return 429, {**headers, "ratelimit-remaining": "0", "retry-after": "2"}
        return (429 if len(times) > PER_HOUR * self.slack else 200), headers


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    standin: Standin

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def _serve(self, method: str) -> None:
        url = urllib.parse.urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        query = {name: values[0] for name, values in urllib.parse.parse_qs(url.query).items()}
        if url.path == "/standin/faults":
            self.standin.faults = [Fault(**one) for one in body]
            return self._send(200, {})
        status, answer, headers = self._answer(method, url.path, query, body)
        if not status:
            self.close_connection = True
            return self.connection.close()
        self.standin.heard(method, url.path, body, status, answer)
        return self._send(status, answer, headers)

    def _answer(self, method: str, path: str, query: dict[str, str], body: Object) -> Answer:
        """Status, 0 to cut the connection, with body and headers."""
        self.standin.asked.append(f"{method} {path}")
        status, headers = self.standin.limit(f"{method} {path}")
        if status == 429:
            return 429, {"id": "too_many_requests", "message": "API Rate limit exceeded."}, headers
        if self.headers.get("authorization") != f"Bearer {self.standin.token}":
            return 401, {"id": "Unauthorized", "message": "Unable to authenticate you"}, headers
        fault = self.standin.fault(method, path)
        if fault and not fault.done:
            return fault.status, SERVER_ERROR, headers
        with self.standin.account.lock:
            status, answer = self._do(method, path, query, body)
            self.standin.account.save()
        return (fault.status, SERVER_ERROR, headers) if fault else (status, answer, headers)

    def _do(self, method: str, path: str, query: dict[str, str], body: Object) -> tuple[int, Object | None]:
        try:
            return self._route(method, path.removeprefix("/v2/").rstrip("/"), query, body)
        except Refused as refused:
            return refused.status, {"id": refused.name, "message": str(refused)}
        except KeyError as missing:
            return 422, {"id": "unprocessable_entity", "message": f"{missing} is missing"}

    def _route(self, method: str, path: str, query: dict[str, str], body: Object) -> tuple[int, Object | None]:
        account = self.standin.account
        if path == "account":
            return 200, {"account": account.told()}
        if path == "sizes":
            return 200, self._page("sizes", [size(slug) for slug in SIZES], query)
        if path in PATHS and method == "GET":
            found = account.listed(PATHS[path])
            if "tag_name" in query:
                found = [one for one in found if query["tag_name"] in one["tags"]]
            return 200, self._page(PATHS[path], found, query)
        if path in PATHS and method == "POST":
            return self._make(PATHS[path], body)
        dangerous = path.endswith("/dangerous")
        folder, _slash, key = path.removesuffix("/dangerous").rpartition("/")
        if folder not in PATHS:
            return 404, {"id": "not_found", "message": "The resource you requested could not be found."}
        if method == "DELETE":
            if dangerous and self.headers.get("x-dangerous", "").lower() != "true":
                return 400, {"id": "bad_request", "message": "the X-Dangerous header is missing"}
            account.delete(PATHS[folder], urllib.parse.unquote(key))
            return (202 if dangerous else 204), None
        return 200, {PATHS[folder].removesuffix("s"): account.one(PATHS[folder], key)}

    def _make(self, kind: str, body: Object) -> tuple[int, Object]:
        account = self.standin.account
        if kind == "droplets":
            made = [_shown(one) for one in account.droplets(body)]
            actions = [{"id": one["id"], "rel": "create", "href": ""} for one in made]
            key: Object = {"droplets": made} if "names" in body else {"droplet": made[0]}
            return 202, {**key, "links": {"actions": actions}}
        makers = {"autoscale_pools": account.pool, "load_balancers": account.balancer, "firewalls": account.firewall}
        makers |= {"vpcs": account.vpc, "ssh_keys": account.key, "tags": account.tag}
        return MADE.get(kind, 202), {kind.removesuffix("s"): _shown(makers[kind](body))}

    def _page(self, kind: str, found: list[Object], query: dict[str, str]) -> Object:
        each, page = min(200, max(1, int(query.get("per_page", 20)))), max(1, int(query.get("page", 1)))
        links = {}
        if page * each < len(found):
            more = f"{self.standin.endpoint}{urllib.parse.urlsplit(self.path).path}?per_page={each}&page="
            links = {"pages": {"next": f"{more}{page + 1}", "last": f"{more}{-(-len(found) // each)}"}}
        return {kind: found[(page - 1) * each : page * each], "links": links, "meta": {"total": len(found)}}

    def _send(self, status: int, answer: Object | None, headers: dict[str, str] | None = None) -> None:
        text = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _shown(one: Object) -> Object:
    return {name: value for name, value in one.items() if name[0] != "_"}


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--limit", type=int, default=25)
    parser.add_argument("--boot-seconds", type=float, default=3.0)
    parser.add_argument("--lab", default="")
    parser.add_argument("--lab-folder", type=Path)
    parser.add_argument("--network", default="10.20.0.0/24")
    parser.add_argument("--bind", action="append", default=[])
    wanted = parser.parse_args()
    wanted.state.mkdir(parents=True, exist_ok=True)
    (wanted.state / "endpoint").unlink(missing_ok=True)
    hosts = None
    if wanted.lab:
        from tests.cloud.labhosts import LabHosts

        hosts = LabHosts(wanted.lab, wanted.lab_folder, wanted.network, wanted.bind)
    account = Account(wanted.state / "account.json", hosts, wanted.boot_seconds, 1.0, wanted.limit)
    standin = Standin(account, wanted.state, wanted.token, wanted.port)
    (wanted.state / "endpoint").write_text(standin.endpoint)
    threading.Event().wait()


if __name__ == "__main__":
    main()
