"""Every component against the table: is there such a class here, with these arguments?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec
from mmar_runtime.config.parser import NodeParser
from mmar_runtime.policy.component_check import component_check, table_entry

Check = Callable[..., list[str]]

UNET = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8],
    "strides": [2],
}


@pytest.fixture
def check(train_faults: Check) -> Check:
    """The faults of a train section's entries, without document and section before each."""

    def faults(*, allow_code: bool = False, allow_stored: bool = True, **entries: Any) -> list[str]:
        document = {"train": {"model": {"name": "UNet", "args": UNET}, **entries}}
        if entries.keys() - {"model"} and "trainer" not in entries:
            document["train"]["trainer"] = {"name": "SupervisedTrainer", "args": engine()}
        checks = [component_check(allow_code=allow_code, allow_stored=allow_stored)]
        found = train_faults(document, checks=checks)
        return [fault.removeprefix("config_train.json: train.") for fault in found]

    return faults


def engine(**more: Any) -> dict[str, Any]:
    """All that a SupervisedTrainer needs; what it is does not matter here."""
    needed = ("max_epochs", "train_data_loader", "network", "optimizer", "loss_function")
    return {**dict.fromkeys(needed), **more}


# --- Names ---------------------------------------------------------------------------------------


def test_components_of_the_table_pass(check: Check) -> None:
    assert (
        check(
            loss={"name": "DiceLoss", "args": {"sigmoid": True}},
            optimizer={"name": "Adam", "args": {"params": "#@model.parameters()", "lr": 0.1}},
            pre_transforms=[{"name": "RandFlipD", "args": {"keys": "image", "prob": 0.5}}],
            inferer={"path": "monai.inferers.SimpleInferer"},
        )
        == []
    )


def test_an_unknown_name_gets_the_nearest_of_its_kind(check: Check) -> None:
    assert check(loss={"name": "DiceLos"}, pre_transforms=[{"name": "LoadImagde"}]) == [
        "loss.name: unknown loss 'DiceLos'\n    Did you mean 'DiceLoss' or 'DiceCELoss'?",
        "pre_transforms[0].name: unknown transform 'LoadImagde'\n"
        "    Did you mean 'LoadImaged' or 'LoadImageDict'?",
    ]


def test_a_name_like_no_other_may_be_own_code(check: Check) -> None:
    assert check(loss={"name": "MySecretRecipe"}, mine={"name": "MySecretRecipe"}) == [
        "loss.name: unknown loss 'MySecretRecipe'\n"
        '    Code of your own is named by "path", module.Class.',
        "mine.name: unknown component 'MySecretRecipe'\n"
        '    Code of your own is named by "path", module.Class.',
    ]


@pytest.mark.parametrize("allow_code", [True, False])
def test_a_component_in_the_wrong_place(check: Check, allow_code: bool) -> None:
    entries = {
        "loss": {"name": "UNet", "args": UNET},
        "optimizer": {"path": "monai.losses.DiceLoss"},
        "handlers": [{"name": "MeanDice"}],
        "iteration": {"name": "SimpleInferer"},
    }

    assert check(allow_code=allow_code, **entries) == [
        "loss.name: 'UNet' is a network; this entry takes a loss",
        "optimizer.path: 'DiceLoss' is a loss; this entry takes an optimizer",
        "handlers[0].name: 'MeanDice' is a metric; this entry takes a handler",
        "iteration.name: 'SimpleInferer' is an inferer; this entry takes an iteration",
    ]


def test_a_kind_that_the_table_does_not_have(check: Check) -> None:
    assert check(iteration={"name": "Iteration"}) == [
        "iteration.name: unknown iteration 'Iteration'\n"
        '    Code of your own is named by "path", module.Class.'
    ]


def test_an_entry_of_ones_own_may_hold_any_kind(check: Check) -> None:
    assert (
        check(second_loss={"name": "DiceLoss"}, flip={"name": "Flipd", "args": {"keys": "a"}}) == []
    )


def test_components_inside_a_compose_are_transforms(check: Check) -> None:
    inner = [{"name": "Flipd", "args": {"kyes": "image"}}, {"name": "DiceLoss"}]

    assert check(pre_transforms=[{"name": "Compose", "args": {"transforms": inner}}]) == [
        "pre_transforms[0].args.transforms[0].args.kyes: Flipd: unknown argument 'kyes'\n"
        "    Did you mean 'keys'?",
        "pre_transforms[0].args.transforms[0].args: Flipd: the required argument 'keys' is missing",
        "pre_transforms[0].args.transforms[1].name: 'DiceLoss' is a loss; "
        "this entry takes a transform",
    ]


def test_disabled_components_are_not_looked_at(check: Check) -> None:
    assert check(handlers=[{"name": "NoSuchHandler", "disabled": True}]) == []


# --- What Clara knew and MONAI no longer has -----------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "advice"),
    [
        (
            {"name": "PatchWSIDataset", "args": {"region_size": 512, "grid_shape": 2}},
            "Today's cuts no grid and takes other arguments: cut the patches beforehand and use "
            "CacheDataset, or name today's by path, monai.data.PatchWSIDataset, with patch_size "
            "and patch_level.",
        ),
        (
            {"path": "monai.apps.pathology.data.MaskedInferenceWSIDataset"},
            "Its successor takes other arguments; name it by path, "
            "monai.data.MaskedPatchWSIDataset, with patch_size, patch_level and mask_level.",
        ),
        (
            {"name": "SmartCachePatchWSIDataset"},
            "Cut the patches beforehand and use SmartCacheDataset.",
        ),
    ],
)
def test_a_class_that_is_gone_says_what_to_do(check: Check, entry: Any, advice: str) -> None:
    name = entry.get("name") or entry["path"].rpartition(".")[2]
    key = "name" if "name" in entry else "path"

    assert check(allow_code=True, dataset=entry) == [
        f"dataset.{key}: MONAI no longer has {name!r} as Clara had it\n    {advice}"
    ]


@pytest.mark.parametrize("name", ["TransformInverter", "SegmentationSaver"])
def test_a_handler_that_is_gone_says_what_to_do(check: Check, name: str) -> None:
    args = {"output_transform": "lambda x: x[0]", "loader": "@dataloader", "own": 1}

    [fault] = check(
        handlers=[{"name": name, "args": args}], dataloader={"path": "own.Loader"}, allow_code=True
    )

    assert fault.startswith(f"handlers[0].name: MONAI no longer has {name!r} as Clara had it\n")
    assert "use the post transform" in fault


def test_a_class_of_that_name_in_the_mmars_own_code_is_another_one(check: Check) -> None:
    assert check(allow_code=True, dataset={"path": "own.PatchWSIDataset"}) == []


def test_arguments_that_todays_class_would_swallow(check: Check) -> None:
    path = "monai.data.PatchWSIDataset"
    assert check(allow_code=True, dataset={"path": path, "args": {"patch_size": 32}}) == []

    found = check(
        allow_code=True, dataset={"path": path, "args": {"grid_shape": 2, "patch_size": 1}}
    )

    [fault] = found
    assert fault.startswith(
        "dataset.args.grid_shape: PatchWSIDataset: the argument 'grid_shape' is gone, and would be "
        "ignored\n    Today's cuts no grid"
    )


def test_an_argument_that_was_not_needed_once(check: Check) -> None:
    args = {"data": [], "transform": "@pre_transforms"}

    found = check(dataset={"name": "PersistentDataset", "args": args}, pre_transforms=[])

    assert found[0] == (
        "dataset.args: PersistentDataset: the required argument 'cache_dir' is missing\n"
        '    Name a folder for what it stores, such as "{MMAR_ROOT}/cache".'
    )


def test_a_cache_on_disk_is_for_sites_that_allow_all_code(check: Check) -> None:
    """Files that a job brings along could lie where the cache reads its own back."""
    args = {"data": [], "transform": "@pre_transforms", "cache_dir": "cache"}
    cached = {"dataset": {"name": "PersistentDataset", "args": args}, "pre_transforms": []}

    [found] = check(**cached, allow_code=True, allow_stored=False)

    assert found.startswith("dataset.name: PersistentDataset reads back files of its cache")
    assert check(**cached, allow_stored=True) == []


# --- Paths ---------------------------------------------------------------------------------------


def test_own_code_needs_the_sites_consent(check: Check) -> None:
    loss = {"path": "own.losses.MyLoss", "args": {"anything": 1}}

    assert check(loss=loss) == [
        "loss.path: 'own.losses.MyLoss' is code that this site has not allowed\n"
        "    Only components of the table may be used here; see 'name' in docs/look-up/mmar.md."
    ]
    assert check(loss=loss, allow_code=True) == []


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "monai.bundle.run"])
def test_installed_packages_are_code_too(check: Check, path: str) -> None:
    [fault] = check(loss={"path": path})

    assert fault.startswith(f"loss.path: {path!r} is code that this site has not allowed")


def test_a_class_of_the_table_may_be_given_by_its_path(check: Check) -> None:
    assert check(loss={"path": "monai.losses.DiceLoss", "args": {"sigmiod": True}}) == [
        "loss.args.sigmiod: DiceLoss: unknown argument 'sigmiod'\n    Did you mean 'sigmoid'?"
    ]


# --- Sending to other machines --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ClearMLImageHandler", "ClearMLStatsHandler", "MLFlowHandler"])
@pytest.mark.parametrize("key", ["name", "path"])
def test_a_handler_that_sends_to_other_machines_needs_the_sites_consent(
    train_faults: Check, name: str, key: str
) -> None:
    value = name if key == "name" else f"monai.handlers.{name}"
    document = {"train": {"handlers": [{key: value}]}}

    def faults(*, allow_egress: bool) -> list[str]:
        checks = [component_check(allow_code=True, allow_egress=allow_egress)]
        return [one for one in train_faults(document, checks=checks) if "handlers[0]" in one]

    assert faults(allow_egress=False) == [
        f"config_train.json: train.handlers[0].{key}: {name} can send metrics, images and models "
        "to another machine; this site has not allowed that\n    Disable it here; "
        "TensorBoardStatsHandler and TensorBoardImageHandler write to files only."
    ]
    assert faults(allow_egress=True) == []


def test_who_runs_an_mmar_of_their_own_has_consented(check: Check) -> None:
    assert check(handlers=[{"name": "MLFlowHandler"}]) == []


# --- Arguments -----------------------------------------------------------------------------------


def test_unknown_and_missing_arguments(check: Check) -> None:
    args = {key: value for key, value in UNET.items() if key != "channels"}

    assert check(model={"name": "UNet", "args": {**args, "chanels": [4], "colour": 1}}) == [
        "model.args.chanels: UNet: unknown argument 'chanels'\n    Did you mean 'channels'?",
        "model.args.colour: UNet: unknown argument 'colour'\n    Allowed: 'act', 'adn_ordering', "
        "'bias', 'channels', 'dropout', 'kernel_size', 'norm', 'num_res_units', 'up_kernel_size'.",
        "model.args: UNet: the required argument 'channels' is missing",
    ]


def test_a_class_that_swallows_every_word_is_no_excuse(check: Check) -> None:
    args = {"keys": "pred", "argmax": True, "treshold": 0.5}

    assert check(post_transforms=[{"name": "AsDiscreted", "args": args}]) == [
        "post_transforms[0].args.treshold: AsDiscreted: unknown argument 'treshold'\n"
        "    Did you mean 'threshold'?"
    ]


def test_faults_come_in_the_order_of_the_document(check: Check) -> None:
    words = [f"word_{index}" for index in range(20)]

    found = check(loss={"name": "DiceLoss", "args": dict.fromkeys(words)})

    assert [fault.split(":")[0] for fault in found] == [f"loss.args.{word}" for word in words]


def test_the_runtime_supplies_device_and_data(check: Check) -> None:
    data_set = {
        "name": "Dataset",
        "data_list_file_path": "dataset.json",
        "data_file_base_dir": "/data",
        "data_list_key": "training",
    }

    assert check(dataset=data_set) == []
    assert check(trainer={"name": "SupervisedTrainer", "args": engine(device="cuda")}) == []
    assert check(dataset={"name": "Dataset"}) == [
        "dataset.args: Dataset: the required argument 'data' is missing"
    ]


def test_a_refused_argument_says_why(check: Check) -> None:
    args = {"dataset": None, "collate_fn": "x"}

    assert check(dataloader={"name": "DataLoader", "args": args}) == [
        "dataloader.args.collate_fn: DataLoader: the argument 'collate_fn' is refused: the runtime "
        "sets it, so that runs are reproducible and sites see their own data\n"
        "    Remove 'collate_fn'."
    ]


@pytest.mark.parametrize("off", [False, None])
def test_a_switch_that_may_not_be_on_may_be_off(check: Check, off: bool | None) -> None:
    def densenet(pretrained: object) -> dict[str, Any]:
        args = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "pretrained": pretrained}
        return {"name": "DenseNet121", "args": args}

    assert check(model=densenet(off)) == []
    for on, found in {
        "#True": "must be false: it downloads weights from the internet\n    Write false.",
        1: "is a number\n    Allowed: false.",
        "yes": "is 'yes'\n    Allowed: false.",
        "@conf": "is @conf\n    Allowed: false.",
    }.items():
        place = "model.args.pretrained: DenseNet121: pretrained "
        assert check(model=densenet(on)) == [place + found]


def test_an_argument_that_would_import_is_one_of_a_few_words(check: Check) -> None:
    def load(reader: object) -> dict[str, Any]:
        return {"name": "LoadImaged", "args": {"keys": "image", "reader": reader}}

    assert check(pre_transforms=[load("NibabelReader"), load(None)]) == []
    for reader in ("os.system", ["NibabelReader", "own.Reader"], "@conf"):
        [fault] = check(pre_transforms=[load(reader)])
        assert fault.startswith("pre_transforms[0].args.reader")
        assert "Allowed: one of 'ITKReader', 'NibabelReader'" in fault


# --- What the builder asks -----------------------------------------------------------------------


def spec(raw: dict[str, Any]) -> ComponentSpec:
    node = NodeParser({}).entry(raw, Location("a.json"))
    assert isinstance(node, ComponentSpec)
    return node


def test_the_tables_entry_of_a_component() -> None:
    def path(raw: dict[str, Any], kind: str | None) -> str | None:
        entry = table_entry(spec(raw), kind)
        return None if entry is None else entry.name

    assert path({"name": "Unet"}, "network") == "UNet"
    assert path({"name": "UNet"}, None) == "UNet"
    assert path({"name": "UNet"}, "loss") is None
    assert path({"name": "UNet"}, "iteration") is None
    assert path({"name": "Nothing"}, None) is None
    assert path({"path": "monai.networks.nets.UNet"}, "network") == "UNet"
    assert path({"path": "monai.networks.nets.UNet"}, None) == "UNet"
    assert path({"path": "monai.networks.nets.UNet"}, "loss") is None
    assert path({"path": "own.UNet"}, "network") is None
