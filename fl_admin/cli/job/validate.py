"""``mmar job validate``: make a job that has given models evaluated at every site."""

from __future__ import annotations

import argparse
from pathlib import Path

from fl_admin.cli.commands import add_words
from fl_admin.cli.job.making import add_mmar_arguments, add_target_arguments, make
from mmar_runtime.cli.common import add_output_arguments, add_set_argument
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem

HELP = "make a job that has given models evaluated at every site"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_mmar_arguments(parser, min_sites="for each model")
    add_words(
        parser,
        "--model",
        "NAME=FILE",
        "a model to evaluate: its name in the matrix, and a .pt or .safetensors file",
    )
    add_words(
        parser,
        "--models-of",
        "RUN",
        "the global models and each site's best of a simulation or a downloaded job",
        kind=Path,
    )
    add_target_arguments(parser)
    add_set_argument(parser)
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Make the job."""
    from fl_admin.jobs.given_models import ValidationSettings

    models = _models(options)
    make(options, ValidationSettings(models=tuple(models), min_sites=options.min_sites), models)
    return 0


def _models(options: argparse.Namespace) -> dict[str, Path]:
    """Return the files by name, in the order in which they were given.

    Raises:
        ConfigError: there is none, one is not ``NAME=FILE``, or two have one name.
    """
    from fl_admin.jobs.given_models import models_of

    place = Location("--model")
    problems = []
    given: list[tuple[str, Path]] = []
    for word in options.model:
        name, _, file = word.partition("=")
        if name and file:
            given.append((name, Path(file)))
        else:
            problems.append(Problem(place, f"{word!r} is not NAME=FILE", "", "usage"))
    for run in options.models_of:
        given += models_of(run).items()
    names = [name for name, _ in given]
    for name in sorted({name for name in names if names.count(name) > 1}):
        message = f"two models are called {name!r}"
        advice = "Name the files one by one, with --model NAME=FILE."
        problems.append(Problem(place, message, advice, "usage"))
    if not given and not problems:
        advice = "Write --model NAME=FILE, or --models-of RUN."
        problems.append(Problem(place, "no model is named", advice, "usage"))
    if problems:
        raise ConfigError(problems)
    return dict(given)
