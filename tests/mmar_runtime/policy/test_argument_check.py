"""The value of each argument against its form: what passes, and what each form keeps out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

import pytest

from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec
from mmar_runtime.config.parser import NodeParser
from mmar_runtime.policy.argument_check import argument_faults
from mmar_runtime.policy.component_table import ComponentEntry, load_component_table
from mmar_runtime.policy.files.paths import Places

TABLE = load_component_table()

KINDS: Mapping[str, str] = {
    "model": "network", "loss": "loss", "optimizer": "optimizer", "dataset": "dataset",
    "handlers": "handler", "conf": "conf",
}  # fmt: skip
"""What the references of this document mean; ``@own`` is an object of the MMAR's own code."""


def faults(kind: str, name: str, **arguments: Any) -> list[str]:
    """The messages about the arguments of one component, without its name in front."""
    entry = TABLE.lookup(kind, name)
    assert entry is not None
    return list(_faults(entry, arguments))


def _faults(entry: ComponentEntry, arguments: Mapping[str, Any]) -> Iterator[str]:
    raw = {"name": entry.name, "args": arguments}
    parser = NodeParser({})
    node = parser.entry(raw, Location("a.json"))
    assert isinstance(node, ComponentSpec)
    assert parser.problems == []
    for problem in argument_faults(node, entry, KINDS.get):
        yield problem.message.removeprefix(f"{entry.name}: ")


# --- Numbers, flags and words --------------------------------------------------------------------


def test_a_word_is_written_in_plain_letters_and_a_text_is_short() -> None:
    assert faults("network", "ResNet", block="Bottleneck") == []
    [found] = faults("network", "ResNet", block="bottlenec\u212a")  # whose small letter is a k
    assert found.startswith("block is ")

    assert faults("inferer", "SaliencyInferer", target_layers="a" * 200) == []
    [found] = faults("inferer", "SaliencyInferer", target_layers="a" * 201)
    assert found.startswith("target_layers is ")


def test_the_parameters_of_a_network_are_for_an_optimizer() -> None:
    assert faults("optimizer", "Adam", params="#@model.parameters()") == []
    assert faults("optimizer", "Adam", params="#@loss.parameters()") != []
    assert faults("transform", "GaussianSmoothd", sigma="#@model.parameters()") != []


def test_a_number_stays_within_its_bounds_however_it_is_written() -> None:
    bound = "0 is the least and 64 the most"
    assert faults("transform", "GaussianSmoothd", sigma=3) == []
    assert faults("transform", "GaussianSmoothd", sigma=[1.5, 1.5, 0.5]) == []
    assert faults("transform", "GaussianSmoothd", sigma="#1 / 2") == []

    assert faults("transform", "GaussianSmoothd", sigma=1e9) == [f"sigma is 1e+09; {bound}"]
    assert faults("transform", "GaussianSmoothd", sigma=[1, 65]) == [f"sigma is 65; {bound}"]
    assert faults("transform", "GaussianSmoothd", sigma="#0 or 65") == [f"sigma is 65; {bound}"]
    assert faults("transform", "GaussianSmoothd", sigma="#8 * 9") == [f"sigma is 72; {bound}"]
    assert faults("transform", "GaussianSmoothd", sigma="#1 / (0 or 1)") == [
        f"sigma cannot be bounded before the run; {bound}"
    ]


def test_a_whole_number_is_whole() -> None:
    assert faults("loss", "SSIMLoss", win_size=11.0) == []
    assert faults("loss", "SSIMLoss", win_size=11.5) == [
        "win_size is 11.5, which is not a whole number"
    ]


def test_a_comparison_counts_as_both_0_and_1() -> None:
    assert faults("transform", "Flipd", allow_missing_keys="#1 > 2") == []
    assert faults("transform", "DivisiblePadd", k="#2 + (1 > 2)") == []

    assert faults("transform", "DivisiblePadd", k="#1 > 2") == [
        "k may be from 0 to 1; 1 is the least and 1024 the most"
    ]
    assert faults("transform", "DivisiblePadd", k="#not 4") == [
        "k may be from 0 to 1; 1 is the least and 1024 the most"
    ]


def test_what_is_not_a_number_cannot_be_computed_with() -> None:
    assert faults("network", "UNet", in_channels="#@loss * 4") == [
        "in_channels is computed from something that is not a number"
    ]
    assert faults("network", "UNet", in_channels="@loss") == [
        "in_channels is @loss, which is a loss"
    ]
    assert faults("network", "UNet", in_channels="@own") == ["in_channels is @own"]


def test_a_flag_is_true_or_false() -> None:
    for good in (True, False, None, 0, 1, [True, False], "#not 1", "#1 < 2"):
        assert faults("loss", "DiceLoss", sigmoid=good) == []

    assert faults("loss", "DiceLoss", sigmoid="true") == ["sigmoid is 'true'"]
    assert faults("loss", "DiceLoss", sigmoid=2) == ["sigmoid is a number"]
    assert faults("loss", "DiceLoss", sigmoid={"a": 1}) == ["sigmoid has the key 'a'"]


def test_a_word_comes_from_a_list_and_may_be_written_in_any_case() -> None:
    for good in ("mean", "MEAN", "none", None, "#'sum' if 1 else 'mean'"):
        assert faults("loss", "DiceLoss", reduction=good) == []

    assert faults("loss", "DiceLoss", reduction="os.system") == ["reduction is 'os.system'"]
    assert faults("loss", "DiceLoss", reduction="#'' or 'a'") == [
        "reduction is ''",
        "reduction is 'a'",
    ]
    assert faults("loss", "DiceLoss", reduction="#f'{1}'") == [
        "reduction is a text that cannot be known before the run"
    ]


def test_a_word_that_is_imported_is_exact() -> None:
    assert faults("transform", "LoadImaged", reader=["ITKReader", "nibabelreader"]) == []
    assert faults("transform", "LoadImaged", reader="ITKREADER") == ["reader is 'ITKREADER'"]


# --- Texts ---------------------------------------------------------------------------------------


def test_a_text_of_a_log_is_printable_and_short() -> None:
    for good in ("loss (50 %)", "Größe", "dice@0.5", "a" * 200):
        assert faults("handler", "StatsHandler", tag_name=good) == []

    for bad in ("\x1b[2J", "a\nb", "a" * 201):
        assert len(faults("handler", "StatsHandler", tag_name=bad)) == 1


def test_a_log_line_has_plain_fields_of_bounded_width() -> None:
    for good in ("%(asctime)s - %(levelname)-8s: %(message)s", "100%% %(message).5s", "x"):
        assert faults("handler", "LogfileHandler", formatter=good) == []

    for bad in ("%(message)1000s", "%(args)s", "%(message)s %", "%d", "%(message)*d"):
        assert len(faults("handler", "LogfileHandler", formatter=bad)) == 1


def test_a_layer_is_not_an_attribute_of_python() -> None:
    def layers(name: str) -> list[str]:
        return faults("inferer", "SaliencyInferer", target_layers=name)

    assert layers("class_layers.relu") == []
    assert layers("model.0.conv") == []
    assert layers("__class__.__init__") == ["target_layers is '__class__.__init__'"]


# --- Objects -------------------------------------------------------------------------------------


def test_a_reference_leads_to_an_entry_of_the_right_kind() -> None:
    assert (
        faults("trainer", "SupervisedTrainer", network="@model", train_handlers="@handlers") == []
    )
    assert faults("trainer", "SupervisedTrainer", network="@own") == []  # code, if it is allowed

    assert faults("trainer", "SupervisedTrainer", network="@loss") == [
        "network is @loss, which is a loss"
    ]
    assert faults("trainer", "SupervisedTrainer", network="os.system") == ["network is 'os.system'"]


def test_parameters_are_those_of_a_network() -> None:
    groups = [{"params": "#@model.parameters()", "lr": 0.1}]
    assert faults("optimizer", "Adam", params="#@model.parameters()") == []
    assert faults("optimizer", "Adam", params=groups) == []

    assert faults("optimizer", "Adam", params="#@dataset.parameters()") == [
        "params is the parameters of a network"
    ]


def test_a_checkpoint_holds_parts_of_the_training() -> None:
    for good in ({"model": "@model", "train_conf": "@conf"}, "#{'model': @model}"):
        assert faults("handler", "CheckpointSaver", save_dict=good) == []

    assert faults("handler", "CheckpointSaver", save_dict={"x": "@dataset"}) == [
        "save_dict is @dataset, which is a dataset"
    ]
    assert faults("handler", "CheckpointSaver", save_dict="model") == ["save_dict is 'model'"]


def test_an_object_has_the_keys_that_its_reader_knows() -> None:
    norm = ["GROUP", {"num_groups": 2}]
    assert faults("network", "UNet", norm=norm) == []
    assert faults("trainer", "SupervisedTrainer", amp_kwargs={"dtype": "#torch.bfloat16"}) == []

    assert faults("network", "UNet", norm=["GROUP", {"device": 1}]) == ["norm has the key 'device'"]
    assert faults("trainer", "SupervisedTrainer", to_kwargs={"memory_format": 1}) == [
        "to_kwargs has the key 'memory_format'"
    ]


def test_a_function_has_a_result_of_the_form_that_its_caller_uses() -> None:
    whole, voxel = "lambda x: (x['pred'], x['label'])", "lambda x: x[0]['image'][0][10]"
    assert faults("metric", "MeanDice", output_transform=whole) == []
    assert faults("transform", "CropForegroundd", select_fn="lambda x: x > 0") == []

    assert len(faults("metric", "MeanDice", output_transform=voxel)) == 1
    assert faults("loss", "DiceLoss", reduction="lambda x: x") == ["reduction is a function"]


def test_a_compiler_stays_off() -> None:
    assert faults("trainer", "SupervisedTrainer", compile=False) == []
    for on in (True, "#1 < 2", "#None or True"):
        [fault] = faults("trainer", "SupervisedTrainer", compile=on)
        assert "must be false" in fault
    entry = TABLE.lookup("trainer", "SupervisedTrainer")
    assert entry is not None
    assert "compiler" in entry.arguments["compile_kwargs"].denied


# --- The whole table -----------------------------------------------------------------------------


def _bad_value(entry: ComponentEntry, argument: str) -> object:
    """What no form of this shape may take."""
    form = entry.arguments[argument]
    if form.number is not None:
        return 1e300
    return "\x1b[2J os.system"


def _judged() -> list[tuple[ComponentEntry, str]]:
    return [
        (entry, argument)
        for entry in TABLE.components.values()
        for argument, form in entry.arguments.items()
        if not (form.denied or form.data or form.components or form.path)
    ]


def test_every_argument_of_every_class_refuses_what_it_is_not_for() -> None:
    open_ = [
        f"{entry.name}.{argument}"
        for entry, argument in _judged()
        if not list(_faults(entry, {argument: _bad_value(entry, argument)}))
        or not list(_faults(entry, {argument: {"__class__": "os.system"}}))
    ]

    assert len(_judged()) > 3000
    assert open_ == []


def test_every_number_of_every_class_has_two_finite_bounds() -> None:
    forms = [form for entry in TABLE.components.values() for form in entry.arguments.values()]

    assert all(abs(bound) < 2**63 for form in forms for bound in form.number or ())


def test_no_path_of_any_class_leads_to_a_file_of_the_machine() -> None:
    here = Places(root="/job", data=("/data",))
    roles = {role for entry in TABLE.components.values() for role in entry.paths.values()}

    assert len(roles) == 6
    assert [role for role in roles if not here.fault("/etc/passwd", role)] == []


def test_every_folder_that_is_written_to_by_default_is_filled_in() -> None:
    unfilled = {
        f"{entry.name}.{argument}"
        for entry in TABLE.components.values()
        for argument, form in entry.arguments.items()
        if form.path == "write:run" and not form.fill
    }

    # They have no default; null writes nothing.
    assert unfilled == {"PersistentDataset.cache_dir", "CacheNTransDataset.cache_dir"}


def _defaults(entry: ComponentEntry) -> dict[str, Any]:
    """The plain defaults of a class, as JSON has them."""
    cls = getattr(import_module(entry.module), entry.name)
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            for name, one in signature(base.__init__).parameters.items():
                found.setdefault(name, one.default)
    return {
        name: _json(found[name])
        for name, form in entry.arguments.items()
        if name in found and not form.denied and not form.path and _is_plain(found[name])
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is not Parameter.empty and isinstance(value, bool | int | float | str)


def _json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    return str(value.value) if hasattr(value, "value") else value


@pytest.mark.parametrize("kind", TABLE.kinds)
def test_the_default_of_each_argument_is_of_its_form(kind: str) -> None:
    off = {"off: download"}  # a default that downloads has to be written as false
    wrong = [
        f"{entry.name}: {fault}"
        for entry in TABLE.components.values()
        if entry.kind == kind
        for name, value in _defaults(entry).items()
        if entry.arguments[name].name not in off
        for fault in _faults(entry, {name: value})
    ]

    assert wrong == []
