"""What one pod does on its vnode: its containers' lives, and what its kubelet says of them."""
