"""The values of a command line, ``--set`` and ``--data``, as whoever types them means them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmar_runtime.config.loader import unused_values
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar, parse_overrides
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.config.sources import OUTPUT_VARIABLES
from mmar_runtime.errors import ConfigError, Problem

READ_VARIABLES = ("DATASET_JSON", "MMAR_CKPT", "MMAR_TORCHSCRIPT")
"""The variables of files that a run reads."""

HERE = (f".{os.sep}", f"..{os.sep}")


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``, as ``mmar simulate`` has it for its sites."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="holds dataset.json: in place of DATA_ROOT and DATASET_JSON",
    )


def given_values(options: argparse.Namespace) -> dict[str, Scalar]:
    """Return the values that win over every document, with paths that hold from any folder.

    A relative path of a file that is read means the working directory, if the file is there; else
    the MMAR's folder, as in Clara's scripts. A folder for results is below the MMAR's, unless its
    path begins with ``./`` or ``../``.

    Raises:
        ConfigError: a word is not NAME=VALUE.
    """
    values = parse_overrides(options.overrides, bare_words=options.old_scripts)
    return {
        name: os.path.abspath(value)
        if isinstance(value, str) and _means_here(name, value, options)
        else value
        for name, value in values.items()
    }


def results_below(options: argparse.Namespace, config: WorkflowConfig) -> Iterator[str]:
    """Yield where results go that a relative path names, if another folder could be meant."""
    if options.old_scripts or config.mmar_root == Path.cwd():
        return
    for name, value in parse_overrides(options.overrides).items():
        relative = isinstance(value, str) and not os.path.isabs(value)
        if name in OUTPUT_VARIABLES and relative and not str(value).startswith(HERE):
            yield (
                f"--set {name}: {value!r} is a folder of the MMAR, {config.value(name)}; "
                f"./{value} is one of the working directory"
            )


def with_data(values: Mapping[str, Scalar], folder: Path | None) -> dict[str, Scalar]:
    """Return the values with those of ``--data``, if it was given; ``--set`` wins.

    Raises:
        ConfigError: the folder holds no list.
    """
    return {**({} if folder is None else _data_values(folder)), **values}


def require_used(options: argparse.Namespace, config: WorkflowConfig) -> None:
    """Refuse values that nothing uses; Clara's scripts hand on more than each command needs.

    Raises:
        ConfigError: there are such values.
    """
    unused = list(unused_values([config]))
    if unused and not options.old_scripts:
        raise ConfigError(unused)


def _means_here(name: str, path: str, options: argparse.Namespace) -> bool:
    """Return whether a relative path is one of the working directory."""
    if name == "DATA_ROOT":
        return bool(path)
    if options.old_scripts:
        return False
    if name in OUTPUT_VARIABLES:
        return path.startswith(HERE)
    return name in READ_VARIABLES and bool(path) and os.path.exists(path)


def _data_values(folder: Path) -> dict[str, Scalar]:
    root = os.path.abspath(folder.expanduser())
    file = os.path.join(root, "dataset.json")
    if not os.path.isfile(file):
        message = f"there is no dataset.json in {root!r}"
        advice = "'mmar data list' makes one; or set DATA_ROOT and DATASET_JSON with --set."
        raise ConfigError([Problem(Location("--data"), message, advice, "data-list")])
    return {"DATA_ROOT": root, "DATASET_JSON": file}
