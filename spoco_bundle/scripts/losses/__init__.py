"""The SPOCO loss and its terms: instance segmentation learned from a few whole annotated objects."""

from .spoco import SpocoLoss, spoco_terms

__all__ = ["SpocoLoss", "spoco_terms"]
