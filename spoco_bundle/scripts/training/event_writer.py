"""TensorBoard's curves, without which a training goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class EventWriter(SummaryWriter):
    """Torch's `SummaryWriter`; where its file cannot be written it warns once, and is silent from then on.

    So also in a folder whose name is no UTF-8, as on the disk of an older computer: TensorBoard knows no other.

    Args:
        log_dir: folder of the event file.
    """

    def __init__(self, log_dir: str) -> None:
        self.is_broken = False
        self._try(super().__init__, log_dir)

    def hide_earlier(self, step: int) -> None:
        """Let TensorBoard forget what earlier files of the same folder tell of this step and of later ones."""
        start = Event(step=step, session_log=SessionLog(status=SessionLog.START))
        self._try(lambda: self._get_file_writer().add_event(start))

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
        except (OSError, UnicodeEncodeError) as error:
            self.is_broken = True
            logger.warning("the run goes on without TensorBoard: %s", error)


class EventWriterHandler:
    """Handler, after the one that resumes: hides the iterations which come once more, and closes the file at the end.

    They are those between the checkpoint and the interruption; where a new training begins, all of an earlier one that
    wrote to the same folder.
    """

    def __init__(self, event_writer: EventWriter) -> None:
        self.event_writer = event_writer

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.COMPLETED, self.event_writer.close)

    def _begin(self, engine: Engine) -> None:
        self.event_writer.hide_earlier(engine.state.iteration + 1)
