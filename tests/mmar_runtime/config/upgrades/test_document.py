"""All rules over whole documents: what holds for every document, and that writing changes nothing.

The documents of the properties are made of whatever a rule looks for, in places where it looks, and
of values that have no business there.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmar_runtime.cli.upgrade import document_upgrades, write_upgrades
from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.config.nodes import ComponentSpec, plain, walk
from mmar_runtime.config.parser import MAX_DEPTH
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.config.upgrades import Notice, upgrade_document
from mmar_runtime.config.upgrades.document import RULES
from mmar_runtime.mmar import Mmar

# --- Any document --------------------------------------------------------------------------------

WORDS = (
    *("train", "validate", "model", "loss", "optimizer", "lr_scheduler", "dataset", "dataloader"),
    *("inferer", "pre_transforms", "post_transforms", "handlers", "metrics", "key_metric"),
    *("additional_metrics", "iteration", "trainer", "evaluator", "CLARA_TRAIN_VERSION"),
    *("name", "path", "ref", "args", "disabled", "is_key_metric", "transforms", "keys"),
    *("output_transform", "batch_transform", "load_dict", "save_dict", "output_keys"),
    *("dimensions", "n_classes", "to_onehot", "threshold_values", "logit_thresh", "threshold"),
    *("save_final", "save_key_metric", "batched", "image_only", "channel_dim"),
)
NAMES = (
    *("SupervisedTrainer", "SupervisedEvaluator", "UNet", "TorchVisionFullyConvModel", "Adam"),
    *("LoadImaged", "AddChanneld", "AsChannelFirstD", "Spacingd", "ToTensorDict", "AsDiscreted"),
    *("AddChanneld#a", "Activationsd", "EnsureChannelFirstd", "Compose", "CheckpointSaver"),
    *("CheckpointLoader", "ValidationHandler", "TransformInverter", "SegmentationSaver", "Dataset"),
)
TEXTS = (
    *("image", "label", "pred", "@model", "#@model.parameters()", "{epochs}", "training", "4.0"),
    *("lambda x: x['loss']", "lambda x: (x['pred'], x['label'])", "lambda x: x", "lambda"),
    *("monai.apps.deepgrow.transforms.AddGuidanceSignald", "own.Thing", "", "a"),
)

texts = st.sampled_from((*TEXTS, *NAMES)) | st.text(max_size=3)
scalars = st.none() | st.booleans() | st.integers(0, 4) | st.just(0.5) | texts
keys = st.sampled_from(WORDS) | st.text(max_size=2)


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)


anything = st.recursive(scalars, grown, max_leaves=12)
arguments = st.dictionaries(keys, scalars | st.lists(scalars, max_size=3), max_size=4)
components = st.fixed_dictionaries(
    {"name": st.sampled_from(NAMES)},
    optional={
        "args": arguments | anything,
        "disabled": st.booleans() | st.just("{off}"),
        "is_key_metric": st.booleans(),
        "path": texts,
    },
)
flags = st.booleans() | st.lists(st.booleans() | st.none(), max_size=3)
counts = st.integers(1, 4) | st.lists(st.integers(1, 4), max_size=3) | texts


def arguments_of(name: str, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    args = st.fixed_dictionaries({}, optional=optional)
    return st.fixed_dictionaries({"name": st.just(name), "args": args})


discrete = arguments_of(
    "AsDiscreted",
    keys=st.just(["pred", "label"]),
    to_onehot=flags | counts,
    n_classes=counts,
    num_classes=counts,
    threshold_values=flags,
    logit_thresh=counts,
    threshold=counts,
)
transforms = st.sampled_from(
    ("Spacingd", "AddChanneld", "EnsureChannelFirstd", "LoadImaged", "Activationsd", "Invertd")
).flatmap(
    lambda name: arguments_of(
        name, keys=st.sampled_from(["image", ["image", "label"], "label", "pred"])
    )
)
handlers = (
    arguments_of("CheckpointSaver", save_dict=st.just(["model"]), save_final=scalars)
    | arguments_of("TransformInverter", output_keys=texts, batch_keys=texts, device=texts)
    | arguments_of("SegmentationSaver", output_transform=texts, resample=st.booleans())
)
refs = st.fixed_dictionaries({"ref": st.sampled_from((*NAMES, "a")) | scalars})
items = components | refs | components | anything
entries = st.dictionaries(
    st.sampled_from(WORDS[:19]), components | st.lists(items, max_size=5) | anything, max_size=8
)
metrics = st.lists(arguments_of("MeanDice", output_transform=texts), max_size=2)
workflows = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just({"name": "UNet", "args": {"dimensions": 3}}),
        "optimizer": st.just({"name": "Adam"}),
        "pre_transforms": st.lists(transforms | refs, max_size=5),
        "post_transforms": st.lists(transforms | discrete | refs, max_size=4),
        "handlers": st.lists(handlers, max_size=3),
        "metrics": metrics,
        "key_metric": st.just({"name": "MeanDice"}),
        "dataset": st.just({"name": "Dataset"}),
        "dataloader": st.just({"name": "DataLoader"}),
        "trainer": arguments_of("SupervisedTrainer", max_epochs=texts),
        "evaluator": arguments_of("SupervisedEvaluator", device=texts),
    },
)
documents = (
    workflows
    | st.fixed_dictionaries({"train": workflows, "validate": workflows})
    | st.fixed_dictionaries(
        {"train": entries | anything}, optional={"validate": entries | anything}
    )
    | entries
    | st.dictionaries(keys, anything, max_size=4)
)


@given(documents)
def test_any_document_is_upgraded_once_and_the_one_given_stays(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)

    once = upgrade_document(document, "a.json")

    assert document == before
    assert once.notices or once.document == document
    twice = upgrade_document(once.document, "a.json")
    assert (twice.document, twice.notices) == (once.document, ())


@given(documents)
def test_an_upgraded_document_is_json_again(document: dict[str, Any]) -> None:
    found = upgrade_document(document, "a.json").document

    assert json.loads(json.dumps(found)) == found


@given(documents)
def test_a_notice_names_places_of_the_document_itself(document: dict[str, Any]) -> None:
    """Up to the arguments: what a rule makes of them may be what the next one speaks of."""
    for notice in upgrade_document(document, "a.json").notices:
        for place in notice.places:
            value: Any = document
            for step in place.path:
                assert isinstance(value, list) or step in value
                value = value[step]


def nested(depth: int, make: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = make(value)
    return value


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
def test_a_document_that_the_parser_refuses_for_its_depth_is_left_to_it(depth: int) -> None:
    lists = nested(depth, lambda value: [value])
    objects = nested(depth, lambda value: {"args": value})
    for value in (lists, objects):
        document = {"train": {"pre_transforms": [{"name": "ToTensord"}], "loss": value}}

        found = upgrade_document(document, "a.json")

        assert found.document is document
        assert found.notices == ()


# --- A document without old constructs -----------------------------------------------------------


def test_todays_document_is_returned_as_it_is(tiny_mmar: Path) -> None:
    """But for the names of files and the metadata, which no MMAR of Clara's time spells out."""
    for name in ("config_train.json", "config_validation.json", "config_cross_validation.json"):
        document = json.loads((tiny_mmar / "config" / name).read_text(encoding="utf-8"))
        [*_] = notices = upgrade_document(document, name).notices
        assert {notice.rule for notice in notices} <= {"image-meta", "best-name", "final-name"}
        spelled_out = dict(upgrade_document(document, name).document)

        again = upgrade_document(spelled_out, name)

        assert again.document == spelled_out
        assert list(again.document) == list(spelled_out)
        assert again.notices == ()


# --- In memory and on disk -----------------------------------------------------------------------


def old_train_document(tiny: dict[str, Any]) -> dict[str, Any]:
    """The tiny MMAR's training as 4.0 had it: nothing is connected, and MONAI is of 2021."""
    document = copy.deepcopy(tiny)
    for name in ("train", "validate"):
        section = document[name]
        for engine, epochs in (("trainer", {"max_epochs": "{epochs}"}), ("evaluator", {})):
            if engine in section:
                section[engine]["args"] = epochs
        del section["dataset"]["args"]["transform"], section["dataloader"]["args"]["dataset"]
    train, validate = document["train"], document["validate"]
    del train["optimizer"]["args"]["params"], train["lr_scheduler"]["args"]["optimizer"]
    train["model"]["args"]["dimensions"] = train["model"]["args"].pop("spatial_dims")
    train["pre_transforms"][1]["name"] = "AddChanneld"
    train["pre_transforms"][-1]["name"] = "ToTensord"
    validate["pre_transforms"][1] = {"ref": "AddChanneld"}
    validate["pre_transforms"][-1] = {"ref": "ToTensord"}
    discrete = train["post_transforms"][1]["args"]
    discrete |= {"to_onehot": True, "n_classes": 2}
    for handler in (*train["handlers"], *validate["handlers"]):
        args = handler["args"]
        for key in ("load_dict", "save_dict"):
            if key in args:
                args[key] = list(args[key])
        for key in ("lr_scheduler", "validator"):
            args.pop(key, None)
        if args.get("tag_name"):
            args["output_transform"] = "lambda x: x['loss']"
    key, others = validate.pop("key_metric"), validate.pop("additional_metrics")
    validate["metrics"] = [{**key, "is_key_metric": True}, *others]
    for metric in validate["metrics"]:
        metric["args"]["output_transform"] = "lambda x: (x['pred'], x['label'])"
    return document


def graph(config: WorkflowConfig) -> list[Any]:
    """Class, name, arguments and place of every component that would be built."""
    return [
        (str(node.location), node.title, node.path, node.disabled, node.rank, plain(node.args))
        for section in config.scopes.values()
        for entry in section.entries.values()
        for node in walk(entry)
        if isinstance(node, ComponentSpec)
    ]


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    document = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(document), encoding="utf-8")
    return document


def test_upgraded_in_memory_or_on_disk_it_is_the_same_config(tiny_mmar: Path) -> None:
    rewrite(tiny_mmar / "config" / "config_train.json", old_train_document)
    mmar = Mmar.open(tiny_mmar)
    in_memory = load_train_config(mmar), load_evaluation_config(mmar)

    write_upgrades(document_upgrades(mmar))
    on_disk = load_train_config(mmar), load_evaluation_config(mmar)

    for before, after in zip(in_memory, on_disk, strict=True):
        assert before.notices
        assert after.notices == ()
        assert after.as_json() == before.as_json()
        assert graph(after) == graph(before)
        assert after.variables == before.variables


def test_the_old_dialect_becomes_what_the_new_one_says(tiny_mmar: Path) -> None:
    """The tiny MMAR without its wiring is wired as it was."""
    wired = load_train_config(Mmar.open(tiny_mmar)).as_json()
    rewrite(tiny_mmar / "config" / "config_train.json", old_train_document)

    found = load_train_config(Mmar.open(tiny_mmar)).as_json()

    assert found.pop("CLARA_TRAIN_VERSION") == "4.1.0"
    for section, engine in (("train", "trainer"), ("validate", "evaluator")):
        assert found[section][engine]["args"].pop("device") == "cuda"
    for transforms in (found["train"]["pre_transforms"], found["validate"]["pre_transforms"]):
        assert transforms[1]["args"].pop("channel_dim") == "no_channel"
    assert found == wired


def test_notices_of_a_whole_document(tiny_mmar: Path) -> None:
    rewrite(tiny_mmar / "config" / "config_train.json", old_train_document)

    notices: tuple[Notice, ...] = load_train_config(Mmar.open(tiny_mmar)).notices

    assert [
        f"{notice.rule}: {', '.join(place.place for place in notice.places)}" for notice in notices
    ] == [
        "to-tensor: train.pre_transforms[4]",
        "image-meta: train.pre_transforms[0]",
        "add-channel: train.pre_transforms[1]",
        "one-hot: train.post_transforms[1]",
        "spatial-dims: train.model",
        "best-name: validate.handlers[1]",
        "final-name: train.handlers[3]",
        "output-transform: train.handlers[4].args.output_transform, "
        "validate.metrics[0].args.output_transform, validate.metrics[1].args.output_transform",
        "load-dict: train.handlers[0].args.load_dict",
        "save-dict: train.handlers[3].args.save_dict, validate.handlers[1].args.save_dict",
        "metrics: validate.metrics",
        "wiring: train, validate",
    ]


# --- In the documentation ------------------------------------------------------------------------


def test_the_documentation_lists_every_rule_in_order() -> None:
    pages = Path(__file__).resolve().parents[4] / "docs" / "look-up"
    text = (pages / "mmar.md").read_text(encoding="utf-8")
    translations = text.partition("\n## Translations\n")[2].partition("\n## ")[0]

    listed = [line.split("`")[1] for line in translations.splitlines() if line.startswith("- `")]

    assert listed == list(dict.fromkeys(rule.name for rule in RULES))
