"""Names for the types of arrays that pass between modules."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]  # ids, 0 = none
Mask = NDArray[np.bool_]
