"""How well predicted instances agree with the truth."""

from .instances import instance_metrics

__all__ = ["instance_metrics"]
