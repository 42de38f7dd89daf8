"""The processes of a distributed training, as torchrun starts them."""

from __future__ import annotations

import os

from ..refusals import InputError


def process_rank() -> int:
    """Number of this process among those of a distributed training.

    Raises:
        ValueError: nothing tells it: the training was not started by torchrun.
    """
    try:
        return int(os.environ["RANK"])
    except KeyError as error:
        raise InputError("RANK: found no such environment variable, expected that torchrun sets it.") from error
