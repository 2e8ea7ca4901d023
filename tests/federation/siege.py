"""A hostile job of each kind that a review of the checks found: JSON alone, no code of its own.

Each function spoils a copy of a good job. ``marker`` is a file outside of every kit that only
executed code would write; ``secret`` is an image outside of the site's data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TRAIN = Path("app/config/config_train.json")
ENVIRONMENT = Path("app/config/environment.json")
SERVER_CONFIG = Path("app/config/config_fed_server.json")

Spoil = Callable[[Path, Path, Path], None]


@contextmanager
def workflow(job: Path) -> Iterator[dict[str, Any]]:
    """The training of a job, to be changed in place."""
    document = json.loads((job / TRAIN).read_text())
    yield document
    (job / TRAIN).write_text(json.dumps(document))


def reviewed_by_nobody(job: Path, marker: Path, secret: Path) -> None:
    """Kind 1: a flag of the C++ compiler, which runs a program in the compiler's place."""
    flag = f"native -wrapper sh,-c,>{marker}"
    with workflow(job) as document:
        document["train"]["trainer"]["args"] |= {
            "compile": True,
            "compile_kwargs": {"options": {"cpp.march": flag}},
        }


def written_by_default(job: Path, marker: Path, secret: Path) -> None:
    """Kind 2: a log without a folder, where the folder of the run is none."""
    written_at(job, "")
    environment = json.loads((job / ENVIRONMENT).read_text())
    (job / ENVIRONMENT).write_text(json.dumps({**environment, "MMAR_CKPT_DIR": ""}))


def written_at(job: Path, folder: str) -> None:
    """Write a log, named as a kit's start script, to a folder of the job's choice."""
    arguments = {"output_dir": folder, "filename": "sub_start.sh"}
    with workflow(job) as document:
        document["train"]["handlers"].append({"name": "LogfileHandler", "args": arguments})


def path_in_an_expression(job: Path, marker: Path, secret: Path) -> None:
    """Kind 3: a case of the workflow's own, in an expression."""
    case = f"{{'image': '{secret}', 'label': '{secret}'}}"
    with workflow(job) as document:
        dataset = document["train"]["dataset"]
        for key in ("data_list_file_path", "data_file_base_dir", "data_list_key"):
            del dataset[key]
        dataset["args"]["data"] = f"#[{case}, {case}]"


def number_without_bound(job: Path, marker: Path, secret: Path) -> None:
    """Kind 4: a number that no bound is compared with, for it stands behind ``or``."""
    with workflow(job) as document:
        document["train"]["pre_transforms"][4]["args"]["num_samples"] = "#0 or 100000000"


def costly_to_check(job: Path, marker: Path, secret: Path) -> None:
    """Kind 5: a sum of choices; a check that tries them all takes half a minute."""
    with workflow(job) as document:
        document["train"]["pre_transforms"][4]["args"]["num_samples"] = f"#{sum_of_choices(22)}"


def sum_of_choices(count: int) -> str:
    """As many choices of two numbers, added up pair by pair so that nothing is nested deep."""
    if count == 1:
        return "(1 if 1 else 2000)"
    return f"({sum_of_choices(count // 2)} + {sum_of_choices(count - count // 2)})"


def voxel_as_a_metric(job: Path, marker: Path, secret: Path) -> None:
    """Kind 6: the mean of a single voxel."""
    metric = {
        "name": "Average",
        "log_label": "val_voxel",
        "args": {"output_transform": "lambda x: x[0]['image'][0][10][11][12]"},
    }
    with workflow(job) as document:
        document["validate"]["additional_metrics"].append(metric)


def rows_of_the_job(job: Path, marker: Path, secret: Path) -> None:
    """Kind 7: one image six times, for a site that trains with no fewer than two persons."""
    with workflow(job) as document:
        dataset = document["train"]["dataset"]
        for key in ("data_list_file_path", "data_file_base_dir", "data_list_key"):
            del dataset[key]
        case = {"image": "{DATA_ROOT}/image.nii.gz", "label": "{DATA_ROOT}/label.nii.gz"}
        dataset["args"]["data"] = [case] * 6


def fifty_trainings(job: Path, marker: Path, secret: Path) -> None:
    """Kind 8: the course of a run, fifty times over."""
    document = json.loads((job / SERVER_CONFIG).read_text())
    training, *rest = document["workflows"]
    again = [{**training, "id": f"training_{number}"} for number in range(50)]
    document["workflows"] = [*again, *rest]
    (job / SERVER_CONFIG).write_text(json.dumps(document))


def image_of_the_jobs_choice(job: Path, marker: Path, secret: Path) -> None:
    """Kind 8: the container image in which a site's launcher would run the job."""
    meta = json.loads((job / "meta.json").read_text())
    meta["resource_spec"] = {"site-1": {"docker": {"image": "example.org/mine"}}}
    (job / "meta.json").write_text(json.dumps(meta))


KINDS: Mapping[str, tuple[Spoil, str]] = {
    "1": (reviewed_by_nobody, "train.trainer.args.compile"),
    "2": (written_by_default, "MMAR_CKPT_DIR"),
    "3": (path_in_an_expression, "train.dataset.args.data"),
    "4": (number_without_bound, "train.pre_transforms[4].args.num_samples"),
    "5": (costly_to_check, "train.pre_transforms[4].args.num_samples"),
    "6": (voxel_as_a_metric, "validate.additional_metrics[1]"),
    "7": (rows_of_the_job, "train.dataset"),
    "8": (fifty_trainings, "workflows"),
}
"""Kind -> how a job of it is made, and the place that a refusal names."""
