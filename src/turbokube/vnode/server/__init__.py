"""A kubelet's server side: what those reach who call a vnode's own port. Imported only where vnodes serve."""
