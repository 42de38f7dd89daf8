"""What a ``monai.bundle run`` command says: the ids that it gives, and the configs that these change."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from .errors import is_bundle_command


def is_run_command(command: Sequence[str]) -> bool:
    """Whether a program, as in `sys.argv`, is ``python -m monai.bundle run``, or ``run_workflow``."""
    return is_bundle_command(command) and command[1:2] in (["run"], ["run_workflow"])


def given_ids(command: Sequence[str]) -> dict[str, Any]:
    """Id -> value of what is on the command line, and in the file that it gives as ``--args_file``."""
    typed = dict(typed_ids(command))
    if Path(typed.get("args_file", "")).is_file():  # Fire makes a dictionary of some other values
        return {**ConfigParser.load_config_file(typed["args_file"]), **typed}
    return typed


def typed_ids(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each id and its value, in the forms that Fire reads: ``--id value``, ``--id=value``, ``-id value``.

    ``--noid`` without a value, which is Fire's ``--id False``, is given as ``id``; what follows ``--`` is for Fire.
    """
    arguments = list(takewhile(lambda argument: argument != "--", command))
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        if not _is_id(argument):
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        name, has_value = name.replace("-", "_"), bool(equals) or not _is_id(following)
        if not has_value and name.startswith("no"):
            name = name[2:]
        yield name, value if equals else following


def config_paths(value: str | Sequence[str]) -> list[str]:
    """Of ``a.json`` or ``['a.json','b.json']``, as the command line has them, or a list, as a file has it."""
    if not isinstance(value, str):
        paths = value
    else:
        try:
            paths = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return [value]
    return [str(path) for path in paths] if isinstance(paths, list | tuple) else [str(paths)]


def first_part(name: str) -> str:
    """The id at the top of a config in which a nested one lies."""
    return name.split("#")[0].split("::")[0]


def configuration(command: Sequence[str], without: Collection[str] = ()) -> dict[str, str]:
    """What a command gives, and its configs, one over the other, as they are written.

    Args:
        command: as in `sys.argv`.
        without: ids at the top of a config that are left out, with all that is nested in them.

    Returns:
        ``given ids`` and ``configs`` as JSON, the same for commands that come to the same; nothing where no such
        command runs.
    """
    given = given_ids(command) if is_run_command(command) else {}
    if "config_file" not in given:
        return {}
    config = ConfigParser.load_config_files(config_paths(given["config_file"]))
    written = {name: value for name, value in config.items() if name not in without}
    changed = {name: value for name, value in given.items() if first_part(name) in written}
    texts = {"given ids": changed, "configs": written}
    return {name: json.dumps(content, sort_keys=True, default=str) for name, content in texts.items()}


def _is_id(argument: str) -> bool:
    """Fire takes one dash as well, before a letter: ``-8`` is a number."""
    return argument.startswith("--") or re.match("-[a-zA-Z]", argument) is not None
