"""The table of components: what is in it, what is not, and what it says about arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from time import process_time
from types import ModuleType
from typing import Any

import pytest

from mmar_runtime.policy import component_table
from mmar_runtime.policy.component_table import (
    ComponentEntry,
    check_arguments,
    load_component_table,
)

ROOT = Path(component_table.__file__).resolve().parents[2]
TABLE = load_component_table()

EXPECTED = {
    "network": "UNet Unet SegResNet BasicUNet BasicUnet DynUNet VNet DenseNet121",
    "loss": "DiceLoss DiceCELoss FocalLoss BCEWithLogitsLoss CrossEntropyLoss",
    "optimizer": "Novograd Adam SGD",
    "lr_scheduler": "StepLR CosineAnnealingLR ReduceLROnPlateau WarmupCosineSchedule",
    "transform": """
        LoadImaged EnsureChannelFirstd Spacingd Orientationd ScaleIntensityRanged
        ScaleIntensityRangeD CropForegroundd RandCropByPosNegLabeld RandShiftIntensityd RandFlipd
        RandFlipD RandRotate90D RandZoomD RandGaussianNoised NormalizeIntensityd Resized
        CastToTyped ToNumpyd ToTensord EnsureTyped SqueezeDimd AsChannelLastd Activationsd
        AsDiscreted Invertd SaveImaged KeepLargestConnectedComponentd MeanEnsembled Compose OneOf
    """,
    "dataset": "Dataset CacheDataset SmartCacheDataset PersistentDataset CacheNTransDataset",
    "dataloader": "DataLoader",
    "inferer": "SimpleInferer SlidingWindowInferer",
    "handler": """
        CheckpointLoader CheckpointSaver LrScheduleHandler ValidationHandler StatsHandler
        TensorBoardStatsHandler TensorBoardImageHandler MetricsSaver SmartCacheHandler
        EarlyStopHandler GarbageCollector
    """,
    "metric": "MeanDice Accuracy ROCAUC HausdorffDistance SurfaceDistance ConfusionMatrix",
    "trainer": "SupervisedTrainer",
    "evaluator": "SupervisedEvaluator EnsembleEvaluator",
    "prepare_batch": "PrepareBatchDefault",
}


ABSENT = """
    run_cmd download download_url download_and_extract extractall load_from_mmar instantiate
    optional_import ConfigParser DecathlonDataset PerceptualLoss Lambda
    TorchVisiond RandTorchVisiond TorchIOd RandTorchIOd CuCIMd ImageFilterd RandImageFilterd
    LambdaLR MultiplicativeLR MetricsLambda FID InceptionScore RangeHandler MarkHandler Transchex
    LMDBDataset MapTransform LRScheduler Optimizer Inferer Metric PrepareBatch unet UNET
"""

DATALOADER_DENIED = """
    sampler batch_sampler collate_fn worker_init_fn generator multiprocessing_context
"""


def entry(kind: str, name: str) -> ComponentEntry:
    """The entry with this name, which must be there."""
    found = TABLE.lookup(kind, name)
    assert found is not None, f"no {kind} {name}"
    return found


def faults(found: ComponentEntry, *given: str) -> dict[str, str]:
    """The kind of fault by the name of the argument; without the required ones left out."""
    complete = [*given, *found.required]
    return {fault.argument: fault.kind for fault in check_arguments(found, complete)}


def installed_version(package: str) -> str:
    """The public version of an installed package; empty where it is not installed."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ""


# --- The file ---


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The script that writes the table; it imports the packages that the table describes."""
    installed = {package: installed_version(package) for package in TABLE.generated_from}
    if installed != dict(TABLE.generated_from):
        pytest.skip(f"the table is for {dict(TABLE.generated_from)}, installed are {installed}")
    script = ROOT / "scripts" / "generate_component_table.py"
    if not script.is_file():
        pytest.skip("the generator is not part of an installed package")
    spec = spec_from_file_location("generate_component_table", script)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # dataclasses look their module up by name.
    sys.modules[spec.name] = module
    sys.path.insert(0, str(script.parent))  # where Python looks when it runs the script
    spec.loader.exec_module(module)
    sys.path.remove(str(script.parent))
    return module


@pytest.fixture(scope="module")
def built(generator: ModuleType) -> Any:
    """The table of the installed packages; to build it takes seconds."""
    return generator.build_table()


def test_committed_table_is_what_the_installed_packages_give(
    generator: ModuleType, built: Any
) -> None:
    assert generator.render(built) == generator.OUTPUT.read_text("utf-8")
    changes = json.loads(generator.CHANGES.read_text("utf-8"))
    assert generator.changes(built) == changes
    assert changes["today"] == {"Orientationd": {"labels": None}}  # by MONAI's own record


def test_check_compares_without_writing(
    generator: ModuleType, built: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "build_table", lambda: built)
    outdated = tmp_path / "components.json"
    outdated.write_text("{}", encoding="utf-8")
    monkeypatch.setattr(generator, "OUTPUT", outdated)
    assert generator.main(["--check"]) == 1
    assert outdated.read_text("utf-8") == "{}"


def test_constructor_that_swallows_words_stops_the_generator(generator: ModuleType) -> None:
    class Swallows:
        def __init__(self, size: int, **kwargs: object) -> None:
            self.size = size

    with pytest.raises(generator.GenerationError, match="kwargs go"):
        generator.constructor_arguments(Swallows)


def test_forwarding_leaves_out_what_the_subclass_fills_in(generator: ModuleType) -> None:
    class Base:
        def __init__(self, first: int, second: int, third: int = 3, fourth: int = 4) -> None:
            pass

    class Derived(Base):
        def __init__(self, own: int = 0, **kwargs: int) -> None:
            super().__init__(own, third=1, **kwargs)

    expected = {"own": False, "second": True, "fourth": False}
    assert generator.constructor_arguments(Derived) == expected


class Reviewed:
    """A class with the arguments that no review has seen."""

    def __init__(
        self,
        size: int = 1,
        ratio: Sequence[float] | None = None,
        quiet: bool = False,
        engine: dict | None = None,  # type: ignore[type-arg]  # as MONAI writes it
        report: Callable[[int], int] | None = None,
        greeting: str = "hello",
        factory: type = int,
        anything=None,  # type: ignore[no-untyped-def]
    ) -> None:
        pass


def test_plain_numbers_and_flags_have_the_forms_of_their_kind(generator: ModuleType) -> None:
    assert generator.form_of(Reviewed, "metric", "size") == "classes"
    assert generator.form_of(Reviewed, "network", "size") == "width"
    assert generator.form_of(Reviewed, "loss", "ratio") == "real"
    assert generator.form_of(Reviewed, "loss", "quiet") == "flag"


@pytest.mark.parametrize("name", ["engine", "report", "greeting", "factory", "anything"])
def test_an_argument_that_nobody_has_read_about_stops_the_generator(
    generator: ModuleType, name: str
) -> None:
    with pytest.raises(generator.GenerationError, match=f"read what becomes of '{name}'"):
        generator.form_of(Reviewed, "loss", name)


def test_a_decision_that_nothing_uses_stops_the_generator(
    generator: ModuleType, built: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator.require_used(built)
    monkeypatch.setitem(generator.BY_NAME, "no_such_argument", "flag")

    with pytest.raises(generator.GenerationError, match="no_such_argument"):
        generator.require_used(built)


def test_every_path_leads_to_the_class_defined_there(generator: ModuleType) -> None:
    for path, found in TABLE.components.items():
        cls = getattr(import_module(found.module), found.name)
        assert isinstance(cls, type)
        assert f"{cls.__module__}.{cls.__qualname__}" == path


def test_every_name_is_an_attribute_of_its_namespace(generator: ModuleType) -> None:
    for kind in TABLE.kinds:
        for name in TABLE.names(kind):
            found = entry(kind, name)
            cls = getattr(import_module(found.namespace), name)
            assert f"{cls.__module__}.{cls.__qualname__}" == found.path


# --- What is in the table ---


@pytest.mark.parametrize("kind", EXPECTED)
def test_components_of_real_configurations_are_there(kind: str) -> None:
    missing = [name for name in EXPECTED[kind].split() if TABLE.lookup(kind, name) is None]
    assert missing == []


def test_every_kind_of_the_table_is_expected_here() -> None:
    assert set(TABLE.kinds) == set(EXPECTED)


@pytest.mark.parametrize("name", ABSENT.split())
def test_dangerous_and_useless_names_are_absent(name: str) -> None:
    assert TABLE.kinds_of(name) == ()


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("metric", "ConfusionMatrix", "monai.handlers.confusion_matrix.ConfusionMatrix"),
        ("metric", "Accuracy", "ignite.metrics.accuracy.Accuracy"),
        ("dataloader", "DataLoader", "monai.data.dataloader.DataLoader"),
        ("lr_scheduler", "ExponentialLR", "torch.optim.lr_scheduler.ExponentialLR"),
        ("optimizer", "Adam", "torch.optim.adam.Adam"),
    ],
)
def test_names_that_clash_are_settled(kind: str, name: str, path: str) -> None:
    assert entry(kind, name).path == path


def test_aliases_name_the_same_class() -> None:
    flips = {entry("transform", f"RandFlip{suffix}").path for suffix in ("d", "D", "Dict")}
    assert flips == {"monai.transforms.spatial.dictionary.RandFlipd"}


@pytest.mark.parametrize(
    "path",
    [
        "monai.networks.nets.unet.UNet",
        "monai.networks.nets.UNet",
        "monai.networks.nets.Unet",
        "monai.networks.nets.unet.Unet",
    ],
)
def test_class_is_found_by_any_of_its_paths(path: str) -> None:
    found = TABLE.by_path(path)
    assert found is not None
    assert (found.name, found.kind) == ("UNet", "network")


def test_class_without_its_short_name_is_found_by_path() -> None:
    found = TABLE.by_path("ignite.metrics.ConfusionMatrix")
    assert found is not None
    assert found.path == "ignite.metrics.confusion_matrix.ConfusionMatrix"


@pytest.mark.parametrize("path", ["os.system", "UNet", "monai.networks.nets", "monai.losses.UNet"])
def test_other_paths_are_not_found(path: str) -> None:
    assert TABLE.by_path(path) is None


def test_a_component_belongs_to_its_kind_only() -> None:
    assert TABLE.kinds_of("DiceLoss") == ("loss",)
    assert TABLE.lookup("network", "DiceLoss") is None


def test_unknown_kind_is_an_error_of_the_program() -> None:
    with pytest.raises(KeyError):
        TABLE.lookup("networks", "UNet")


def test_loggers_that_send_data_away_need_consent() -> None:
    names = {found.name for found in TABLE.components.values() if found.consent == "egress"}
    assert names == {"ClearMLImageHandler", "ClearMLStatsHandler", "MLFlowHandler"}


# --- Arguments ---


def test_mistyped_argument_gets_a_suggestion() -> None:
    given = ["spatial_dims", "in_channels", "out_channels", "chanels", "strides"]
    unknown, missing = check_arguments(entry("network", "UNet"), given)
    assert unknown.kind == "unknown"
    assert unknown.message == "unknown argument 'chanels'"
    assert unknown.advice == "Did you mean 'channels'?"
    assert (missing.argument, missing.kind) == ("channels", "missing")


def test_complete_arguments_have_no_faults() -> None:
    unet = entry("network", "UNet")
    assert check_arguments(unet, unet.required) == ()
    assert check_arguments(unet, unet.accepted) == ()


def test_missing_arguments_come_last_in_the_order_of_the_signature() -> None:
    found = check_arguments(entry("network", "UNet"), ["strides", "bogus", "spatial_dims"])
    assert [fault.argument for fault in found] == [
        "bogus",
        "in_channels",
        "out_channels",
        "channels",
    ]


@pytest.mark.parametrize("name", ["n_classes", "num_classes", "threshold_values", "logit_thresh"])
def test_words_that_asdiscreted_swallows_are_refused(name: str) -> None:
    assert faults(entry("transform", "AsDiscreted"), name) == {name: "unknown"}


@pytest.mark.parametrize(
    ("kind", "name", "accepted"),
    [
        ("transform", "AsDiscreted", "argmax to_onehot threshold rounding dim keepdim"),
        ("transform", "Activationsd", "sigmoid softmax dim"),
        ("transform", "SpatialPadd", "spatial_size mode value constant_values"),
        ("transform", "LoadImaged", "reader image_only reverse_indexing npz_keys"),
        ("dataloader", "DataLoader", "batch_size shuffle num_workers pin_memory prefetch_factor"),
        ("dataloader", "ThreadDataLoader", "batch_size num_workers buffer_size"),
        ("inferer", "SliceInferer", "spatial_dim roi_size sw_batch_size"),
        ("network", "DenseNet121", "spatial_dims in_channels out_channels norm"),
        ("network", "SEResNet50", "spatial_dims in_channels num_classes"),
        ("handler", "ClearMLStatsHandler", "project_name log_dir output_transform"),
    ],
)
def test_arguments_that_are_passed_on_are_accepted(kind: str, name: str, accepted: str) -> None:
    assert faults(entry(kind, name), *accepted.split()) == {}


@pytest.mark.parametrize(
    ("kind", "name", "argument"),
    [
        ("dataset", "CacheDataset", "hash_func"),
        ("dataset", "PersistentDataset", "weights_only"),
        ("dataset", "PersistentDataset", "pickle_module"),
        ("transform", "LoadImaged", "allow_pickle"),
        ("transform", "DeleteItemsd", "use_re"),
        ("network", "HoVerNet", "pretrained_url"),
        ("handler", "StatsHandler", "key_var_format"),
        *(("dataloader", "DataLoader", argument) for argument in DATALOADER_DENIED.split()),
    ],
)
def test_arguments_that_run_code_or_download_are_denied(
    kind: str, name: str, argument: str
) -> None:
    assert faults(entry(kind, name), argument) == {argument: "denied"}


def test_denied_argument_says_why_and_is_never_suggested() -> None:
    loader = entry("dataloader", "DataLoader")
    (denied,) = check_arguments(loader, ["dataset", "collate_fn"])
    assert loader.arguments["collate_fn"].denied in denied.message
    (unknown,) = check_arguments(loader, ["dataset", "colate_fn"])
    assert "collate_fn" not in unknown.advice


def test_pretrained_weights_are_a_switch_that_has_to_be_off() -> None:
    densenet = entry("network", "DenseNet121")
    assert faults(densenet, "pretrained") == {}
    assert "downloads" in densenet.arguments["pretrained"].off


@pytest.mark.parametrize("name", ["EfficientNetBN", "MILModel", "ResNetFeatures"])
def test_network_that_downloads_by_default_must_be_told_not_to(name: str) -> None:
    assert "pretrained" in entry("network", name).required


# --- Cost ---


def test_table_is_read_without_importing_the_packages() -> None:
    code = (
        "import sys\n"
        "from mmar_runtime.policy.component_table import load_component_table\n"
        "assert load_component_table().lookup('network', 'UNet')\n"
        "print(sorted({'torch', 'monai', 'ignite', 'numpy'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_table_loads_in_a_fraction_of_a_second() -> None:
    load_component_table.cache_clear()
    start = process_time()
    load_component_table()
    # Takes some 10 ms; the limit leaves room for a busy machine.
    assert process_time() - start < 0.5


def test_table_is_loaded_once() -> None:
    assert load_component_table() is load_component_table()
