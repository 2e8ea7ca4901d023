"""What a job will do, in a few lines: for whoever is about to send it, or to take part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fl_admin.jobs.job import Job
from fl_client.job_check import check_job
from fl_client.jobs.files import META
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.config.sources import read_json
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES, tree_files, tree_hash
from mmar_runtime.policy.mmar_check import SITE_VARIABLES


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """A job as its documents say.

    Attributes:
        name: the job's name.
        digest: SHA-256 of the app, as sites and servers write it into their audit logs.
        min_sites: sites that each round needs.
        mandatory_sites: sites without which the job does not start.
        rounds: rounds of training; 0 where the job only has models evaluated.
        models: names of those models.
        local_epochs: epochs that a site trains in a round.
        steps_aggregation: optimizer steps in place of the epochs; 0 for none.
        weigh_by: what a site claims as its weight in the mean; empty where an aggregator of the
            job's own decides.
        aggregation_weights: site -> factor of its claim.
        encrypt_layers: names of the tensors that sites send encrypted; empty for none.
        transfer: the form in which sites send large tensors; empty for as they are.
        workflows: what the server does, in this order.
        network: the network's class.
        key_metric: the metric by which models are compared.
        classes: what a site has to allow the NVFlare configs.
        files: how many, of the whole job.
        bytes: of all of them.
        weights: files of weights that travel along.
        code: files of code that travel along.
        refusals: why a site with the default policy would refuse it; empty if it would not.
    """

    name: str
    digest: str
    min_sites: int
    mandatory_sites: tuple[str, ...]
    rounds: int
    models: tuple[str, ...]
    local_epochs: int
    steps_aggregation: int
    weigh_by: str
    aggregation_weights: Mapping[str, float]
    encrypt_layers: tuple[str, ...]
    transfer: str
    workflows: tuple[str, ...]
    network: str
    key_metric: str
    classes: tuple[str, ...]
    files: int
    bytes: int
    weights: tuple[str, ...]
    code: tuple[str, ...]
    refusals: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json``."""
        return asdict(self)


def summary_of(job: Job) -> JobSummary:
    """Return what a job's documents say.

    Raises:
        ConfigError: a document has a fault, or a file is a link or a device.
    """
    meta = read_json(job.folder / META)
    documents = job.documents
    federation, client = documents.federation, documents.client
    config = load_train_config(job.mmar, site=SITE_VARIABLES)
    metrics = config.validate.specs("key_metric") if config.validate else ()
    networks = config.train.specs("model")
    files = tree_files(job.folder)
    return JobSummary(
        name=job.name,
        digest=tree_hash(job.mmar.root, leave_out=SIGNATURE_FILES),
        min_sites=meta.get("min_clients", 1),
        mandatory_sites=tuple(meta.get("mandatory_clients", [])),
        rounds=job.rounds,
        models=tuple(federation.get("models") or ()),
        local_epochs=client.get("local_epochs", 1),
        steps_aggregation=client.get("steps_aggregation", 0),
        weigh_by="" if federation.get("aggregator") else documents.weigh_by,
        aggregation_weights=federation.get("aggregation_weights") or {},
        encrypt_layers=tuple(federation.get("encrypt_layers") or ()),
        transfer=federation.get("transfer") or "",
        workflows=tuple(str(entry.get("id")) for entry in documents.server.get("workflows", [])),
        network=networks[0].title if networks else "",
        key_metric=(metrics[0].log_label or "") if metrics else "",
        classes=job.class_paths(),
        files=len(files),
        bytes=sum(path.stat().st_size for path in files),
        weights=_below(job.mmar.models, files),
        code=_below(job.mmar.custom, files),
        refusals=tuple(
            f"{problem.rule}: {problem.location}: {problem.message}"
            for problem in check_job(job.folder).problems
        ),
    )


def _below(folder: Path, files: list[Path]) -> tuple[str, ...]:
    inside = (path for path in files if path.is_relative_to(folder) and path.name != ".gitkeep")
    return tuple(path.relative_to(folder.parent).as_posix() for path in inside)
