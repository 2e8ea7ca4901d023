"""Configs as people write them: idioms of old MMARs and of new ones. None may be refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.security.case import (
    ENVIRONMENT,
    INFERENCE,
    REPOSITORY,
    TRAIN,
    VALIDATION,
    Case,
    base_files,
)
from tests.security.corpus.archive import with_entry, zipped

OUTPUT = "train/handlers/4/args/output_transform"
CODE_ON = {"policy_version": 1, "byoc": {"mode": "on"}}

EXPRESSIONS: dict[str, str] = {
    "lambda-none": "lambda x: None",
    "lambda-item": "lambda x: x['loss']",
    "lambda-first": "lambda x: x[0]['loss']",
    "lambda-last": "lambda x: x[-1]['loss']",
    "lambda-pair": "lambda x: (x['pred'], x['label'])",
    "lambda-list": "lambda x: [x['pred'], x['label']]",
    "lambda-dict": "lambda x: {'loss': x[0]['loss']}",
    "lambda-blank": "  lambda x: x['loss']  ",
    "lambda-double-quotes": 'lambda x: x["loss"]',
    "lambda-percent": "lambda x: x[0]['loss'] * 100",
    "lambda-negative": "lambda x: 0 - x[0]['loss']",
    "lambda-mean": "lambda x: (x[0]['a'] + x[0]['b']) / 2",
    "lambda-conditional": "lambda x: x['loss'] if x['loss'] < 10 else 10",
    "lambda-compare": "lambda engine: engine.state.epoch > 1 and engine.state.epoch % 2 == 0",
    "lambda-epoch": "lambda engine: engine.state.epoch",
    "lambda-metric": "lambda engine: engine.state.metrics['val_mean_dice']",
    "lambda-output": "lambda engine: engine.state.output[0]['loss']",
    "lambda-not": "lambda x: not x['ready']",
    "lambda-fstring": "lambda x: f\"loss {x[0]['loss']:.4f}\"",
    "lambda-fstring-percent": "lambda x: f\"{x[0]['dice']:.1%} of 100\"",
    "hash-lambda": "#lambda x: x['loss']",
    "from-engine": "#monai.handlers.from_engine(['loss'])",
    "from-engine-first": "#monai.handlers.from_engine(['loss'], first=True)",
    "from-engine-text": "#monai.handlers.from_engine('loss', first=True)",
    "from-engine-short": "#from_engine(['loss'], True)",
    "from-engine-keywords": "#from_engine(keys=['loss'], first=False)",
    "print": "lambda x: print('loss', x[0]['loss'])",
}

CHANGES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "parameters-reference": ("params by an expression",
                             {TRAIN: {"train/optimizer/args/params": "#@model.parameters()"}}),
    "named-dtype": ("a dtype by its name", {TRAIN: {"train/pre_transforms/-": {
        "name": "CastToTyped", "args": {"keys": "image", "dtype": "#torch.float32"}}}}),
    "numpy-dtype": ("a dtype of numpy", {TRAIN: {"train/pre_transforms/-": {
        "name": "CastToTyped", "args": {"keys": "image", "dtype": "#np.float32"}}}}),
    "expression-list": ("a list by an expression",
                        {TRAIN: {"train/model/args/channels": "#[4, 8, 16]"}}),
    "expression-arithmetic": ("a size that is computed",
                              {TRAIN: {"train/model/args/out_channels": "#1 + 1"}}),
    "expression-conditional": ("a size by a condition",
                               {TRAIN: {"train/model/args/out_channels": "#2 if True else 3"}}),
    "variable-in-text": ("a variable inside a path",
                         {TRAIN: {"train/handlers/3/args/save_dir": "{MMAR_CKPT_DIR}/fold_{fold}",
                                  "fold": 1}}),
    "variable-typed": ("a number by a variable", {TRAIN: {
        "batch_size": 2, "train/dataloader/args/batch_size": "{batch_size}"}}),
    "variable-boolean": ("a switch by a variable", {TRAIN: {
        "off": True, "train/handlers/4/disabled": "{off}"}}),
    "variable-null": ("null as a variable of the environment",
                      {ENVIRONMENT: {"weight": None}, TRAIN: {
                          "train/loss/args/weight": "{weight}"}}),
    "variable-float": ("a rate in the environment", {ENVIRONMENT: {"learning_rate": 1e-5}}),
    "double-braces": ("braces that are text",
                      {TRAIN: {"train/handlers/4/args/tag_name": "loss {{mean}}"}}),
    "hash-inside": ("a # inside a text", {TRAIN: {"train/handlers/4/args/tag_name": "loss #1"}}),
    "at-inside": ("an @ inside a text", {TRAIN: {"train/handlers/4/args/tag_name": "dice@0.5"}}),
    "lambda-inside": ("lambda inside a text",
                      {TRAIN: {"train/handlers/4/args/tag_name": "lambda_scale"}}),
    "umlaut": ("a text that is not English",
               {TRAIN: {"train/handlers/4/args/tag_name": "Gr\u00f6\u00dfe \u2013 \u640d\u5931"}}),
    "comment-variable": ("a note at the top", {TRAIN: {"note": "trained on 3 sites; see docs"}}),
    "network-by-path": ("a class of the table by its path", {TRAIN: {"train/model": {
        "path": "monai.networks.nets.UNet",
        "args": {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8],
                 "strides": [2]}}}}),
    "loss-by-defining-path": ("a class by the module that defines it", {TRAIN: {
        "train/loss/path": "monai.losses.dice.DiceLoss"}}),
    "alias-spelling": ("a transform with a capital D", {TRAIN: {"train/pre_transforms/-": {
        "name": "RandFlipD", "args": {"keys": ["image", "label"], "prob": 0.5}}}}),
    "dict-spelling": ("a transform with Dict", {TRAIN: {"train/pre_transforms/-": {
        "name": "RandFlipDict", "args": {"keys": ["image", "label"], "prob": 0.5}}}}),
    "compose": ("a Compose inside the list", {TRAIN: {"train/pre_transforms/-": {
        "name": "Compose", "args": {"transforms": [
            {"name": "RandFlipd", "args": {"keys": "image"}}]}}}}),
    "one-of": ("one of two transforms", {TRAIN: {"train/pre_transforms/-": {
        "name": "OneOf", "args": {"transforms": [
            {"name": "RandFlipd", "args": {"keys": "image"}},
            {"name": "RandRotate90d", "args": {"keys": "image"}}], "weights": [0.5, 0.5]}}}}),
    "alias-ref": ("a ref by an alias", {TRAIN: {"validate/pre_transforms/0": {"ref": "load"}}}),
    "disabled-handler": ("a handler that is off", {TRAIN: {"train/handlers/4/disabled": True}}),
    "ranked-handler": ("a handler of one process", {TRAIN: {"train/handlers/4/rank": 0}}),
    "norm-tuple": ("a norm with arguments", {TRAIN: {"train/model/args/norm": [
        "GROUP", {"num_groups": 2}]}}),
    "act-tuple": ("an activation with arguments", {TRAIN: {"train/model/args/act": [
        "LEAKYRELU", {"inplace": True, "negative_slope": 0.01}]}}),
    "name-in-plain-object": ("an object with a name that is no component", {TRAIN: {
        "train/model/args/norm": ["INSTANCE", {"affine": True}]}}),
    "other-network": ("another network", {TRAIN: {"train/model": {"name": "SegResNet", "args": {
        "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "init_filters": 8}}}}),
    "other-loss": ("another loss", {TRAIN: {"train/loss": {
        "name": "DiceCELoss", "args": {"to_onehot_y": True, "softmax": True}}}}),
    "other-optimizer": ("another optimizer", {TRAIN: {"train/optimizer": {
        "name": "Novograd", "args": {"params": "#@model.parameters()", "lr": 0.001}}}}),
    "other-schedule": ("another schedule", {TRAIN: {"train/lr_scheduler": {
        "name": "CosineAnnealingLR", "args": {"optimizer": "@optimizer", "T_max": 10}}}}),
    "reader": ("a named reader", {TRAIN: {"train/pre_transforms/0/args/reader": "NibabelReader"}}),
    "dunderless-key": ("keys with single underscores", {TRAIN: {
        "train/handlers/4/args/tag_name": "train_loss_"}}),
    "save-interval": ("a save interval", {TRAIN: {"train/handlers/3/args/save_interval": 10}}),
    "early-stop": ("an early stop", {TRAIN: {"validate/handlers/-": {
        "name": "EarlyStopHandler",
        "args": {"patience": 5,
                 "score_function": "lambda engine: engine.state.metrics['val_mean_dice']"}}}}),
    "no-validation": ("a training without validation", {TRAIN: {
        "validate": {}, "train/handlers/2/disabled": True}}),
    "big-numbers": ("numbers at their ends", {TRAIN: {
        "determinism/random_seed": 2**32 - 1, "learning_rate": 1e-12}}),
    "inference-ckpt": ("an inference from a checkpoint", {INFERENCE: {
        "dont_load_ts_model": True, "dont_load_ckpt_model": False}}),
    "unused-mmar-variable": ("a variable of its own below the MMAR",
                             {ENVIRONMENT: {"MMAR_EXPORTS": "models/exports"}}),
    "author-paths": ("the author's own folders", {ENVIRONMENT: {
        "DATA_ROOT": "/home/somebody/data", "DATASET_JSON": "C:\\data\\list.json"}}),
    "validation-metric": ("a metric more", {VALIDATION: {"additional_metrics/-": {
        "name": "HausdorffDistance", "log_label": "val_hd",
        "args": {"output_transform": "#monai.handlers.from_engine(['pred', 'label'])"}}}}),
}  # fmt: skip

OLD: dict[str, tuple[str, dict[str, Any]]] = {
    "old-optimizer": ("an optimizer without params", {"train/optimizer/args/lr": 0.01}),
    "old-list-save-dict": (
        "what to save as an array",
        {"train/handlers/4/args/save_dict": ["model", "train_conf"]},
    ),
    "old-dimensions": ("dimensions in place of spatial_dims", {"train/model/args/dimensions": 3}),
    "old-add-channel": (
        "AddChanneld, which is gone",
        {"train/pre_transforms/1": {"name": "AddChanneld", "args": {"keys": ["image", "label"]}}},
    ),
    "old-meta-keys": (
        "where the metadata was",
        {"train/pre_transforms/3": {"name": "Orientationd", "args": {
            "keys": "image", "axcodes": "RAS", "meta_keys": "image_meta_dict",
            "meta_key_postfix": "meta_dict"}}},
    ),
    "old-swin-unetr": (
        "a size of images that no longer matters",
        {"train/model": {"name": "SwinUNETR", "args": {
            "img_size": [32, 32, 32], "in_channels": 1, "out_channels": 2, "feature_size": 12}}},
    ),
    "old-unetr": (
        "an embedding of patches by its old name",
        {"train/model": {"name": "UNETR", "args": {
            "img_size": [32, 32, 32], "in_channels": 1, "out_channels": 2, "pos_embed": "conv"}}},
    ),
    "old-intervals": (
        "how often a handler writes",
        {"train/handlers/5": {"name": "TensorBoardStatsHandler", "args": {
            "log_dir": "{MMAR_CKPT_DIR}", "iteration_interval": 5, "epoch_interval": 1,
            "output_transform": "lambda x: x['loss']"}}},
    ),
    "old-metrics": ("metrics in one array", {"validate/metrics/0/args/include_background": True}),
    "old-output": (
        "an output as a lambda",
        {"train/handlers/5/args/output_transform": "lambda x: x['loss']"},
    ),
}  # fmt: skip

FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "data-list-beside": ("a data list beside the configs",
                         {"config/dataset_0.json": '{"training": [{"image": "a.nii.gz"}]}'}),
    "bom": ("a mark of byte order", {TRAIN: lambda: b"\xef\xbb\xbf" + base_files("mmar")[TRAIN]}),
    "windows-lines": ("lines as Windows ends them",
                      {TRAIN: lambda: base_files("mmar")[TRAIN].replace(b"\n", b"\r\n")}),
    "no-log-config": ("no log.config", {"resources/log.config": "[loggers]\nkeys=root\n[handlers]\n"
                      "keys=\n[formatters]\nkeys=\n[logger_root]\nlevel=INFO\nhandlers=\n"}),
    "log-two-handlers": ("two handlers", {"resources/log.config": "[loggers]\nkeys=root,monai\n"
                         "[handlers]\nkeys=a,b\n[formatters]\nkeys=f\n[logger_root]\nlevel=DEBUG\n"
                         "handlers=a,b\n[logger_monai]\nlevel=WARN\nhandlers=b\nqualname=monai\n"
                         "propagate=0\n[handler_a]\nclass=logging.StreamHandler\nlevel=INFO\n"
                         "formatter=f\nargs=(sys.stdout, )\n[handler_b]\nclass=StreamHandler\n"
                         "formatter=f\nargs=()\n[formatter_f]\n"
                         "format=%(asctime)-15s %(levelname)8s %(message)s\ndatefmt=%Y-%m-%d\n"}),
}  # fmt: skip


def _repository() -> Iterator[Case]:
    """Every MMAR and every job of this repository."""
    for config in sorted((REPOSITORY / "tests/mmars").glob("*/config")):
        root = config.parent
        yield Case(
            id=f"repository-{root.name}",
            family="benign",
            tries="an MMAR of this repository",
            rules=(),
            base=str(root.relative_to(REPOSITORY)),
            policy=CODE_ON if (root / "custom").is_dir() else None,
        )
    for meta in sorted((REPOSITORY / "jobs").glob("*/meta.json")):
        for packed in (False, True):
            yield Case(
                id=f"repository-{meta.parent.name}{'-zip' if packed else ''}",
                family="benign",
                tries="a job of this repository",
                rules=(),
                base=str(meta.parent.relative_to(REPOSITORY)),
                pack=(lambda tree, path: path.write_bytes(zipped(tree)) and None)
                if packed
                else None,
            )


BENIGN: tuple[Case, ...] = (
    *(
        Case(id=f"expression-{id_}", family="benign", tries=text, rules=(),
             edits={TRAIN: {OUTPUT: text}})
        for id_, text in EXPRESSIONS.items()
    ),
    *(
        Case(id=id_, family="benign", tries=tries, rules=(), edits=edits)
        for id_, (tries, edits) in CHANGES.items()
    ),
    *(
        Case(id=id_, family="benign", tries=tries, rules=(), base="old", edits={TRAIN: changes})
        for id_, (tries, changes) in OLD.items()
    ),
    *(
        Case(id=id_, family="benign", tries=tries, rules=(), files=files)
        for id_, (tries, files) in FILES.items()
    ),
    Case(id="one-workflow", family="benign", tries="one workflow", rules=(), target=TRAIN),
    Case(id="weights-in-zip", family="benign", tries="a job with weights", rules=(), base="job",
         pack=with_entry("app/models/model.pt", b"weights")),
    Case(id="code-where-allowed", family="benign", tries="code where the site allows it", rules=(),
         base="job", files={"app/custom/own.py": "x = 1\n"}, policy=CODE_ON),
    Case(id="set", family="benign", tries="a value by --set", rules=(),
         overrides=["learning_rate=0.1", "epochs=2"]),
    *_repository(),
)  # fmt: skip
