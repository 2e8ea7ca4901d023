"""Functions in arguments: what would carry a voxel away, and what real configurations write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.security.case import TRAIN, VALIDATION, Case

RULES = ("denied-argument", "expression", "metric", "reference", "engine-key")
KEY = "validate/key_metric/args/output_transform"
STATS = "train/handlers/4/args/output_transform"
IMAGES = "validate/handlers/-"
PAIR = "#monai.handlers.from_engine(['pred', 'label'])"

METRIC: dict[str, tuple[str, str]] = {
    "voxel": ("one voxel", "lambda x: x[0]['image'][0][10][11][12]"),
    "voxel-last": ("counted from the end", "lambda x: x[-1]['image'][-1][-1][-1][-1]"),
    "row": ("a row of voxels", "lambda x: x['image'][0][10][11]"),
    "slice": ("one slice", "lambda x: x['image'][0][0]"),
    "case": ("one image of a batch", "lambda x: x['image'][0]"),
    "prediction-voxel": ("a voxel of the prediction", "lambda x: x['pred'][0][0][5][5][5]"),
    "prediction-first": ("the prediction of one case", "lambda x: x[0]['pred']"),
    "pair-first": ("both of one case", "lambda x: (x[0]['pred'], x[0]['label'])"),
    "pair-other": ("both of another case", "lambda x: (x[7]['pred'], x[7]['label'])"),
    "pair-voxel": ("a voxel beside a label", "lambda x: (x['image'][0][1][2], x['label'])"),
    "pair-label-voxel": ("a voxel of the label", "lambda x: (x['pred'], x['label'][0][1][2])"),
    "pair-crossed": ("of two cases", "lambda x: (x[0]['pred'], x[1]['label'])"),
    "pair-constant": ("a prediction beside a number", "lambda x: (x['pred'], 0)"),
    "pair-choice": ("one or the other", "lambda x: (x['pred'] if x['loss'] > 1 else x['label'], "
                                        "x['label'])"),
    "pair-or": ("the same by 'or'", "lambda x: (x['pred'] or x['label'], x['label'])"),
    "pair-not": ("a negation", "lambda x: (not x['pred'], x['label'])"),
    "mask": ("voxels that have a value", "lambda x: (x['image'] == 1337, x['label'])"),
    "mask-range": ("voxels above a value", "lambda x: (x['image'] > 0.99, x['label'])"),
    "mask-product": ("voxels by a mask", "lambda x: ((x['pred'] > 0.5) * x['image'], x['label'])"),
    "mask-entries": ("voxels of another entry", "lambda x: (x['pred'] * x['label'], x['label'])"),
    "quotient": ("a quotient of entries", "lambda x: (x['pred'] / x['label'], x['label'])"),
    "digits": ("digits that rounding hides", "lambda x: (x['pred'] % 0.001, x['label'])"),
    "digits-scaled": ("brought forward", "lambda x: (x['pred'] * 1000000, x['label'])"),
    "digits-twice": ("in two steps", "lambda x: (x['pred'] * 1000 * 1000, x['label'])"),
    "digits-divided": ("by a small divisor", "lambda x: (x['pred'] / 0.000001, x['label'])"),
    "digits-hidden": ("behind a sum", "lambda x: ((x['pred'] * 1000 + 1) / 0.001, x['label'])"),
    "zero": ("nothing but a constant", "lambda x: (x['pred'] * 0, x['label'])"),
    "state": ("the state of the engine", "lambda engine: engine.state.batch['image']"),
    "state-output": ("the same by another field", "lambda e: e.state.output[0]['image']"),
    "meta": ("a file's name", "lambda x: x['image_meta_dict']['filename_or_obj']"),
    "reference": ("an object", "lambda x: (@model, x['label'])"),
    "parameters": ("the weights", "lambda x: @model.parameters()"),
    "text": ("a text", "lambda x: f\"{x['pred']}\""),
    "print": ("a line for the log", "lambda x: print(x['image'][0][1][2])"),
    "number": ("a number", "lambda x: 5"),
    "nested": ("lists in lists", "lambda x: [[x['pred'], x['label']]]"),
    "dictionary": ("a part in a dictionary", "lambda x: {'y_pred': x['image'][0][1], "
                                             "'y': x['label']}"),
    "engine-first": ("the first of each", "#from_engine(['pred', 'label'], first=True)"),
    "engine-first-image": ("the first image", "#from_engine(['image', 'loss'], first=True)"),
    "engine-image": ("images alone", "#from_engine(['image'])"),
    "engine-choice": ("one of two functions", "#from_engine(['pred']) if 1 else "
                                              "from_engine(['image'])"),
    "engine-list": ("a list of functions", "#[from_engine(['image'])]"),
    "not-a-function": ("a list", "#['pred', 'label']"),
    "key": ("a key", "pred"),
}  # fmt: skip

PRINTED: dict[str, tuple[str, str]] = {
    "voxel": ("one voxel in a log", "lambda x: x[0]['image'][0][10][11][12]"),
    "voxel-text": ("in a text", "lambda x: f\"{x['image'][0][10][11][12]}\""),
    "voxel-print": ("in a line", "lambda x: print(x['image'][0][10][11][12])"),
    "voxel-dictionary": ("in a dictionary", "lambda x: {'loss': x['image'][0][10][11]}"),
    "voxel-computed": ("computed", "lambda x: x['image'][0][10][11] * 2"),
    "voxel-chosen": ("by a choice", "lambda x: 1 if x['image'][0][10][11] > 5 else 0"),
    "voxel-flag": ("by a comparison", "lambda x: x['image'][0][10][11] == 7"),
    "voxel-state": ("of the engine's batch", "lambda e: e.state.batch['image'][0][10]"),
    "model": ("an object", "lambda x: @model"),
    "weights": ("the weights", "lambda x: @model.named_parameters()"),
    "function": ("a function", "lambda x: from_engine(['loss'])"),
    "list": ("a list", "#[1, 2]"),
}


def handler(name: str, **arguments: Any) -> Mapping[str, Any]:
    """A handler more of the validation."""
    return {IMAGES: {"name": name, "args": arguments}}


OTHERS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "score": ("a score that is a voxel", handler(
        "EarlyStopHandler", patience=5,
        score_function="lambda engine: engine.state.batch['image'][0][1][2]")),
    "score-text": ("a score that is a text", handler(
        "EarlyStopHandler", patience=5, score_function="lambda engine: f'{engine.state.epoch}'")),
    "images-voxel": ("a part of an image", handler(
        "TensorBoardImageHandler", log_dir="{MMAR_CKPT_DIR}",
        batch_transform="lambda x: x['image'][0][10][11]", output_transform="lambda x: None")),
    "saver-voxel": ("a voxel in a table", handler(
        "ClassificationSaver", output_dir="{MMAR_CKPT_DIR}",
        batch_transform="#monai.handlers.from_engine(['image_meta_dict'])",
        output_transform="lambda x: x['image'][0][10][11]")),
    "epoch-print": ("a global epoch that prints", handler(
        "StatsHandler", output_transform="lambda x: None",
        global_epoch_transform="lambda x: print(x)")),
    "foreground": ("a foreground by a position", {"validate/pre_transforms/-": {
        "name": "CropForegroundd", "args": {
            "keys": "image", "source_key": "image", "select_fn": "lambda x: x[0][10] > 5"}}}),
    "foreground-all": ("a foreground that is not a comparison", {"validate/pre_transforms/-": {
        "name": "CropForegroundd", "args": {
            "keys": "image", "source_key": "image", "select_fn": "lambda x: x"}}}),
    "inverse": ("a function behind an inverse", {"validate/post_transforms/-": {
        "name": "Invertd", "args": {
            "keys": "pred", "transform": "@pre_transforms", "orig_keys": "image",
            "post_func": "lambda x: print(x)"}}}),
    "in-training": ("in the metric of a training", {
        "train/key_metric/args/output_transform": "lambda x: x[0]['image'][0][10][11][12]"}),
    "lambda-list": ("a list of functions", {KEY: [PAIR, "lambda x: x['pred'][0][1]"]}),
    "formatter": ("a function that formats", {
        "train/handlers/4/args/formatter": "lambda x: x['image']"}),
}  # fmt: skip

HOSTILE: tuple[Case, ...] = (
    *(
        Case(id=id_, family="lambda", tries=tries, rules=RULES, edits={TRAIN: {KEY: text}})
        for id_, (tries, text) in METRIC.items()
    ),
    *(
        Case(id=f"printed-{id_}", family="lambda", tries=tries, rules=RULES,
             edits={TRAIN: {STATS: text}})
        for id_, (tries, text) in PRINTED.items()
    ),
    *(
        Case(id=f"other-{id_}", family="lambda", tries=tries, edits={TRAIN: changes},
             rules=(*RULES, "unknown-argument", "missing-argument"))
        for id_, (tries, changes) in OTHERS.items()
    ),
)  # fmt: skip

# --- What people write ---------------------------------------------------------------------------

METRICS = {
    "pair": "lambda x: (x['pred'], x['label'])",
    "pair-list": "lambda x: [x['pred'], x['label']]",
    "pair-engine": PAIR,
    "pair-tuple": "#monai.handlers.from_engine(('pred', 'label'))",
    "pair-not-first": "#from_engine(keys=['pred', 'label'], first=False)",
    "threshold": "lambda x: (x['pred'] > 0.5, x['label'])",
    "scaled": "lambda x: (x['pred'] * 100, x['label'] * 100)",
    "class": "lambda x: (x['pred'], x['label'] == 1)",
}
LOGS = {
    "none": "lambda x: None",
    "loss": "lambda x: x['loss']",
    "first": "lambda x: x[0]['loss']",
    "engine": "#monai.handlers.from_engine(['loss'], first=True)",
    "dictionary": "lambda x: {'train_loss': x[0]['loss']}",
    "scaled": "lambda x: x[0]['loss'] * 100",
    "text": "lambda x: f\"loss {x[0]['loss']:.4f}\"",
    "printed": "lambda x: print('loss', x[0]['loss'])",
    "clipped": "lambda x: x['loss'] if x['loss'] < 10 else 10",
    "state": "lambda engine: engine.state.metrics",
}
HANDLERS: dict[str, Mapping[str, Any]] = {
    "score": handler(
        "EarlyStopHandler", patience=5,
        score_function="lambda engine: engine.state.metrics['val_mean_dice']"),
    "score-negative": handler(
        "EarlyStopHandler", patience=5,
        score_function="lambda engine: 0 - engine.state.metrics['val_loss']"),
    "images": handler(
        "TensorBoardImageHandler", log_dir="{MMAR_CKPT_DIR}",
        batch_transform="#monai.handlers.from_engine(['image', 'label'])",
        output_transform="#monai.handlers.from_engine(['pred'])"),
    "images-lambda": handler(
        "TensorBoardImageHandler", log_dir="{MMAR_CKPT_DIR}",
        batch_transform="lambda x: (x['image'], x['label'])",
        output_transform="lambda x: x['pred']"),
    "epoch": handler(
        "StatsHandler", output_transform="lambda x: None",
        global_epoch_transform="lambda x: x + 100"),
    "foreground": {"validate/pre_transforms/5": {
        "name": "CropForegroundd", "args": {
            "keys": ["image", "label"], "source_key": "image", "select_fn": "lambda x: x > 0",
            "margin": 4}}},
}  # fmt: skip

BENIGN: tuple[Case, ...] = (
    *(
        Case(id=f"metric-{id_}", family="benign", tries="a metric", rules=(),
             edits={TRAIN: {KEY: text}, VALIDATION: {"key_metric/args/output_transform": text}})
        for id_, text in METRICS.items()
    ),
    *(
        Case(id=f"log-{id_}", family="benign", tries="a log", rules=(),
             edits={TRAIN: {STATS: text}})
        for id_, text in LOGS.items()
    ),
    *(
        Case(id=f"function-{id_}", family="benign", tries="a function", rules=(),
             edits={TRAIN: changes})
        for id_, changes in HANDLERS.items()
    ),
)  # fmt: skip
