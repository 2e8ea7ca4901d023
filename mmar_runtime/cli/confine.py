"""``--confine``: a command that runs a stranger's MMAR lets the kernel confine its process."""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from mmar_runtime.cli.common import StopRequest, is_first_process, print_note
from mmar_runtime.components.launch import launched_processes
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import BUILT_IN, OUTPUT_VARIABLES
from mmar_runtime.confinement.places import job_environment, make_scratch, remove_scratch
from mmar_runtime.confinement.wall import (
    Confinement,
    ConfinementError,
    confine_as,
    kernel_wall,
    require_wall,
)
from mmar_runtime.mmar import Mmar

SCRATCH = "scratch"
"""Home folder, caches and temporary files of a confined run, in the MMAR."""

READ_ONLY = ("config", "custom")
"""Folders that a confined run must not change: the next run reads documents and code there."""


INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
"""They wait while the process begins anew, until something removes the scratch folder."""


def add_confine_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--confine``."""
    parser.add_argument(
        "--confine",
        action="store_true",
        help="for an MMAR of a stranger: the kernel lets this process read the MMAR and what --set "
        "names, write below the MMAR, start no program and reach no network",
    )


def confine_command(options: argparse.Namespace, values: Mapping[str, Scalar]) -> None:
    """Confine this process, if ``--confine`` asks for that, before it reads the MMAR.

    The process is begun anew with a clean environment first, since the variables that a process
    starts with stay in its memory.

    Args:
        options: of the command line; the MMAR's folder becomes absolute.
        values: that win over every document, with absolute paths.

    Raises:
        ConfinementError: this kernel does not cover files, programs and network; or there is a link
            where the run would write.
        ConfigError: there is no such MMAR, or an override is not one.
    """
    if not options.confine:
        return
    mmar = Mmar.open(options.mmar)
    require_wall(kernel_wall())
    # A run would write to the targets of the MMAR's own links.
    for folder in (mmar.root / SCRATCH, *_own_outputs(mmar)):
        if folder.is_symlink():
            raise ConfinementError(
                f"{folder} is a link, and a confined run writes below the MMAR alone. Put a "
                "folder in its place, or train without --confine"
            )
    scratch = mmar.root / SCRATCH / str(os.getpid())
    environment = job_environment(os.environ, scratch)
    if environment != dict(os.environ):
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
        make_scratch(scratch)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    atexit.register(remove_scratch, scratch)
    signal.signal(signal.SIGTERM, StopRequest().handle)  # by default nothing would be removed
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    # The working directory becomes a folder of the run.
    options.mmar = str(mmar.root)
    done = confine_as("required", _confinement(mmar, values))
    if is_first_process():
        print_note(f"confinement: {done}")


def _own_outputs(mmar: Mmar) -> list[Path]:
    return [mmar.root / str(BUILT_IN[name]) for name in OUTPUT_VARIABLES]


def _confinement(mmar: Mmar, values: Mapping[str, Scalar]) -> Confinement:
    named = [mmar.root / str(values[name]) for name in OUTPUT_VARIABLES if name in values]
    for folder in (*_own_outputs(mmar), *named):
        folder.mkdir(parents=True, exist_ok=True)  # a missing folder cannot be allowed
    folders = [path for path in mmar.root.iterdir() if path.is_dir() and not path.is_symlink()]
    texts = (value for value in values.values() if isinstance(value, str))
    return Confinement(
        read=(mmar.root, *(Path(text) for text in texts if os.path.isabs(text))),
        write=(
            mmar.models,
            *(folder for folder in folders if folder.name not in READ_ONLY),
            *named,
        ),
        # The processes of a training find each other by ports that nobody knows beforehand.
        connect_ports=None if launched_processes().several else (),
    )
