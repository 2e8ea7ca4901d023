"""``mmar job``: make a job of an MMAR or of an old federation's configs, and look at a job."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmar_runtime.cli.common import (
    add_output_arguments,
    add_set_argument,
    examples_of,
    print_json,
    print_note,
)
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.rounding_forms import ROUNDINGS
from mmar_runtime.names import visible_line

if TYPE_CHECKING:
    from fl_admin.jobs.clara.reading import FieldReport
    from fl_admin.jobs.create import CreatedJob
    from fl_admin.jobs.given_models import ValidationSettings
    from fl_admin.jobs.settings import JobSettings
    from fl_admin.jobs.summary import JobSummary

HELP = "make a job of an MMAR, import an old federation's configs, show a job"
EXAMPLES = """examples:
  mmar job create path/to/mmar --out jobs/spleen --min-sites 3 --rounds 50 --local-epochs 2
  mmar job create path/to/mmar --out jobs/spleen --aggregation-weights site-2=2 site-3=0.5
  mmar job validate path/to/mmar --out jobs/check --model ours=model.pt --models-of runs/run-001
  mmar job create path/to/mmar --out jobs/spleen --encrypt-layers 'model.*.conv.*'
  mmar job create path/to/mmar --out jobs/spleen --transfer int8
  mmar job create path/to/mmar --out jobs/spleen --exclude-vars "*.running_*"
  mmar job create path/to/mmar --out jobs/spleen --result-filter PercentilePrivacy gamma=0.01
  mmar job import path/to/old_mmar --out jobs/old --allow-dropped EarlyStopping
  mmar job show jobs/spleen --json
"""

MAX_SHOWN = 5
"""Refusals that are shown; the rest are counted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands, each with its own arguments."""
    commands = parser.add_subparsers(title="commands", dest="job_command", required=True)
    for name, (text, add, _) in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=examples_of(f"mmar job {name}", EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add(command)
        add_output_arguments(command)


def run(options: argparse.Namespace) -> int:
    """Run the subcommand."""
    code: int = _COMMANDS[options.job_command][2](options)
    return code


# --- create --------------------------------------------------------------------------------------


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """The numbers of a job, without the rounds."""
    parser.add_argument(
        "--local-epochs", type=int, metavar="N", help="epochs that a site trains in a round (1)"
    )
    parser.add_argument(
        "--aggregation-weights",
        nargs="+",
        default=[],
        action="extend",
        metavar="SITE=WEIGHT",
        help="factor of a site's steps in the mean (1)",
    )
    parser.add_argument(
        "--he", action="store_true", help="sites send their updates homomorphically encrypted"
    )
    parser.add_argument(
        "--encrypt-layers",
        nargs="+",
        default=[],
        action="extend",
        metavar="NAME",
        help="only these tensors are encrypted, by name or with *; implies --he",
    )
    parser.add_argument(
        "--transfer",
        choices=ROUNDINGS,
        help="sites round the large tensors of their updates: half the bytes, or a quarter (no)",
    )


def add_sharing_arguments(parser: argparse.ArgumentParser) -> None:
    """What sites share, what filters it passes, and how it is put together."""
    parser.add_argument(
        "--exclude-vars",
        nargs="+",
        default=[],
        action="extend",
        metavar="NAME",
        help="tensors that each site keeps to itself, with * for any characters",
    )
    parser.add_argument(
        "--optional-names",
        nargs="+",
        default=[],
        action="extend",
        metavar="NAME",
        help="tensors that a site may leave out, with * for any characters",
    )
    parser.add_argument(
        "--result-filter",
        nargs="+",
        default=[],
        action="append",
        metavar=("CLASS", "KEY=VALUE"),
        help="filter of what sites send: ExcludeVars, PercentilePrivacy, SVTPrivacy, or an own "
        "class of custom/; may be repeated",
    )
    parser.add_argument(
        "--aggregator",
        nargs="+",
        metavar=("CLASS", "KEY=VALUE"),
        help="an aggregator of one's own, of custom/ (the weighted mean)",
    )


def settings_of(options: argparse.Namespace, *, min_sites: int) -> JobSettings:
    """The settings that the options ask for.

    Raises:
        ConfigError: a weight is no number, or names no site.
    """
    from fl_admin.jobs.settings import JobSettings
    from fl_client.jobs.encryption import ALL

    given = {"rounds": options.rounds, "local_epochs": options.local_epochs}
    numbers = {name: value for name, value in given.items() if value is not None}
    weights = _weights(options.aggregation_weights)
    sharing = _sharing(options) if hasattr(options, "result_filter") else {}
    layers = tuple(options.encrypt_layers) or (ALL if options.he else None)
    return JobSettings(
        min_sites=min_sites,
        aggregation_weights=weights,
        encrypt_layers=layers,
        transfer=options.transfer,
        **numbers,
        **sharing,
    )


def _sharing(options: argparse.Namespace) -> dict[str, Any]:
    """What ``add_sharing_arguments`` asks for.

    Buffers that a privacy filter keeps at the sites are allowed to be missing.
    """
    from fl_admin.jobs.settings import BATCH_NORM_BUFFERS, keeps_buffers, named_class

    filters = tuple(named_class(words) for words in options.result_filter)
    optional = list(options.optional_names)
    for one in filters:
        optional += one["args"].get("exclude_vars", [])
        optional += BATCH_NORM_BUFFERS if keeps_buffers(one) else []
    return {
        "exclude_vars": tuple(options.exclude_vars),
        "optional_names": tuple(dict.fromkeys(optional)),
        "result_filters": filters,
        "aggregator": named_class(options.aggregator) if options.aggregator else None,
    }


def _weights(words: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    problems = []
    for word in words:
        site, _, weight = word.rpartition("=")
        try:
            found[site] = float(weight)
        except ValueError:
            message = f"{word!r} is no weight of a site"
            place = Location("--aggregation-weights")
            problems.append(
                Problem(place, message, "Write SITE=WEIGHT, such as site-2=1.5.", "job")
            )
    if problems:
        raise ConfigError(problems)
    return found


def _add_target_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="JOB", help="becomes the job's folder"
    )
    parser.add_argument("--name", default="", metavar="N", help="the job's name (the MMAR's)")
    parser.add_argument("--with-code", action="store_true", help="take the MMAR's custom/ along")
    parser.add_argument("--overwrite", action="store_true", help="replace a job that is there")


def _add_create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mmar", type=Path, metavar="MMAR", help="the MMAR's folder")
    _add_target_arguments(parser)
    parser.add_argument(
        "--min-sites", type=int, default=2, metavar="N", help="sites of a round (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, metavar="R", help="rounds of training (50)")
    add_settings_arguments(parser)
    add_sharing_arguments(parser)
    add_set_argument(parser)


def _create(options: argparse.Namespace) -> int:
    _make(options, settings_of(options, min_sites=options.min_sites))
    return 0


def _make(
    options: argparse.Namespace,
    settings: JobSettings | ValidationSettings,
    models: Mapping[str, Path] | None = None,
) -> None:
    """Make the job that the options ask for, and tell of it."""
    from fl_admin.jobs.create import JobRequest, create_job, mmar_to_federate, replaced_configs
    from mmar_runtime.config.overrides import parse_overrides

    request = JobRequest(
        mmar=mmar_to_federate(options.mmar),
        settings=settings,
        name=options.name,
        with_code=options.with_code,
        values=parse_overrides(options.overrides),
        models=models or {},
    )
    created = create_job(request, options.out, overwrite=options.overwrite)
    notices = (*replaced_configs(request.mmar), *created.notices)
    _tell(replace(created, notices=notices), as_json=options.json)


def _tell(created: CreatedJob, *, as_json: bool, fields: Iterable[FieldReport] = ()) -> None:
    """Where the job is on stdout; what is to be known about it on stderr."""
    for notice in created.notices:
        print_note(notice)
    show_refusals(created.refusals)
    folder = str(created.job.folder)
    if not as_json:
        print(folder)
        return
    print_json(
        {
            "folder": folder,
            "name": created.job.name,
            "notices": created.notices,
            "refusals": [one.as_dict() for one in created.refusals],
            "fields": [one.as_dict() for one in fields],
        }
    )


def show_refusals(refusals: tuple[Problem, ...]) -> None:
    """Warn of what a site with the default policy would refuse."""
    from fl_admin.jobs.refusals import refusal_text

    for problem in refusals[:MAX_SHOWN]:
        print(refusal_text(problem), file=sys.stderr)
    if len(refusals) > MAX_SHOWN:
        more = f"and {len(refusals) - MAX_SHOWN} more; 'mmar check' lists them"
        print(f"a site may refuse this: {more}", file=sys.stderr)


# --- validate ------------------------------------------------------------------------------------


def _add_validate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mmar", type=Path, metavar="MMAR", help="the MMAR's folder")
    parser.add_argument(
        "--model",
        nargs="+",
        default=[],
        action="extend",
        metavar="NAME=FILE",
        help="a model to evaluate: its name in the matrix, and a .pt or .safetensors file",
    )
    parser.add_argument(
        "--models-of",
        nargs="+",
        type=Path,
        default=[],
        action="extend",
        metavar="RUN",
        help="the global models and each site's best of a simulation or a downloaded job",
    )
    _add_target_arguments(parser)
    parser.add_argument(
        "--min-sites", type=int, default=2, metavar="N", help="sites for each model (%(default)s)"
    )
    add_set_argument(parser)


def _validate(options: argparse.Namespace) -> int:
    from fl_admin.jobs.given_models import ValidationSettings

    models = _models(options)
    _make(options, ValidationSettings(models=tuple(models), min_sites=options.min_sites), models)
    return 0


def _models(options: argparse.Namespace) -> dict[str, Path]:
    """Name -> file, in the order in which they were given.

    Raises:
        ConfigError: there is none, one is no ``NAME=FILE``, or two have one name.
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
            problems.append(Problem(place, f"{word!r} is no NAME=FILE", "", "usage"))
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


# --- import --------------------------------------------------------------------------------------


def _add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="holds config_fed_server.json and _client.json"
    )
    parser.add_argument(
        "--mmar", type=Path, metavar="MMAR", help="the MMAR to train, if it lies elsewhere"
    )
    _add_target_arguments(parser)
    parser.add_argument(
        "--allow-dropped",
        nargs="+",
        default=[],
        action="extend",
        metavar="FIELD",
        help="go on without this field or class, though the result may be another",
    )
    add_set_argument(parser)


def _import(options: argparse.Namespace) -> int:
    from fl_admin.jobs.clara.reading import import_job, read_old_federation
    from mmar_runtime.config.overrides import parse_overrides

    values = parse_overrides(options.overrides)
    old = read_old_federation(options.folder, mmar=options.mmar, values=values)
    for one in old.fields:
        print(visible_line(str(one)), file=sys.stderr)
    created = import_job(
        old,
        options.out,
        name=options.name,
        with_code=options.with_code,
        overwrite=options.overwrite,
        allow_dropped=options.allow_dropped,
    )
    _tell(created, as_json=options.json, fields=old.fields)
    return 0


# --- show ----------------------------------------------------------------------------------------


def _add_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", type=Path, metavar="JOB", help="the job's folder")


def _show(options: argparse.Namespace) -> int:
    from fl_admin.jobs.job import Job
    from fl_admin.jobs.summary import summary_of

    summary = summary_of(Job.open(options.job))
    print_json(summary.as_dict()) if options.json else print(summary_text(summary))
    return 0


def summary_text(summary: JobSummary) -> str:
    """The summary for a person, a line for each thing."""
    weights = [f"{site} x {weight:g}" for site, weight in summary.aggregation_weights.items()]
    work = (
        f"{summary.steps_aggregation} optimizer steps"
        if summary.steps_aggregation
        else _counted(summary.local_epochs, "epoch")
    )
    lines = {
        "job": summary.name,
        "digest": summary.digest,
        "sites": f"at least {summary.min_sites}",
        "mandatory": ", ".join(summary.mandatory_sites),
        "rounds": f"{summary.rounds}, each {work} at a site" if summary.rounds else "",
        "evaluates": "\n".join(summary.models),
        "weights": ", ".join(weights),
        "encrypted": ", ".join(summary.encrypt_layers),
        "updates": f"large tensors as {summary.transfer}" if summary.transfer else "",
        "network": summary.network,
        "compared by": summary.key_metric,
        "workflows": ", ".join(summary.workflows),
        "classes": "\n".join(summary.classes),
        "files": f"{summary.files}, {summary.bytes / 1e6:.1f} MB",
        "checkpoints": "\n".join(summary.weights),
        "own code": "\n".join(summary.code),
        "default policy": "\n".join(["refused:", *summary.refusals])
        if summary.refusals
        else "accepted",
    }
    width = max(map(len, lines)) + 1
    return "\n".join(
        f"{f'{title}:':<{width}} " + text.replace("\n", "\n" + " " * (width + 1))
        for title, text in lines.items()
        if text
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


_COMMANDS: dict[
    str,
    tuple[
        str,
        Callable[[argparse.ArgumentParser], None],
        Callable[[argparse.Namespace], int],
    ],
] = {
    "create": ("make a job of an MMAR", _add_create_arguments, _create),
    "validate": (
        "make a job that has given models evaluated at every site",
        _add_validate_arguments,
        _validate,
    ),
    "import": ("make a job of an old federation's configs", _add_import_arguments, _import),
    "show": ("show what a job will do", _add_show_arguments, _show),
}
