"""``--confine``: a command that runs a stranger's MMAR lets the kernel confine its process."""

from __future__ import annotations

import argparse
import atexit
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmar_runtime.cli.common import is_first_process
from mmar_runtime.components.launch import launched_processes
from mmar_runtime.config.overrides import Scalar, parse_overrides
from mmar_runtime.confinement.places import job_environment, make_scratch, remove_scratch
from mmar_runtime.confinement.wall import Confinement, confine, kernel_wall, require_wall
from mmar_runtime.mmar import Mmar

SCRATCH = "scratch"
"""Home folder, caches and temporary files of a confined run, in the MMAR."""

READ_ONLY = ("config", "custom")
"""What a confined run must not change: what the next run reads as documents and as code."""

OUTPUTS = ("MMAR_CKPT_DIR", "MMAR_EVAL_OUTPUT_PATH")
"""Variables of folders that a run writes to."""


def add_confine_argument(parser: argparse.ArgumentParser) -> None:
    """``--confine``."""
    parser.add_argument(
        "--confine",
        action="store_true",
        help="for an MMAR of a stranger: the kernel lets this process read the MMAR and what --set "
        "names, write below the MMAR, start no program and reach no network",
    )


def confine_command(options: argparse.Namespace) -> None:
    """Confine this process, if ``--confine`` asks for that, before it reads the MMAR.

    The process is begun anew with a clean environment first, since what a process was given at its
    start stays in its memory.

    Raises:
        ConfinementError: this kernel does not cover files, programs and network.
        ConfigError: there is no such MMAR, or an override is not one.
    """
    if not options.confine:
        return
    mmar, overrides = Mmar.open(options.mmar), parse_overrides(options.overrides)
    require_wall(kernel_wall())
    scratch = mmar.root / SCRATCH / str(os.getpid())
    environment = job_environment(os.environ, scratch)
    if environment != dict(os.environ):
        make_scratch(scratch)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    atexit.register(remove_scratch, scratch)
    options.mmar = str(mmar.root)  # the working directory becomes one of the run
    wall = confine(_confinement(mmar, overrides))
    if is_first_process():
        print(f"note: confinement: {wall}", file=sys.stderr)


def _confinement(mmar: Mmar, overrides: Mapping[str, Scalar]) -> Confinement:
    for folder in (mmar.models, mmar.root / "eval"):
        folder.mkdir(exist_ok=True)
    outputs = {name: Path(str(overrides[name])) for name in OUTPUTS if name in overrides}
    folders = [one for one in mmar.root.iterdir() if one.is_dir() and not one.is_symlink()]
    return Confinement(
        read=(mmar.root, *_named(overrides)),
        write=(
            mmar.models,
            *(one for one in folders if one.name not in READ_ONLY),
            *outputs.values(),
        ),
        # The processes of one training find each other by ports that nobody knows beforehand.
        connect_ports=None if launched_processes().several else (),
    )


def _named(overrides: Mapping[str, Scalar]) -> Iterator[Path]:
    """The files and folders that the user has named on the command line."""
    for value in overrides.values():
        if isinstance(value, str) and os.path.isabs(value):
            yield Path(value)
