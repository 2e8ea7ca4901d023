"""What metrics, losses and savers compare, where a number would be of something else."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mmar_runtime.config.consistency import has_own_engine, metric_labels
from mmar_runtime.config.expressions import from_engine_keys
from mmar_runtime.config.fit import CLASS_METRICS, metrics_of
from mmar_runtime.config.grids import argument_of, loaded_keys, texts_of, title_of, transforms_of
from mmar_runtime.config.nodes import ComponentSpec, Expression, MapNode, referenced_names
from mmar_runtime.config.predictions import ACTIVATION, DISCRETE, predictions_of
from mmar_runtime.config.sections import Section, TrainConfig, WorkflowConfig
from mmar_runtime.errors import Problem, did_you_mean
from mmar_runtime.policy.component_check import table_entry
from mmar_runtime.policy.metrics.metric_check import USES

RULE = "compared"

OF_SCORES = frozenset({"AveragePrecision", "ROCAUC"})
"""Metrics that rank the scores of cases."""

ACTIVATED = ("Dice", "GeneralizedDiceLoss", "Tversky")
"""How the names of losses begin that compare fractions with a label."""

ACTIVATIONS = ("sigmoid", "softmax", "other_act")
RATES = frozenset(
    {
        "sensitivity", "recall", "hit_rate", "true_positive_rate", "tpr", "specificity",
        "selectivity", "true_negative_rate", "tnr", "precision", "positive_predictive_value", "ppv",
        "negative_predictive_value", "npv", "miss_rate", "false_negative_rate", "fnr", "fall_out",
        "false_positive_rate", "fpr", "false_discovery_rate", "fdr", "false_omission_rate", "for",
        "prevalence_threshold", "pt", "threat_score", "critical_success_index", "ts", "csi",
        "accuracy", "acc", "balanced_accuracy", "ba", "f1_score", "f1",
        "matthews_correlation_coefficient", "mcc", "fowlkes_mallows_index", "fm", "informedness",
        "bookmaker_informedness", "bm", "youden_index", "youden", "markedness", "deltap", "mk",
    }
)  # fmt: skip
"""What ``metric_name`` of MONAI's ConfusionMatrix may be, with spaces or underscores."""


def comparison_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield what would be measured, trained or kept by a number of something else."""
    for section in config.scopes.values():
        yield from _saver_faults(section)
        yield from _plateau_faults(section)
        if has_own_engine(section):
            continue
        written = {
            text
            for spec in transforms_of(section, "post_transforms")
            for name in spec.args.items
            for text in texts_of(spec, name)
        }
        for spec in (*section.specs("key_metric"), *section.specs("additional_metrics")):
            yield from _entry_faults(spec, written)
            yield from _rate_faults(spec)
        yield from _score_faults(section)
    if isinstance(config, TrainConfig):
        yield from _loss_faults(config)
        for section in config.scopes.values():
            yield from _label_faults(config, section)


# --- Metrics -------------------------------------------------------------------------------------


def _entry_faults(spec: ComponentSpec, written: Collection[str]) -> Iterator[Problem]:
    """Yield a metric that compares an entry with nothing else, or masks with an image.

    Of the entries that are ``written`` by post transforms, nobody knows what they are.
    """
    output = spec.args.items.get("output_transform")
    keys = from_engine_keys(output.tree) if isinstance(output, Expression) else None
    entry = table_entry(spec, "metric")
    if keys is None or entry is None or USES.get(f"{entry.namespace}.{entry.name}") != "compares":
        return
    place, advice = spec.args.location / "output_transform", "Write from_engine(['pred', 'label'])."
    if len(keys) == 1:
        message = f"{spec.title} compares two entries, and this gives {keys[0]!r} alone"
        yield Problem(place, message, advice, RULE)
    elif spec.title in CLASS_METRICS and keys[1:] == ("image",) and "image" not in written:
        message = f"{spec.title} compares masks, and 'image' is none"
        yield Problem(place, message, advice, RULE)


def _rate_faults(spec: ComponentSpec) -> Iterator[Problem]:
    if spec.title != "ConfusionMatrix":
        return
    for name in texts_of(spec, "metric_name"):
        if name.lower().replace(" ", "_") not in RATES:
            message = f"ConfusionMatrix knows no rate {name!r}"
            place = spec.args.location / "metric_name"
            yield Problem(place, message, did_you_mean(name, RATES), RULE)


def _score_faults(section: Section) -> Iterator[Problem]:
    """Yield a ranking of voxels, or of predictions that are decided already."""
    stages, loaded = predictions_of(section, None), loaded_keys(section)
    for spec, pred, label in metrics_of(section):
        if spec.title not in OF_SCORES:
            continue
        place = spec.args.location / "output_transform"
        if label in loaded:
            message = f"{spec.title} takes one score per case, and {label!r} has voxels"
            advice = "For masks use MeanDice."
            yield Problem(place, message, advice, RULE)
        elif pred in stages and stages[pred][-1].meaning in ("classes", "one-hot", "mask"):
            by = stages[pred][-1].by
            where = "" if by is None else f" ({by.location.place})"
            message = f"{spec.title} ranks scores, and {pred!r} is decided by then{where}"
            advice = "Give it the prediction as it is after softmax or sigmoid."
            yield Problem(place, message, advice, RULE)


def _label_faults(config: TrainConfig, section: Section) -> Iterator[Problem]:
    """Yield an argmax over the single channel of a label."""
    single = any(
        argument_of(loss, "", "to_onehot_y") is True for loss in config.train.specs("loss")
    )
    for spec in transforms_of(section, "post_transforms") if single else ():
        if title_of(spec) != DISCRETE or "label" not in texts_of(spec, "keys"):
            continue
        if argument_of(spec, "label", "argmax") is True:
            keys = [key != "label" for key in texts_of(spec, "keys")]
            listed = "false" if len(keys) == 1 else str(keys).lower()
            yield Problem(
                spec.args.location / "argmax",
                "argmax of the single channel of 'label' is 0 everywhere",
                f"Write {listed}, one for each of the keys.",
                RULE,
            )


# --- Losses --------------------------------------------------------------------------------------


def _loss_faults(config: TrainConfig) -> Iterator[Problem]:
    """Yield a loss of fractions that gets what the network leaves, as the post transforms show."""
    if any(network.path is not None for network in config.train.specs("model")):
        return
    activations = [
        spec
        for section in config.scopes.values()
        for spec in transforms_of(section, "post_transforms")
        if title_of(spec) == ACTIVATION and "pred" in texts_of(spec, "keys")
    ]
    for loss in config.train.specs("loss"):
        given = any(argument_of(loss, "", name) not in (None, False) for name in ACTIVATIONS)
        if not activations or given or not loss.title.startswith(ACTIVATED) or loss.path:
            continue
        name = "softmax" if argument_of(activations[0], "pred", "softmax") is True else "sigmoid"
        message = (
            f"{loss.title} compares fractions, and gets 'pred' as the network leaves it: "
            f"{name} comes after it ({activations[0].location.place})"
        )
        yield Problem(loss.location, message, f'Write "{name}": true in its args.', RULE)


# --- What compares models ------------------------------------------------------------------------


def _saver_faults(section: Section) -> Iterator[Problem]:
    """Yield savers of the best model that do not go by the key metric, and savers of no weights."""
    labels = metric_labels(section)
    keys = [spec.log_label for spec in section.specs("key_metric")]
    engines = (*section.specs("trainer"), *section.specs("evaluator"))
    measured = any(
        {"key_val_metric", "key_train_metric"} & spec.args.items.keys() for spec in engines
    )
    for spec in section.specs("handlers"):
        if spec.title != "CheckpointSaver":
            continue
        yield from _weightless(spec)
        if argument_of(spec, "", "save_key_metric") is not True:
            continue
        own_engine = any(engine.path for engine in engines)
        place = spec.args.location / "key_metric_name"
        named = argument_of(spec, "", "key_metric_name")
        if not measured and not own_engine:
            message = "keeps the best model, and the engine of this section has no key metric"
            advice = "Name it as key_val_metric of the evaluator, or take save_key_metric out."
            yield Problem(spec.args.location / "save_key_metric", message, advice, RULE)
        elif isinstance(named, str) and named not in labels and labels:
            message = f"no metric of this section is called {named!r}"
            yield Problem(place, message, did_you_mean(named, labels), RULE)
        elif isinstance(named, str) and keys and named not in keys:
            message = f"the best model is that of the key metric, {keys[0]!r}, and not of {named!r}"
            advice = f"Make {named!r} the key_metric, or take key_metric_name out."
            yield Problem(place, message, advice, RULE)


def _weightless(spec: ComponentSpec) -> Iterator[Problem]:
    saved = spec.args.items.get("save_dict")
    if isinstance(saved, MapNode) and {name for name, _ in referenced_names(saved)} <= {"conf"}:
        message = "has no network, so the files would hold no weights"
        yield Problem(saved.location, message, 'Add "model": "@model".', RULE)


def _plateau_faults(section: Section) -> Iterator[Problem]:
    """Yield a schedule that waits for a plateau of a number, and gets none."""
    titles = {spec.title for spec in section.specs("lr_scheduler")}
    for spec in section.specs("handlers") if titles == {"ReduceLROnPlateau"} else ():
        if spec.title == "LrScheduleHandler" and "step_transform" not in spec.args.items:
            message = "ReduceLROnPlateau follows a number, and step_transform gives none"
            advice = (
                "Put the handler into the validate section with step_transform "
                "\"lambda engine: engine.state.metrics['val_mean_dice']\", by its own key metric."
            )
            yield Problem(spec.args.location / "step_transform", message, advice, RULE)
