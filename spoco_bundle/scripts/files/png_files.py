"""Read and write PNG files: grey values, colours as channels, and palettes as their indices."""

from __future__ import annotations

import io
import math
from pathlib import Path

import imagecodecs
import numpy as np
from monai.config import PathLike
from PIL import Image

from ..refusals import refusal
from .image_files import existing_file
from .volumes import Volume, check_instances, is_brightness, make_volume
from .whole_files import whole_file

LARGEST_ID_OF_PNG = 2**16 - 1


def read_png(path: PathLike) -> Volume:
    """Read a PNG file as (Y, X), or as (C, Y, X) where it has colours; pixels have the size 1.

    Of a palette image the result is the indices, not the colours: that is how label maps are stored. An
    alpha channel is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no PNG, truncated or damaged data.
    """
    path = existing_file(path)
    data = path.read_bytes()
    is_indexed = data[25:26] == b"\x03"  # the colour type, in the header that comes first in every file
    try:
        # Pillow keeps 8 of the 16 bits of a colour, imagecodecs keeps no palette
        if is_indexed:
            image = Image.open(io.BytesIO(data))
            array, colours = np.asarray(image), np.array(image.getpalette()).reshape(-1, 3)
        else:
            array = imagecodecs.png_decode(data)
    except MemoryError:
        raise
    except Exception as error:  # both libraries have several
        raise refusal(path, f"data that cannot be decoded ({error})", "an undamaged PNG file") from error
    bits, is_grey = data[24], data[25] == 0
    if is_grey and bits < 8:
        array = array // (255 // (2**bits - 1))  # which imagecodecs makes brighter: ids must stay what they are
    has_alpha = array.ndim == 3 and array.shape[2] in (2, 4)
    if array.ndim == 3:
        array = array.transpose(2, 0, 1)[: -1 if has_alpha else None]
    has_palette = is_indexed and not is_brightness(colours)
    return make_volume(
        path, array, np.eye(3), array.ndim == 3, "pixel", [math.nan] * 2, has_palette=has_palette, had_alpha=has_alpha
    )


def write_png(instances: np.ndarray, source: Path, target: Path) -> None:
    """See `writers.write_instances`."""
    check_instances(instances, source, target, read_png(source).array.shape[-2:], LARGEST_ID_OF_PNG)
    with whole_file(target) as temporary:
        Image.fromarray(instances.astype(np.uint16)).save(temporary)
