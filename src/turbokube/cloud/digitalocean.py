"""DigitalOcean's API by its official client: every page, errors as sentences, nothing bought twice."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

PAGE = 200  # the most that the API gives at once
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # before a request is repeated, where the API does not say how long
LONGEST_WAIT_S = 120.0  # a limit per minute is waited for, one per hour is not


class CloudError(ValueError):
    """The provider refused, or did not answer; the message says what and why."""


class Doubtful(CloudError):
    """There was no good answer, and what was asked may have been done all the same: look before it is asked again."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How the client calls a kind of resource: its operations, the key of a list and of one, the way to delete it."""

    operations: str
    many: str
    one: str
    delete: str = "delete"


KINDS = {
    "droplet": Kind("droplets", "droplets", "droplet", "destroy"),
    "pool": Kind("autoscalepools", "autoscale_pools", "autoscale_pool", "delete_dangerous"),
    "load balancer": Kind("load_balancers", "load_balancers", "load_balancer"),
    "firewall": Kind("firewalls", "firewalls", "firewall"),
    "VPC": Kind("vpcs", "vpcs", "vpc"),
    "SSH key": Kind("ssh_keys", "ssh_keys", "ssh_key"),
    "tag": Kind("tags", "tags", "tag"),
    "size": Kind("sizes", "sizes", "size"),
}


class Cloud:
    """One account. `endpoint`: the API's address, DigitalOcean's own if it is empty; it has to speak TLS."""

    def __init__(self, token: str, endpoint: str = "", sleep: Callable[[float], None] = time.sleep) -> None:
        if not token:
            raise CloudError("there is no token: set DIGITALOCEAN_ACCESS_TOKEN, or digitalocean_token from a vault")
        try:
            from pydo import Client
        except ImportError:
            raise CloudError("DigitalOcean's client is missing: pip install pydo") from None
        # it would repeat a POST after a 500, which buys twice
        options: Object = {"retry_total": 0, **({"endpoint": endpoint} if endpoint else {})}
        self._client = Client(token=token, **options)
        self._sleep = sleep

    def account(self) -> Object:
        """The account: `droplet_limit`, `status`, ..."""
        found: Object = self._call("the account", self._client.account.get, repeat=True)["account"]
        return found

    def all(self, kind: str, **only: str) -> list[Object]:
        """Every resource of a kind, over all pages."""
        return list(self._pages(kind, only))

    def count(self, kind: str) -> int:
        """How many of a kind the account has."""
        names = KINDS[kind]
        operations = getattr(self._client, names.operations)
        answer = self._call(f"list of {kind}s", lambda: operations.list(per_page=1), repeat=True)
        return int(answer["meta"]["total"])

    def create(self, kind: str, body: Object) -> list[Object]:
        """Make one, or as many as `body` names.

        Raises Doubtful where it is not known whether they were made; it is asked once.
        """
        names = KINDS[kind]
        operations = getattr(self._client, names.operations)
        what = f"{kind} {body.get('name') or ', '.join(body.get('names', []))}"
        answer = self._call(what, lambda: operations.create(body=body), repeat=False)
        if names.many in answer:
            return list(answer[names.many])
        if names.one not in answer:  # the client has errors that it returns
            raise CloudError(f"{what}: {answer.get('message', answer)}")
        return [answer[names.one]]

    def delete(self, kind: str, key: str | int) -> None:
        """Ask for one to be removed, which may take a while; one that is not there is as good."""
        names = KINDS[kind]
        operation = getattr(getattr(self._client, names.operations), names.delete)
        options = {"x_dangerous": True} if kind == "pool" else {}
        self._call(f"removal of {kind} {key}", lambda: operation(key, **options), repeat=True)

    def _pages(self, kind: str, only: dict[str, str]) -> Iterator[Object]:
        names = KINDS[kind]
        operations = getattr(self._client, names.operations)
        page = 1
        while True:
            asked = {"per_page": PAGE, "page": page, **only}
            answer = self._call(f"list of {kind}s", functools.partial(operations.list, **asked), repeat=True)
            yield from answer.get(names.many) or []
            if not answer.get("links", {}).get("pages", {}).get("next"):
                return
            page += 1

    def _call(self, what: str, request: Callable[[], Any], repeat: bool) -> Any:
        """The answer. A request that may not be repeated is, if it is known to have done nothing."""
        from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

        for wait in (*WAITS_S, None):
            try:
                return request()
            except HttpResponseError as error:
                status = error.status_code or 0
                said = f"{what}: {_words(error)}"
                if status == 401:
                    raise CloudError(
                        "DigitalOcean does not accept the token of DIGITALOCEAN_ACCESS_TOKEN or digitalocean_token: it "
                        "is wrong, revoked or expired"
                    ) from None
                if status == 429:
                    wait = wait and _pause(error, wait)
                elif status < 500:
                    raise CloudError(said) from None
                elif not repeat:
                    raise Doubtful(said) from None
            except ServiceRequestError as error:  # it was not sent
                said = f"{what}: DigitalOcean's API cannot be reached: {error}"
            except ServiceResponseError as error:
                said = f"{what}: the API did not answer: {error}"
                if not repeat:
                    raise Doubtful(said) from None
            if wait is None:
                raise CloudError(f"{said} (asked {len(WAITS_S) + 1} times)")
            if wait > LONGEST_WAIT_S:
                raise CloudError(f"{said}, for {wait:.0f} s to come")
            self._sleep(wait)
        raise AssertionError("unreachable")


def _words(error: Any) -> str:
    """The API's own message."""
    try:
        return str(error.response.json()["message"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return f"HTTP {error.status_code}"


def _pause(error: Any, wait: float) -> float:
    """How long the API says that its limit holds."""
    headers = error.response.headers
    if after := headers.get("retry-after"):
        return float(after)
    if headers.get("ratelimit-remaining") == "0" and (reset := headers.get("ratelimit-reset")):
        return max(wait, float(reset) - time.time())
    return wait
