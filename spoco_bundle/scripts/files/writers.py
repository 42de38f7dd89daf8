"""Write instance maps as ``NAME_instances.EXT``, on the grid and in the format of the image they belong to.

A table of the instances, ``NAME_instances.csv``, goes beside each (see `tables`).

In a MONAI JSON config, as the last step of the postprocessing::

    {"_target_": "scripts.files.writers.SaveInstancesd", "keys": "pred", "output_dir": "@output_dir"}
"""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection, PathLike
from monai.transforms import SaveImaged
from monai.utils import ImageMetaKey, MetaKeys

from ..refusals import InputError, refusal
from ..tensors import plain_tensor
from .corrections import keep_corrected
from .image_files import PNG_SUFFIXES, TIFF_SUFFIXES, split_suffix
from .nifti_files import write_nifti
from .png_files import LARGEST_ID_OF_PNG, write_png
from .tables import SCORES_POSTFIX, instance_table, write_table
from .tiff_files import write_tiff
from .whole_files import tells_case_apart

logger = logging.getLogger(__name__)


def write_instances(instances: np.ndarray, source: PathLike, target: PathLike) -> None:
    """Write an instance map with the shape, axis order, voxel size and file format of the image ``source``.

    TIFF is written as uint16, or as uint32 when an id exceeds 65535, and then as OME where the source is
    an ImageJ file, as ImageJ has no 32-bit integers. NIfTI is written as int32 under the source's header,
    PNG as grey values of 16 bits. ``target`` appears complete or not at all.

    Args:
        instances: ids, 0 = background; axes (Z, Y, X) or (Y, X).
        source: file of the image that was segmented, TIFF, NIfTI or PNG.
        target: file to write, of the same format.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ValueError: floats, negative ids, ids too large for the format, or another shape than the source's.
        UnwritableFile: a full disk, or no right to write.
    """
    source, target = Path(source), Path(target)
    if instances.dtype.kind not in "biu":
        raise refusal(target, f"instances of type {instances.dtype}", "integer ids")
    if instances.size and instances.min() < 0:
        raise refusal(target, f"the negative id {instances.min()}", "ids from 0 (background) upwards")
    suffix = split_suffix(source)[1].lower()
    write = write_tiff if suffix in TIFF_SUFFIXES else write_png if suffix in PNG_SUFFIXES else write_nifti
    write(instances, source, target)


def result_path(image: PathLike, output_dir: PathLike, postfix: str = "instances") -> Path:
    """``OUTPUT_DIR/NAME_POSTFIX.EXT``, with NAME and EXT of the image; raises ValueError for an unknown extension."""
    name, suffix = split_suffix(image)
    return Path(output_dir) / f"{name}_{postfix}{suffix}"


def check_targets(
    data: Sequence[Mapping[str, str]],
    output_dir: PathLike,
    dataset_dir: PathLike,
    postfix: str = "instances",
    largest_id: int = 0,
) -> None:
    """Refuse an output folder in which a result would take the place of an input, or be one for the next run.

    Or that of another result, where the file system has one name for both. And a format that cannot hold the ids of a
    result.

    Args:
        data: the images to segment under the key ``image``, and what belongs to them under others.
        output_dir, postfix: see `result_path`.
        dataset_dir: all files in its folders ``images`` and ``labels`` are inputs.
        largest_id: what is known beforehand of the largest id of the results: that it is not smaller.

    Raises:
        ValueError: naming the folder, the input and the image whose result has its name, the two images, or the id.
    """
    for folder in (Path(dataset_dir) / "images", Path(dataset_dir) / "labels"):
        if folder.resolve() == Path(output_dir).resolve():
            raise InputError(f"output_dir: found {output_dir}, a folder of inputs, expected another one.")
    _check_case([entry["image"] for entry in data if _is_path(entry["image"])], Path(output_dir))
    inputs = {Path(value).resolve() for entry in data for value in entry.values() if _is_path(value)}
    for entry in data:
        if not _is_path(entry["image"]):
            continue
        target = result_path(entry["image"], output_dir, postfix)
        if target.resolve() in inputs:
            raise refusal(target, f"an input in the place of the result of {entry['image']}", "another output_dir")
        if largest_id > LARGEST_ID_OF_PNG and target.suffix.lower() in PNG_SUFFIXES:
            found = f"a PNG, and ids such as {largest_id} for its objects"
            raise refusal(entry["image"], found, f"ids up to {LARGEST_ID_OF_PNG} in this format, or a TIFF")


def _check_case(images: Sequence[PathLike], output_dir: Path) -> None:
    """Refuse images whose results, `A_instances.tif` and `a_instances.tif`, would be one file in the output folder."""
    image_of: dict[str, PathLike] = {}
    for image in images:
        other = image_of.setdefault(split_suffix(image)[0].casefold(), image)
        if other is not image and not tells_case_apart(output_dir):
            found = f"a name that differs from that of {other} in its case alone"
            raise refusal(image, found, f"another one, as {output_dir} does not tell them apart")


def _is_path(value: object) -> bool:
    """An entry may hold an image in memory, or other things."""
    return isinstance(value, str | os.PathLike)


class SaveInstancesd(SaveImaged):
    """Write ``OUTPUT_DIR/NAME_instances.EXT`` for each instance map of shape (1, *spatial), and a table beside it.

    NAME and EXT are those of the file of ``image``, which the map was made of. A `SaveImaged` by type, as MONAI Label
    removes savers by it; nothing else of it is used: `SaveImage` swallows errors and reports that it found no writer,
    and has one extension for all files.

    Args:
        keys: keys of the instance maps.
        output_dir: folder to write to, created when missing.
        postfix: what is put between the name and the extension of the source.

    Where there are scores of ``pred``, (K,), under ``pred_scores``, what they and the map say of each instance is
    written to ``OUTPUT_DIR/NAME_instances.csv``, see `tables.instance_table`; a map there that somebody has corrected
    since is kept, see `corrections`.
    """

    def __init__(self, keys: KeysCollection, output_dir: PathLike, postfix: str = "instances") -> None:
        super().__init__(keys)
        self.output_dir, self.postfix = output_dir, postfix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files and return the data as they are; raises like :func:`write_instances`."""
        result = dict(data)
        for key in self.key_iterator(result):
            instances = plain_tensor(result[key]).cpu().numpy()
            if len(instances) != 1:
                raise InputError(f"Found instances of shape {instances.shape}, expected one channel: (1, *spatial).")
            meta: dict[str, Any] = getattr(result["image"], "meta", {})
            source = meta.get(ImageMetaKey.FILENAME_OR_OBJ)
            if not source:
                raise InputError("Found metadata without filename_or_obj, expected the path of the image segmented.")
            target = result_path(source, self.output_dir, self.postfix)
            table_path = target.with_name(f"{split_suffix(target)[0]}.csv")
            scores = result.get(f"{key}_{SCORES_POSTFIX}")
            if scores is not None:
                keep_corrected(target, table_path)
            logger.info("writing: %s", target)
            write_instances(instances[0], source, target)
            if scores is not None:
                table = instance_table(instances[0], scores, meta[MetaKeys.ORIGINAL_AFFINE], meta.get("unit", ""))
                write_table(table_path, table)
        return result
