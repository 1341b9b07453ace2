"""What is known of a target."""

from __future__ import annotations

from turbokube.api.target import Component, Target

SERVERS = [Component(name=f"kube-apiserver-{k}", kind="kube-apiserver", url=f"https://10.0.0.{k}:6443") for k in (1, 2)]


def test_what_api_servers_are_behind_is_asked_for_its_health() -> None:
    (front,) = Target(name="t", servers=["https://10.0.0.9:6443"], components=SERVERS).fronts()
    assert (front.name, front.url, front.metrics_path) == ("load-balancer-0", "https://10.0.0.9:6443", "/readyz")


def test_api_servers_that_are_spoken_to_themselves_are_behind_nothing() -> None:
    assert not Target(name="t", servers=[one.url for one in SERVERS], components=SERVERS).fronts()
    assert not Target(name="t", servers=["https://10.0.0.9:6443"]).fronts()  # nobody knows what is there
