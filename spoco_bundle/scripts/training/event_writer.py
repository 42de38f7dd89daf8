"""TensorBoard's curves, without which a training goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class EventWriter(SummaryWriter):
    """Torch's `SummaryWriter`; where its file cannot be written it warns once, and is silent from then on.

    Args:
        log_dir: folder of the event file.
    """

    def __init__(self, log_dir: str) -> None:
        self.is_broken = False
        self._try(super().__init__, log_dir)

    def add_scalar(self, *args: Any, **kwargs: Any) -> None:
        self._try(super().add_scalar, *args, **kwargs)

    def add_image(self, *args: Any, **kwargs: Any) -> None:
        self._try(super().add_image, *args, **kwargs)

    def flush(self) -> None:
        self._try(super().flush)

    def close(self) -> None:
        self._try(super().close)

    def _try(self, write: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        if self.is_broken:
            return
        try:
            write(*args, **kwargs)
        except OSError as error:
            self.is_broken = True
            logger.warning("the run goes on without TensorBoard: %s", error)
