"""The example job: complete, consistent with itself, and it shows every construct."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_admin.demo_data import write_demo_data
from fl_admin.jobs.job import Job
from fl_admin.simulation.plan import SimulationRequest, plan_simulation
from fl_client.jobs.classes import ALLOWED_CLASSES
from mmar_runtime.config.data_list import data_check
from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.exchange.job_documents import SERVER_CONFIG
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.policy.volume_check import volume_check

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = REPOSITORY / "jobs" / "spleen_ct_segmentation"
MMAR = Mmar(JOB / "app")
REFERENCE = REPOSITORY.parent / "shared" / "seeds" / "002_c8cd16a695eae29e.txt"

CHECKS = (component_check(allow_code=False), data_check, volume_check)


def document(name: str) -> Any:
    return json.loads((MMAR.root / "config" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(folder, sites=3)
    return folder


@pytest.fixture
def values(demo_data: Path) -> dict[str, Scalar]:
    """A site's own values."""
    root = demo_data / "site-2"
    return {"DATA_ROOT": str(root), "DATASET_JSON": str(root / "dataset.json")}


# --- it loads


def test_training_loads_without_a_problem(values: dict[str, Scalar]) -> None:
    config = load_train_config(MMAR, site=values, checks=CHECKS)

    assert config.settings.random_seed == 0
    assert config.settings.input_size == (2, 1, 32, 32, 32)
    assert config.validate is not None


@pytest.mark.parametrize("name", ["config_validation", "config_cross_validation"])
def test_validation_loads_without_a_problem(name: str, values: dict[str, Scalar]) -> None:
    config = load_evaluation_config(MMAR, file=f"{name}.json", site=values, checks=CHECKS)

    assert config.section.specs("key_metric")[0].log_label == "val_mean_dice"


def test_inference_loads_without_a_problem_and_needs_no_labels(values: dict[str, Scalar]) -> None:
    config = load_evaluation_config(MMAR, file="config_inference.json", site=values, checks=CHECKS)

    (dataset,) = config.section.specs("dataset")
    assert dataset.data_list is not None
    assert dataset.data_list.key == "test"


def test_it_can_be_simulated(demo_data: Path) -> None:
    plan = plan_simulation(SimulationRequest(job=Job.open(JOB), sites=3, data=demo_data))

    assert (plan.rounds, len(plan.sites)) == (3, 3)


# --- it says everything once


def test_cross_validation_is_validation_with_the_model_of_the_training() -> None:
    """As Clara's documentation has it; a change to one has to be made to the other."""
    model = document("config_train")["train"]["model"]

    assert document("config_cross_validation") == {**document("config_validation"), "model": model}


def test_the_network_is_not_written_again_for_the_server() -> None:
    """The first weights come from config_train.json."""
    server = json.dumps(document("config_fed_server"))

    assert "UNet" not in server
    assert "monai" not in server


def test_its_classes_are_among_those_that_a_site_allows() -> None:
    assert set(Job.open(JOB).class_paths()) <= set(ALLOWED_CLASSES)


def test_it_brings_no_code() -> None:
    """NVFlare takes a folder ``custom`` for code of the job, and sites refuse that."""
    assert not MMAR.custom.exists()
    assert list(JOB.rglob("*.py")) == []


def test_the_same_transforms_are_used_in_training_and_in_validation() -> None:
    """Two windows of intensities would make numbers that cannot be compared."""

    def window(transforms: list[Any]) -> Any:
        found = [one for one in transforms if one.get("name") == "ScaleIntensityRanged"]
        return found[0]["args"]

    train = document("config_train")["train"]["pre_transforms"]
    for name in ("config_validation", "config_cross_validation", "config_inference"):
        assert window(document(name)["pre_transforms"]) == window(train)


def test_rounds_and_sites_are_written_once_in_the_servers_config() -> None:
    server = document("config_fed_server")
    [workflow] = server["workflows"]

    assert workflow["args"]["num_rounds"] == "{num_rounds}"
    assert workflow["args"]["min_sites"] == "{min_clients}"
    assert server["min_clients"] == json.loads((JOB / "meta.json").read_text())["min_clients"]


def test_every_task_of_the_server_is_known_to_the_sites() -> None:
    client = document("config_fed_client")

    assert set(client["executors"][0]["tasks"]) == {
        "train", "score_model", "submit_model", "validate",
    }  # fmt: skip
    assert SERVER_CONFIG == "config_fed_server.json"


# --- it shows every construct


def walk(value: Any) -> Iterator[Any]:
    yield value
    for child in value.values() if isinstance(value, dict) else value if _is_list(value) else ():
        yield from walk(child)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def constructs(documents: list[Any]) -> set[str]:
    """What of the grammar of Clara's configurations occurs in these documents."""
    found = set()
    aliases = {
        node["name"].partition("#")[2]
        for one in documents
        for node in walk(one)
        if isinstance(node, dict) and "#" in str(node.get("name"))
    }
    for one in documents:
        found |= {f"top-level {key}" for key in ("determinism", "network_summary") if key in one}
        found |= {"variable" for value in one.values() if isinstance(value, int | float | bool)}
        for node in walk(one):
            if isinstance(node, dict):
                found |= set(_in_object(node, aliases))
            elif isinstance(node, str):
                found |= set(_in_text(node))
    return found


def _in_object(node: dict[str, Any], aliases: set[str]) -> Iterator[str]:
    keys = ("rank", "log_label", "ts_path", "ckpt_path", "disabled", "data_list_file_path")
    yield from (key for key in (*keys, "data_file_base_dir", "data_list_key") if key in node)
    if "#" in str(node.get("name")):
        yield "alias"
    if "ref" in node:
        yield "ref by alias" if node["ref"] in aliases else "ref by name"
    if re.fullmatch(r"\{\w+\}", str(node.get("disabled"))):
        yield "disabled by a variable"


def _in_text(text: str) -> Iterator[str]:
    if text.startswith("#"):
        yield "expression"
        if "@" in text:
            yield "expression with a reference"
    elif text.startswith("lambda "):
        yield "bare lambda"
    elif text.startswith("@"):
        yield "@conf" if text == "@conf" else "reference"
    elif re.fullmatch(r"\{\w+\}", text):
        yield "{VAR}"


NAMES = ("config_train", "config_validation", "config_cross_validation", "config_inference")

CONSTRUCTS = {
    "@conf", "alias", "bare lambda", "ckpt_path", "data_file_base_dir", "data_list_file_path",
    "data_list_key", "disabled", "disabled by a variable", "expression",
    "expression with a reference", "log_label", "rank", "ref by alias", "ref by name", "reference",
    "top-level determinism", "top-level network_summary", "ts_path", "variable", "{VAR}",
}  # fmt: skip


@pytest.mark.parametrize("construct", sorted(CONSTRUCTS))
def test_every_construct_of_claras_configurations_occurs(construct: str) -> None:
    assert construct in constructs([document(name) for name in NAMES])


def reference_documents() -> list[Any]:
    """The JSON documents and snippets in Clara's own description."""
    text = REFERENCE.read_text(encoding="utf-8")
    decoder, found = json.JSONDecoder(), []
    for start in re.finditer(r'\{ "(?:epochs|multi_gpu|name)"', text):
        try:
            found.append(decoder.raw_decode(text, start.start())[0])
        except json.JSONDecodeError:
            continue
    return found


@pytest.mark.shared
def test_that_list_is_complete() -> None:
    documents = reference_documents()

    assert sum("train" in one for one in documents) == 1
    assert sum("evaluator" in one for one in documents) == 1
    assert constructs(documents) <= CONSTRUCTS


def component_names(documents: list[Any]) -> set[str]:
    return {
        node["name"].partition("#")[0]
        for one in documents
        for node in walk(one)
        if isinstance(node, dict) and isinstance(node.get("name"), str)
    }


@pytest.mark.shared
def test_so_do_all_components_of_claras_spleen_example() -> None:
    """But for the loss: Dice with cross-entropy learns the small made-up data faster."""
    missing = component_names(reference_documents()) - component_names(
        [document(name) for name in NAMES]
    )

    assert missing == {"DiceLoss"}
