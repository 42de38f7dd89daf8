"""How much memory a function needs."""

import tracemalloc
from collections.abc import Callable


def peak_memory(function: Callable[[], object]) -> int:
    """Bytes that NumPy and Python, but not PyTorch, ask for at once while the function runs."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
