"""The tokens of ServiceAccounts that a kubelet asks for, as token_manager.go does: one for each that a pod mounts."""

from __future__ import annotations

from collections.abc import Iterator

from .. import objects


def tokens(pod: objects.Pod) -> Iterator[objects.TokenProjection]:
    """One for each token of a ServiceAccount that is projected into the pod."""
    for volume in pod.spec.volumes:
        for source in (volume.projected and volume.projected.sources) or ():
            if source.service_account_token is not None:
                yield source.service_account_token


def token_request(pod: objects.Pod, token: objects.TokenProjection) -> dict[str, object]:
    """The TokenRequest with which a kubelet gets it, bound to the pod."""
    meta = pod.metadata
    bound = {"kind": "Pod", "apiVersion": "v1", "name": meta.name, "uid": meta.uid}
    audiences = {"audiences": [token.audience]} if token.audience else {}
    return {"spec": {**audiences, "expirationSeconds": token.expiration_seconds, "boundObjectRef": bound}}
