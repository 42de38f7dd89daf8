"""Notice ids on the command line that no config has: MONAI takes ``--epoch 100`` in silence, and trains for 20 epochs.

In a MONAI JSON config, first among what is initialized::

    {"_target_": "scripts.spelling.check_spelling", "command": "$sys.argv"}
"""

from __future__ import annotations

import ast
import inspect
import logging
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from monai.bundle import ConfigParser
from monai.bundle import run as monai_run

logger = logging.getLogger(__name__)

SIMILAR = 0.8  # of 1: `epoch` and `label`, but not `seed` in the place of `settings`


def check_spelling(command: Sequence[str]) -> None:
    """Refuse an id that is nearly one of the configs', and warn of any other one that they do not know.

    An id that resembles none is only told: one list of options may serve several commands, and not each knows them all.

    Args:
        command: as in `sys.argv`; any other than ``monai.bundle run`` with config files is left alone.

    Raises:
        ValueError: naming the id and the one that was probably meant.
    """
    given = dict(_options(command))
    if not command[0].replace("\\", "/").endswith("monai/bundle/__main__.py") or "config_file" not in given:
        return
    files = _paths(given["config_file"])
    known = {name.split("#")[0].split("::")[0] for name in ConfigParser.load_config_files(files)}
    known.update(inspect.signature(monai_run).parameters)
    names = ", ".join(Path(file).name for file in files)
    for name in given:
        if name in known:
            continue
        if meant := get_close_matches(name, known, n=1, cutoff=SIMILAR):
            raise ValueError(f"--{name}: found no such id in {names}; expected --{meant[0]}?")
        logger.warning("--%s: there is no such id in %s, so it changes nothing", name, names)


def _options(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """First part of each id and its value, of ``--id value`` and ``--id=value``."""
    for argument, following in zip(command, [*command[1:], ""], strict=True):
        if argument.startswith("--") and len(argument) > 2:
            name, equals, value = argument[2:].partition("=")
            yield name.split("#")[0].split("::")[0].replace("-", "_"), value if equals else following


def _paths(value: str) -> list[str]:
    """Of ``a.json`` or ``['a.json','b.json']``, as the command line has them."""
    try:
        paths = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return [value]
    return [str(path) for path in paths] if isinstance(paths, list | tuple) else [str(paths)]
