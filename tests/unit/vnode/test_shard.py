from __future__ import annotations

from turbokube.vnode import shard
from turbokube.vnode.spec import Spec

_SPEC = Spec(run="trial", count=100, processes=4)


def line(node: str, labels: str = "") -> bytes:
    return (
        f'{{"type":"MODIFIED","object":{{"metadata":{{"name":"p","labels":{{{labels}}},'
        f'"managedFields":[{{"f:nodeName":{{}}}}]}},"spec":{{"nodeName":"{node}"}},'
        f'"status":{{"nominatedNodeName":"vnode-00001","message":"\\"nodeName\\":\\"vnode-00001\\""}}}}}}'
    ).encode()


def test_pods_on_vnodes_of_other_processes_are_left_aside_and_no_others():
    mine = shard.pods(_SPEC.part(3))
    assert mine is not None
    assert [index for index in range(100) if mine(line(f"vnode-{index:05d}"))] == list(range(3, 100, 4))
    assert mine(line("vnode-100003"))  # more digits than the fleet writes: a node of somebody else
    assert mine(line("worker-1"))


def test_a_label_of_that_name_hides_no_pod():
    mine = shard.pods(_SPEC.part(3))
    assert mine is not None
    assert mine(line("vnode-00003", '"nodeName":"vnode-00002"'))
    assert not mine(line("vnode-00002"))


def test_one_process_looks_at_all():
    assert shard.pods(Spec(run="trial", count=100)) is None
