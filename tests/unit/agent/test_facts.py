"""The conditions of a run: whether any of it is on other machines than the agent's."""

from __future__ import annotations

import pytest

from turbokube.agent.facts import elsewhere
from turbokube.api.target import Component


@pytest.mark.parametrize(
    ("servers", "urls", "count"),
    [
        (["https://127.0.0.1:6443"], ["https://127.0.0.1:2381", "http://localhost:9000", "https://[::1]:10257"], 0),
        (["https://10.0.0.2:6443"], ["https://10.0.0.2:6443", "https://10.0.0.3:2381", "http://127.0.0.1:9000"], 2),
        (["https://api.example.com"], [], 1),
    ],
)
def test_what_listens_on_loopback_is_on_the_agents_machine(servers: list[str], urls: list[str], count: int) -> None:
    components = [Component(name=f"c-{number}", kind="etcd", url=url) for number, url in enumerate(urls)]
    assert elsewhere(servers, components) == count
