"""What there is to say about a file is said once, though it is read for several purposes."""

from __future__ import annotations

import logging


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
