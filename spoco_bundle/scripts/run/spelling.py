"""Notice ids on the command line that no config has: MONAI takes ``--epoch 100`` in silence, and trains for 20 epochs.

In a MONAI JSON config, first among what is initialized::

    {"_target_": "scripts.run.spelling.check_spelling", "command": "$sys.argv"}
"""

from __future__ import annotations

import ast
import inspect
import logging
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, run_workflow
from monai.bundle import run as monai_run
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from ..refusals import InputError
from .command_line import config_paths, first_part, given_ids, is_run_command, typed_ids
from .options import FOLDER, PATH_OR_NULL, PATHS_OR_NULL, RULES

logger = logging.getLogger(__name__)

SIMILAR = 0.8  # of 1: `epoch` and `label`, but not `seed` in the place of `settings`


def check_spelling(command: Sequence[str]) -> None:
    """Refuse an id that is nearly one of the configs', and warn of any other one that they do not know.

    An id that resembles none, or is an option of another command, is only told: one list of options may serve several
    commands, and not each knows them all. Ids in a file given as ``--args_file`` count like those of the command line.
    Values that MONAI would take for something else are refused as well.

    Args:
        command: as in `sys.argv`; any other than ``monai.bundle run``, or ``run_workflow``, with config files is left
            alone.

    Raises:
        ValueError: naming the id and the one that was probably meant, or what can be written in the place of a value.
    """
    given = given_ids(command) if is_run_command(command) else {}
    if "config_file" not in given:
        return
    files = config_paths(given["config_file"])
    config = ConfigParser.load_config_files(files)
    known = {first_part(name) for name in config} | _known_to_monai(given)
    names = ", ".join(Path(file).name for file in files)
    for name in dict.fromkeys(map(first_part, given)):
        if name in known:
            continue
        meant = get_close_matches(name.lower(), known, n=1, cutoff=SIMILAR)
        if meant and name not in RULES:
            raise InputError(f"--{name}: found no such id in {names}; expected --{meant[0]}?")
        logger.warning("--%s: there is no such id in %s, so it changes nothing", name, names)
    for name, value in dict(typed_ids(command)).items():
        _check_value(name, value, config)


def _check_value(name: str, value: str, config: Mapping[str, Any]) -> None:
    """Refuse what MONAI leaves out or changes in silence."""
    if value == "None" and config.get(name) is not None:
        raise InputError(f"--{name}: found None, which MONAI leaves out, expected '$None' to unset it.")
    if "#" in value and RULES.get(name) in (FOLDER, PATHS_OR_NULL):
        raise InputError(f"--{name}: found {value} with #, which MONAI changes to ::, expected a path without it.")
    number = _whole_number(value)
    if number is not None and value != str(number) and RULES.get(name) in (FOLDER, PATH_OR_NULL):
        raise InputError(f"--{name}: found {value}, which MONAI takes for {number}, expected a path, such as ./{value}")


def _whole_number(value: str) -> int | None:
    """What Fire makes of 2026_11_28 or 0x10."""
    try:
        number = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return None
    return number if isinstance(number, int) else None


def _known_to_monai(given: dict[str, Any]) -> set[str]:
    """What MONAI itself takes, what it runs if it is there, and the settings of the experiment tracking asked for."""
    names = {name for door in (monai_run, run_workflow, ConfigWorkflow) for name in inspect.signature(door).parameters}
    all_tracking: Mapping[str, Mapping[str, Any]] = DEFAULT_EXP_MGMT_SETTINGS
    tracking = all_tracking.get(str(given.get("tracking")), {"configs": {}})
    return {*names, *tracking["configs"], ConfigParser.meta_key, "initialize", "run", "finalize"}
