"""What does not fit into a GPU's memory is done in the host's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device has too little memory: of Apple's torch says so in the text of a `RuntimeError` alone."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def on_host_if_too_large(function: Callable[..., Result], embeddings: Tensor, *arguments: Any) -> Result:
    """``function(embeddings, *arguments)`` where the embeddings are, or on the CPU where their GPU is too small."""
    try:
        return function(embeddings, *arguments)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        logger.warning("%s: too little memory for %s, going on on the CPU", embeddings.device, function.__name__)
    return function(embeddings.cpu(), *arguments)  # out of the exception, which keeps alive what was on the GPU
