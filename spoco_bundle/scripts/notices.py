"""What the log says about files: all that is to be said once, and how many are done where that takes long."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

SILENCE = 30.0  # seconds, after which a user asks whether anything goes on


class SaidOnce(logging.Filter):
    """Filter of a logger that drops each message which it has passed before."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        message = record.getMessage()
        is_new = message not in self.said
        self.said.add(message)
        return is_new


def counted_aloud(items: Sequence[T], logger: logging.Logger, message: str) -> Iterator[T]:
    """The items one after the other; where they take long, the log says now and then how many of them are done.

    Args:
        items: to go through.
        logger: tells it, at most every `SILENCE` seconds.
        message: with two numbers in it: of the items that are done, and of all.
    """
    spoke = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - spoke >= SILENCE:
            logger.info(message, done, len(items))
            spoke = time.monotonic()
        yield item
