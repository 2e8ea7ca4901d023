"""What a federation is asked for, and the NVFlare configs of a job that ask for it.

The configs are data, in ``templates/``; the settings are filled in at their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_client.jobs.encryption import with_encryption
from fl_client.jobs.files import META
from fl_client.jobs.rounding import with_rounding
from fl_client.privacy.settings import MODULE, SETTINGS, filter_settings
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar, parse_overrides
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.encryption_extra import MISSING_EXTRA, extra_is_installed
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG
from mmar_runtime.exchange.messages import SUBMIT, TRAIN
from mmar_runtime.exchange.rounding_forms import ROUNDINGS, Rounding
from mmar_runtime.exchange.sharing import NOT, form_problems
from mmar_runtime.exchange.weighing import WEIGH_BY, WeighBy, factor_problems
from mmar_runtime.names import JOB_NAME

TEMPLATES = Path(__file__).parent / "templates"
APP = "app"
"""The folder of a job that holds its MMAR."""

SETTINGS_PLACE = Location("job")

BATCH_NORM_BUFFERS = ("*.running_mean", "*.running_var", "*.num_batches_tracked")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """The numbers of a job.

    Attributes:
        rounds: rounds of training.
        min_sites: sites that each round needs.
        local_epochs: epochs that a site trains in a round.
        steps_aggregation: optimizer steps that a site trains in a round; 0 means whole epochs.
        weigh_by: what a site claims as its weight in the mean.
        aggregation_weights: site -> factor of its claim; 1 for a site not named.
        encrypt_layers: names, or names with ``*``, of the tensors that sites send encrypted, of
            which the floating-point ones are meant; None for none.
        transfer: the form in which sites send large tensors, ``float16`` or ``int8``; None for as
            they are.
        exclude_vars: tensors that never leave a site, by name or with ``*``; each site keeps its
            own. All others are shared.
        optional_names: tensors that a contribution may lack.
        result_filters: ``{"path", "args"}`` of filters that contributions pass at the sites.
        aggregator: ``{"path", "args"}`` of an aggregator of the job's own; None for the mean.
        arguments: further arguments of the server's workflow.
    """

    rounds: int = 50
    min_sites: int = 2
    local_epochs: int = 1
    steps_aggregation: int = 0
    weigh_by: WeighBy = "samples"
    aggregation_weights: Mapping[str, float] = field(default_factory=dict)
    encrypt_layers: tuple[str, ...] | None = None
    transfer: Rounding | None = None
    exclude_vars: tuple[str, ...] = ()
    optional_names: tuple[str, ...] = ()
    result_filters: tuple[Mapping[str, Any], ...] = ()
    aggregator: Mapping[str, Any] | None = None
    arguments: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def own_classes(self) -> tuple[str, ...]:
        """The paths of the classes that have to come with the job's own code."""
        named = [*self.result_filters, *([self.aggregator] if self.aggregator else [])]
        return tuple(entry["path"] for entry in named if entry["path"] not in SETTINGS)

    def problems(self) -> Iterator[Problem]:
        """Yield what no federation can do; whether a site allows the rest is the site's to say."""
        counts = {"rounds": 1, "min_sites": 1, "local_epochs": 1, "steps_aggregation": 0}
        for name, least in counts.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                message = f"has to be a whole number from {least}, found {value!r}"
                yield Problem(SETTINGS_PLACE / name, message, "", "job")
        for name in ("exclude_vars", "optional_names"):
            if getattr(self, name):
                yield from form_problems(getattr(self, name), SETTINGS_PLACE / name)
        if "*" in self.exclude_vars:
            message, advice = "'*' is every tensor, so there is nothing to share", "Name fewer."
            yield Problem(SETTINGS_PLACE / "exclude_vars", message, advice, "job")
        for index, entry in enumerate(self.result_filters):
            if entry["path"] in SETTINGS:
                place = SETTINGS_PLACE / "result_filters" / index
                try:
                    filter_settings(entry["path"], entry["args"], place)
                except ConfigError as error:
                    yield from error.problems
        if self.encrypt_layers is not None:
            yield from form_problems(self.encrypt_layers, SETTINGS_PLACE / "encrypt_layers")
            if not extra_is_installed():
                yield Problem(SETTINGS_PLACE / "encrypt_layers", MISSING_EXTRA, "", "encryption")
        yield from self._transfer_problems()
        if self.weigh_by not in WEIGH_BY:
            message = f"has to be one of {', '.join(WEIGH_BY)}, found {self.weigh_by!r}"
            yield Problem(SETTINGS_PLACE / "weigh_by", message, "", "job")
        place = SETTINGS_PLACE / "aggregation_weights"
        yield from factor_problems(self.aggregation_weights, place)

    def _transfer_problems(self) -> Iterator[Problem]:
        place = SETTINGS_PLACE / "transfer"
        if self.transfer is None:
            return
        if self.transfer not in ROUNDINGS:
            message = f"has to be one of {', '.join(ROUNDINGS)}, found {self.transfer!r}"
            yield Problem(place, message, "Leave it out to send float32 as it is.", "transfer")
        if self.encrypt_layers is not None:
            message = "what is encrypted cannot be rounded as well"
            yield Problem(place, message, "Leave out --transfer, or --he.", "transfer")

    def documents(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the job's documents by file name: ``meta.json`` and NVFlare's two configs."""
        meta, server, client = (
            read_json(TEMPLATES / file) for file in (META, SERVER_CONFIG, CLIENT_CONFIG)
        )
        meta.update(name=name, min_clients=self.min_sites)
        server.update(num_rounds=self.rounds, min_clients=self.min_sites)
        client.update(local_epochs=self.local_epochs, steps_aggregation=self.steps_aggregation)
        federation = server["workflows"][0]["args"]
        if self.weigh_by != "samples":
            federation["weigh_by"] = self.weigh_by
        if self.aggregation_weights:
            federation["aggregation_weights"] = dict(self.aggregation_weights)
        if self.exclude_vars:
            names = [f"{NOT}{pattern}" for pattern in self.exclude_vars]
            federation["shared_names"] = names
            client["executors"][0]["executor"]["args"]["shared_names"] = names
        if self.optional_names:
            federation["optional_names"] = list(self.optional_names)
        if self.aggregator is not None:
            federation["aggregator"] = dict(self.aggregator)
        client["task_result_filters"] += self._filter_chains()
        federation.update(self.arguments)
        if self.transfer is not None:  # late, so that it stands behind every other filter
            federation["transfer"] = self.transfer
            client = with_rounding(client, self.transfer)
        if self.encrypt_layers is not None:
            federation["encrypt_layers"] = list(self.encrypt_layers)
            client = with_encryption(client, list(self.encrypt_layers))
        return {META: meta, SERVER_CONFIG: server, CLIENT_CONFIG: client}

    def _filter_chains(self) -> Iterator[dict[str, Any]]:
        """Yield a chain for updates; filters of ours also hold back whole models."""
        filters = [dict(entry) for entry in self.result_filters]
        if filters:
            yield {"tasks": [TRAIN], "filters": filters}
        ours = [entry for entry in filters if entry["path"] in SETTINGS]
        if ours:
            yield {"tasks": [SUBMIT], "filters": ours[:1]}


def named_class(words: Sequence[str]) -> dict[str, Any]:
    """``CLASS KEY=VALUE ...`` of the command line as an entry of a config.

    One of our filters may be named without its module; of ``exclude_vars`` each comma begins
    another name.

    Raises:
        ConfigError: a word is not KEY=VALUE.

    >>> named_class(["ExcludeVars", "exclude_vars=head.*,*.bias"])["args"]
    {'exclude_vars': ['head.*', '*.bias']}
    """
    name, *pairs = words
    unfit = [pair for pair in pairs if "=" not in pair]
    if unfit:
        message = f"{unfit[0]!r} is not KEY=VALUE"
        advice = "The class comes first, then its arguments, such as gamma=0.01."
        raise ConfigError([Problem(Location(name), message, advice, "job")])
    path = f"{MODULE}.{name}" if f"{MODULE}.{name}" in SETTINGS else name
    arguments: dict[str, Any] = dict(parse_overrides(pairs))
    excluded = arguments.get("exclude_vars")
    if path in SETTINGS and isinstance(excluded, str):
        arguments["exclude_vars"] = excluded.split(",")
    return {"path": path, "args": arguments}


def keeps_buffers(entry: Mapping[str, Any]) -> bool:
    """Return whether a filter leaves the buffers of a network at the site."""
    kind = SETTINGS.get(entry["path"])
    return kind is not None and kind.is_private and entry["args"].get("buffers") != "send"


def name_problems(name: str) -> Iterator[Problem]:
    """Yield what is wrong with a job's name."""
    if JOB_NAME.fullmatch(name) is None:
        message = (
            f"{name!r} is not a name of a job: letters, digits, blanks and ._-, at most 100, the "
            "first one a letter or a digit"
        )
        yield Problem(SETTINGS_PLACE / "name", message, "Give one with --name.", "job")
