"""What a step frees is kept for the next one.

Of two equal trainings one could take a step 8 to 15 % longer than the other, in all of its steps: where the last block
that a step frees lies at the end of the heap, glibc gives megabytes back to the system, and each page of them is
fetched again in the next step, 8000 of them in 2D.
"""

from __future__ import annotations

import ctypes

from ignite.engine import Engine, Events

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 2**28  # bytes at the end of the heap; more go back
LARGEST = 2**25  # bytes of a block in the heap, the most that glibc takes; larger ones go back when they are freed


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory; returns whether it is one that can be told."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, KEPT))


class KeepFreedMemory:
    """Handler that calls `keep_freed_memory` when a training starts; it counts for the whole process."""

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, keep_freed_memory)
