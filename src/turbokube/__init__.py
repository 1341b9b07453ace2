"""TurboKube: load a real Kubernetes control plane with virtual nodes, measure it, say how far it goes."""

from __future__ import annotations

__version__ = "0.1.0"
