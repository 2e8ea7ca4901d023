"""The settings of a job as options of commands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from fl_admin.cli.commands import add_words
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.rounding_forms import ROUNDINGS
from mmar_runtime.exchange.weighing import WEIGH_BY

if TYPE_CHECKING:
    from fl_admin.jobs.settings import JobSettings


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the numbers of a job, without the rounds."""
    parser.add_argument(
        "--local-epochs", type=int, metavar="N", help="epochs that a site trains in a round (1)"
    )
    parser.add_argument(
        "--weigh-by", choices=WEIGH_BY, help="what gives a site its weight in the mean (samples)"
    )
    add_words(
        parser, "--aggregation-weights", "SITE=WEIGHT", "factor of a site's weight in the mean (1)"
    )
    parser.add_argument(
        "--he", action="store_true", help="sites send their updates homomorphically encrypted"
    )
    add_words(
        parser,
        "--encrypt-layers",
        "NAME",
        "only these tensors are encrypted, by name or with *; implies --he",
    )
    parser.add_argument(
        "--transfer",
        choices=ROUNDINGS,
        help="sites round the large tensors of their updates: half the bytes, or a quarter (no)",
    )


def add_sharing_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what sites share, the filters of updates, and the aggregator."""
    add_words(
        parser,
        "--exclude-vars",
        "NAME",
        "tensors that each site keeps to itself, with * for any characters",
    )
    add_words(
        parser,
        "--optional-names",
        "NAME",
        "tensors that a site may leave out, with * for any characters",
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
    """Return the settings that the options ask for.

    Raises:
        ConfigError: a weight is not a number, or names no site.
    """
    from fl_admin.jobs.settings import JobSettings
    from fl_client.jobs.encryption import ALL

    names = ("rounds", "local_epochs", "weigh_by")
    given = {name: getattr(options, name) for name in names}
    terms = {name: value for name, value in given.items() if value is not None}
    weights = _weights(options.aggregation_weights)
    sharing = _sharing(options) if hasattr(options, "result_filter") else {}
    layers = tuple(options.encrypt_layers) or (ALL if options.he else None)
    return JobSettings(
        min_sites=min_sites,
        aggregation_weights=weights,
        encrypt_layers=layers,
        transfer=options.transfer,
        **terms,
        **sharing,
    )


def _sharing(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the options of ``add_sharing_arguments`` ask for.

    Buffers that a privacy filter keeps at the sites are allowed to be missing.
    """
    from fl_admin.jobs.settings import BATCH_NORM_BUFFERS, keeps_buffers, named_class

    filters = tuple(named_class(words) for words in options.result_filter)
    optional = list(options.optional_names)
    for entry in filters:
        optional += entry["args"].get("exclude_vars", [])
        optional += BATCH_NORM_BUFFERS if keeps_buffers(entry) else []
    return {
        "exclude_vars": tuple(options.exclude_vars),
        "optional_names": tuple(dict.fromkeys(optional)),
        "result_filters": filters,
        "aggregator": named_class(options.aggregator) if options.aggregator else None,
    }


def _weights(words: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    problems = []
    place = Location("--aggregation-weights")
    for word in words:
        site, _, weight = word.rpartition("=")
        if site in weights:
            message = f"{site!r} is named twice"
            problems.append(Problem(place, message, "Name each site once.", "job"))
        try:
            weights[site] = float("" if "=" in site else weight)
        except ValueError:
            message = f"{word!r} is not a weight of a site"
            advice = "Write SITE=WEIGHT, such as site-2=1.5, with blanks between them."
            problems.append(Problem(place, message, advice, "job"))
    if problems:
        raise ConfigError(problems)
    return weights
