"""References: names that lead in circles, nowhere, or to what no config may have."""

from __future__ import annotations

from typing import Any

from tests.security.case import INFERENCE, TRAIN, Case, train

RULES = ("reference", "cycle", "expression", "component", "ref", "unknown-key", "type", "limit",
         "model", "arguments", "section", "unknown-component", "depth", "missing-argument",
         "unknown-argument", "denied-argument", "component-kind", "metric",
         "engine-key")  # fmt: skip

LONG = "k" * 30
LONG_CHAIN = {
    f"train/entry_{index}": {
        "name": "Dataset",
        "args": {"data": f"@entry_{index + 1}", "transform": f"@entry_{index + 1}"},
    }
    for index in range(150)
}

CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "self": ("an entry that is its own argument", {"train/loss/args/weight": "@loss"}),
    "circle": (
        "two entries that need each other",
        {
            "train/dataset/args/transform": "@dataloader",
            "train/dataloader/args/dataset": "@dataset",
        },
    ),
    "circle-in-expression": (
        "the same through an expression",
        {"train/model/args/norm": "#@optimizer", "train/optimizer/args/params": "#[@model]"},
    ),
    "circle-across": (
        "a circle over both sections",
        {
            "validate/evaluator/args/network": "@trainer",
            "train/trainer/args/network": "@evaluator",
        },
    ),
    "chain": ("a chain that is too long for a stack", {**LONG_CHAIN}),
    "unknown": ("an entry that is not there", {"train/optimizer/args/params": "@nothing"}),
    "builtins": ("Python's own", {"train/optimizer/args/params": "@__builtins__"}),
    "engine": ("the runtime's own", {"train/optimizer/args/params": "@self"}),
    "attribute": ("an attribute", {"train/optimizer/args/params": "@model.parameters"}),
    "monai-style": ("MONAI's path of keys", {"train/optimizer/args/params": "@train::model"}),
    "monai-macro": ("MONAI's file inclusion", {"train/loss": "%SECRET::a"}),
    "call": ("a call", {"train/optimizer/args/params": "@model()"}),
    "index": ("an index", {"train/optimizer/args/params": "@handlers[0]"}),
    "empty": ("no name", {"train/optimizer/args/params": "@"}),
    "blank": ("a blank in the name", {"train/optimizer/args/params": "@ model"}),
    "double": ("two signs", {"train/optimizer/args/params": "@@model"}),
    "homoglyph": ("a Cyrillic letter", {"train/optimizer/args/params": "@m\u043edel"}),
    "nfkc": ("letters that Python makes plain", {"train/optimizer/args/params": "@\uff4dodel"}),
    "nul": ("a NUL", {"train/optimizer/args/params": "@model\0"}),
    "newline": ("a second name behind a line break", {"train/loss/args/weight": "@loss\n@model"}),
    "disabled": (
        "an entry that is disabled",
        {"train/loss/disabled": True, "train/trainer/args/loss_function": "@loss"},
    ),
    "ref-unknown": ("a transform that is not there", {"validate/pre_transforms/0": {"ref": "x"}}),
    "ref-list": ("an array as a ref", {"validate/pre_transforms/0": {"ref": ["load"]}}),
    "ref-expression": ("an expression as a ref", {"validate/pre_transforms/0": {"ref": "#1"}}),
    "ref-dunder": ("a dunder as a ref", {"validate/pre_transforms/0": {"ref": "__class__"}}),
    "ref-extra": (
        "a ref with arguments of its own",
        {"validate/pre_transforms/0": {"ref": "load", "args": {"reader": "os.system"}}},
    ),
    "ambiguous": (
        "a name that could mean two transforms",
        {
            "train/pre_transforms/-": {"name": "LoadImaged", "args": {"keys": "label"}},
            "validate/pre_transforms/0": {"ref": "LoadImaged"},
        },
    ),
    "conf-method": ("a method of the config", {"train/loss/args/weight": "#@conf.get('x')"}),
}

HOSTILE: tuple[Case, ...] = (
    *(train(id_, "reference", tries, RULES, changes) for id_, (tries, changes) in CHANGES.items()),
    Case(
        id="many-unknown",
        family="reference",
        tries="as many unknown names as fit, each compared with as many known ones",
        rules=RULES,
        edits={
            TRAIN: {
                **{f"train/{'x' * 40}{i}": {"name": "Dataset"} for i in range(200)},
                "train/handlers/4/args/state_attributes": [f"@{'x' * 38}y{i}" for i in range(400)],
            }
        },
    ),
    Case(
        id="many-engine-keys",
        family="reference",
        tries="as many unknown keys as fit, each compared with as many known ones",
        rules=RULES,
        edits={
            TRAIN: {
                "train/dataset/data_list_file_path": "{MMAR_ROOT}/config/dataset_0.json",
                "train/pre_transforms/1/args/keys": [f"{LONG}{i}" for i in range(160)],
                "train/handlers/4/args/state_attributes": [
                    f"#from_engine([{','.join(repr(f'{LONG}x{i}_{j}') for j in range(25))}])"
                    for i in range(35)
                ],
            }
        },
        files={"config/dataset_0.json": '{"training": [{"image": "x"}]}'},
    ),
    Case(
        id="model-by-reference",
        family="reference",
        tries="a model that is a reference",
        rules=RULES,
        edits={INFERENCE: {"model": "@dataset"}},
    ),
)
