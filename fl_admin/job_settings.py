"""What a federation is asked for, and the NVFlare configs of a job that ask for it.

The configs are data, in ``templates/``; the settings are filled in at their places.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_client.encryption import encrypting
from fl_client.job_check import CLIENT_CONFIG, JOB_NAME, META, SERVER_CONFIG, SITE_NAME
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import Problem
from mmar_runtime.he_extra import MISSING_EXTRA, extra_is_installed

TEMPLATES = Path(__file__).parent / "templates"
APP = "app"
"""The folder of a job that holds its MMAR."""

SETTINGS = Location("job")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """The numbers of a job.

    Attributes:
        rounds: rounds of training.
        min_sites: sites that each round needs.
        local_epochs: epochs that a site trains in a round.
        steps_aggregation: optimizer steps that a site trains in a round; 0 means whole epochs.
        aggregation_weights: site -> factor of its steps in the mean; 1 for a site not named.
        encrypt_layers: names, or names with ``*``, of the tensors that sites send encrypted, of
            which the floating-point ones are meant; None for none.
        arguments: further arguments: id in ``config_fed_server.json`` -> argument -> value.
    """

    rounds: int = 50
    min_sites: int = 2
    local_epochs: int = 1
    steps_aggregation: int = 0
    aggregation_weights: Mapping[str, float] = field(default_factory=dict)
    encrypt_layers: tuple[str, ...] | None = None
    arguments: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)

    def problems(self) -> Iterator[Problem]:
        """What no federation can do; whether a site allows the rest is the site's to say."""
        counts = {"rounds": 1, "min_sites": 1, "local_epochs": 1, "steps_aggregation": 0}
        for name, least in counts.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                message = f"has to be a whole number from {least}, found {value!r}"
                yield Problem(SETTINGS / name, message, "", "job")
        if self.encrypt_layers is not None and not extra_is_installed():
            yield Problem(SETTINGS / "encrypt_layers", MISSING_EXTRA, "", "encryption")
        if not isinstance(self.aggregation_weights, Mapping):
            yield Problem(
                SETTINGS / "aggregation_weights", "has to map sites to weights", "", "job"
            )
            return
        for site, weight in self.aggregation_weights.items():
            place = SETTINGS / "aggregation_weights" / site
            if SITE_NAME.fullmatch(site) is None or site == "@ALL":
                yield Problem(place, f"{site!r} is no name of a site", "", "job")
            if not _is_number(weight) or not math.isfinite(weight) or weight <= 0:
                message = f"has to be a positive number, found {weight!r}"
                yield Problem(place, message, "1 is the weight of a site not named.", "job")

    def documents(self, name: str) -> dict[str, dict[str, Any]]:
        """The job's documents by their file names: ``meta.json`` and NVFlare's two configs."""
        meta, server, client = (
            read_json(TEMPLATES / file) for file in (META, SERVER_CONFIG, CLIENT_CONFIG)
        )
        meta.update(name=name, min_clients=self.min_sites)
        server.update(num_rounds=self.rounds, min_clients=self.min_sites)
        client.update(local_epochs=self.local_epochs, steps_aggregation=self.steps_aggregation)
        parts = {one["id"]: one["args"] for one in (*server["components"], *server["workflows"])}
        if self.aggregation_weights:
            parts["aggregator"]["aggregation_weights"] = dict(self.aggregation_weights)
        for part, arguments in self.arguments.items():
            parts[part].update(arguments)
        if self.encrypt_layers is not None:  # last, so that it stands behind every other filter
            parts["persistor"]["encrypt_layers"] = list(self.encrypt_layers)
            client = encrypting(client, list(self.encrypt_layers))
        return {META: meta, SERVER_CONFIG: server, CLIENT_CONFIG: client}


def name_problems(name: str) -> Iterator[Problem]:
    """What is wrong with a job's name."""
    if JOB_NAME.fullmatch(name) is None:
        message = (
            f"{name!r} is no name of a job: letters, digits, blanks and ._-, at most 100, the "
            "first one a letter or a digit"
        )
        yield Problem(SETTINGS / "name", message, "Give one with --name.", "job")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
