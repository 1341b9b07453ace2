"""What a vnode has of its own at fidelity `kubelet` and `node`, where the API server cannot tell it from a node."""
