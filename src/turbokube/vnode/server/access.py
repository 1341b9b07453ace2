"""Who may ask a kubelet: client certificates of the cluster's CA and bearer tokens, allowed by the API server.

As the kubelet does it (cmd/kubelet/app/auth.go, pkg/kubelet/server/auth.go): x509, then TokenReview; then a
SubjectAccessReview of a subresource of its Node, remembered for the kubelet's default times.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec

from ...api.transport import JSON, ApiError, Unreachable
from ..nodes import Vnode

# KubeletConfiguration: authentication.webhook.cacheTTL, authorization.webhook.cacheAuthorizedTTL, cacheUnauthorizedTTL
_AUTHENTICATED, _ALLOWED, _DENIED = 120.0, 300.0, 30.0  # seconds
_MOST = 65_536  # remembered answers
# Pauses between tries of a review, in seconds: DefaultAuthWebhookRetryBackoff (apiserver/pkg/server/options)
_PAUSES = tuple(0.5 * 1.5**number for number in range(4))
_JITTER = 0.2

_TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_VERBS = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# a path's first word → its own subresource; those of _FINE are also allowed by that of proxy
# (KubeletFineGrainedAuthz, on since 1.33), all others by proxy alone
_OWN = {"stats": "stats", "metrics": "metrics", "logs": "log", "checkpoint": "checkpoint"}
_OWN |= {"statusz": "statusz", "flagz": "configz"}
_FINE = {"pods": "pods", "runningpods": "pods", "healthz": "healthz", "configz": "configz"}
T = TypeVar("T")
log = logging.getLogger(__name__)


class User(msgspec.Struct, frozen=True, gc=False):
    """Who asks, as authentication.k8s.io/v1 UserInfo."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = {}


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: User | None = None
    error: str = ""


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


class _AccessStatus(msgspec.Struct):
    allowed: bool = False
    denied: bool = False


class _AccessReview(msgspec.Struct):
    status: _AccessStatus


class Refused(Exception):
    """A request that is not answered: an HTTP status, and the kubelet's words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Access:
    """The door of every vnode. `shared`: what one vnode was told holds for all, so that few requests are made."""

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._users: _Memory[User | None] = _Memory()
        self._allowed: _Memory[bool] = _Memory()

    async def admit(
        self, vnode: Vnode, certificate: dict[str, Any] | None, authorization: str, method: str, path: str
    ) -> User:
        """Who asks for `path`, if that may be. `certificate` as ssl gives a verified peer's. Raises Refused."""
        user = _holder(certificate) or await self._bearer(vnode, authorization)
        if user is None:
            raise Refused(401, "Unauthorized")
        verb, asked = _VERBS.get(method, ""), subresources(path)
        for subresource in asked:
            if await self._may(vnode, user, verb, subresource):
                return user
        words = f"user={user.username}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(asked)}]"
        raise Refused(403, f"Forbidden ({words})\n")

    async def _bearer(self, vnode: Vnode, authorization: str) -> User | None:
        kind, _, token = authorization.strip().partition(" ")
        if kind.lower() != "bearer" or not (token := token.strip()):
            return None

        async def ask() -> tuple[User | None, float]:
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
            status = (await _review(vnode, "tokenreviews", _TOKEN_REVIEWS, body, _TokenReview)).status
            if status.authenticated and status.user and status.user.username:
                return status.user, _AUTHENTICATED
            return None, 0.0 if status.error else _AUTHENTICATED

        try:
            # not the token itself, lest it be found in a core dump
            return await self._users.get((self._scope(vnode), hashlib.sha256(token.encode()).digest()), ask)
        except (Unreachable, ApiError) as error:
            log.warning("a token cannot be reviewed: %s", error)
            return None

    async def _may(self, vnode: Vnode, user: User, verb: str, subresource: str) -> bool:
        async def ask() -> tuple[bool, float]:
            what = {"verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": vnode.name}
            who = {"user": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra}
            body = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {**who, "resourceAttributes": what},
            }
            status = (await _review(vnode, "subjectaccessreviews", _ACCESS_REVIEWS, body, _AccessReview)).status
            allowed = status.allowed and not status.denied
            return allowed, _ALLOWED if allowed else _DENIED

        extra = msgspec.json.encode(user.extra, order="sorted") if user.extra else b""
        # RBAC may name nodes, so a node's answer holds for no other
        key = (vnode.index, user.username, user.uid, user.groups, extra, verb, subresource)
        try:
            return await self._allowed.get(key, ask)
        except (Unreachable, ApiError) as error:
            log.warning("%s cannot be authorized: %s", user.username, error)
            words = f"user={user.username}, verb={verb}, resource=nodes, subresource={subresource}"
            raise Refused(500, f"Authorization error ({words})") from None

    def _scope(self, vnode: Vnode) -> int:
        return -1 if self._shared else vnode.index


def subresources(path: str) -> list[str]:
    """Which subresources of a Node allow a path: one that does is enough."""
    word = path.lstrip("/").partition("/")[0]
    if word in _FINE:
        return [_FINE[word], "proxy"]
    return [_OWN.get(word, "proxy")]


def _holder(certificate: dict[str, Any] | None) -> User | None:
    """CommonName and Organizations, as everywhere in Kubernetes."""
    fields = [pair for group in (certificate or {}).get("subject", ()) for pair in group]
    names = [value for key, value in fields if key == "commonName"]
    if not names or not names[0]:
        return None
    groups = [value for key, value in fields if key == "organizationName"]
    return User(names[0], groups=(*groups, "system:authenticated"))


async def _review(vnode: Vnode, resource: str, path: str, body: dict[str, Any], kind: type[Any]) -> Any:
    """Ask, and ask again an API server that throttles, fails or drops the request (webhook.DefaultShouldRetry)."""
    encoded = msgspec.json.encode(body)
    for pause in (*_PAUSES, None):
        try:
            answer = await vnode.client.call("create", resource, "POST", path, encoded, accept=JSON)
            return msgspec.json.decode(answer.checked().body, type=kind)
        except (Unreachable, ApiError) as error:
            again = error.sent if isinstance(error, Unreachable) else error.status == 429 or error.status >= 500
            if pause is None or not again:
                raise
        await asyncio.sleep(pause * (1 + random.uniform(0, _JITTER)))


class _Memory(Generic[T]):
    """Answers that hold for a while; those who want one that is being asked for wait for it."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[float, T]] = {}
        self._asked: dict[Any, asyncio.Task[T]] = {}

    async def get(self, key: Any, ask: Callable[[], Awaitable[tuple[T, float]]]) -> T:
        """The answer; `ask` says it and for how many seconds it holds. What it raises is raised to all who wait."""
        known = self._known.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        if (task := self._asked.get(key)) is None:
            task = self._asked[key] = asyncio.create_task(self._ask(key, ask))
        return await asyncio.shield(task)

    async def _ask(self, key: Any, ask: Callable[[], Awaitable[tuple[T, float]]]) -> T:
        try:
            value, seconds = await ask()
        finally:
            del self._asked[key]
        if seconds:
            if len(self._known) >= _MOST:
                self._tidy()
            self._known[key] = time.monotonic() + seconds, value
        return value

    def _tidy(self) -> None:
        now = time.monotonic()
        self._known = {key: known for key, known in self._known.items() if known[0] > now}
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
