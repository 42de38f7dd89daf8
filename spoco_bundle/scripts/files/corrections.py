"""Instance maps that somebody has corrected since they were written: no later run may destroy them."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

from .image_files import split_suffix
from .readers import read_volume
from .tables import table_rows, voxel_columns
from .whole_files import move_aside

logger = logging.getLogger(__name__)


def keep_corrected(target: Path, table: Path) -> None:
    """Rename a map that is not what the table beside it says: ``a_instances.tif`` to ``a_instances_before_1.tif``.

    A correction is told by the number of voxels of an instance, or by where they lie, see `tables.instance_table`.
    """
    if not target.is_file() or _is_as_written(target, table):
        return
    kept = move_aside([target], suffix_of=lambda path: split_suffix(path)[1])[target]
    logger.warning(
        "%s: found a map that was changed since it was written, or another one; it is kept as %s", target, kept
    )


def _is_as_written(target: Path, table: Path) -> bool:
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        instances = read_volume(target).array
        largest_id = max((int(row["id"]) for row in rows), default=0)
        if instances.dtype.kind not in "biu" or not 0 <= instances.min() <= instances.max() == largest_id:
            return False
        columns = voxel_columns(instances)
        return table_rows(columns) == [[row[name] for name in columns] for row in rows]
    except (OSError, ValueError, LookupError, TypeError):  # broken, or none of ours
        return False
