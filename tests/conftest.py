"""What holds for all tests.

Hypothesis tries few examples in `make test`, many with ``pytest --hypothesis-profile thorough``. Where there is no GPU,
Triton's kernels are interpreted, which must be settled before Triton is imported.
"""

from __future__ import annotations

import os

import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("quick", max_examples=250, deadline=None)
settings.register_profile("thorough", max_examples=10_000, deadline=None)
settings.load_profile("quick")
