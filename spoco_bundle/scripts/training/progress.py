"""How far a training is, and how long it still takes."""

from __future__ import annotations

import logging
import time

from ignite.engine import Engine, Events
from tqdm import tqdm

logger = logging.getLogger(__name__)


class TrainingProgress:
    """Trainer handler: a bar over the whole training with the time left; Ignite's `ProgressBar` has one an epoch.

    Where there is no terminal, a bar would flood the log: one line an epoch takes its place.
    """

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.first, self.total = 0, 0  # iterations
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, before the handlers that write to the terminal when an epoch ends."""
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _forget(self, engine: Engine) -> None:
        self.bar = None

    def _open(self, engine: Engine) -> None:
        if self.bar is not None:
            return
        # only now is it known where a resumed training begins
        self.first, self.started = engine.state.iteration, time.monotonic()
        epochs, length = engine.state.max_epochs, engine.state.epoch_length
        assert epochs is not None  # as an epoch has started
        assert length is not None
        self.total = epochs * length
        # None: no bar without a terminal; 0: the mean speed, in which validations count as well
        self.bar = tqdm(desc="training", initial=self.first, total=self.total, disable=None, smoothing=0)

    def _advance(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.update()

    def _report(self, engine: Engine) -> None:
        if self.bar is None:
            return
        self.bar.clear()
        if not self.bar.disable:
            return
        done = engine.state.iteration - self.first
        left = (time.monotonic() - self.started) / done * (self.total - engine.state.iteration)
        logger.info("epoch %d of %d, %s left", engine.state.epoch, engine.state.max_epochs, tqdm.format_interval(left))

    def _close(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.close()
