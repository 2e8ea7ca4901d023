"""An evaluation beside the training of its MMAR: network, preparation, names of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmar_runtime.config.consistency import has_own_engine
from mmar_runtime.config.fit import Finding, metrics_of
from mmar_runtime.config.grids import (
    INTERPOLATING,
    Grids,
    argument_of,
    canonical,
    differ,
    odd_steps,
    texts_of,
    title_of,
    transforms_of,
)
from mmar_runtime.config.nodes import ComponentSpec, plain
from mmar_runtime.config.sections import EvaluationConfig, Section, TrainConfig

BOOKKEEPING = frozenset(
    {
        "", "AddChanneld", "AsChannelFirstd", "CastToTyped", "CopyItemsd", "DeleteItemsd",
        "EnsureChannelFirstd", "EnsureTyped", "FlattenSubKeysd", "LoadImaged", "SelectItemsd",
        "ToTensord",
    }
)  # fmt: skip
"""Transforms that change no value of an image; and the MMAR's own, of which nothing is known."""

NO_VALUES = frozenset({"allow_missing_keys", "keys", "lazy", "meta_key_postfix", "meta_keys"})
NO_WEIGHTS = ("dropout", "drop_rate")
"""How arguments of networks begin that change nothing in an evaluation."""


def findings(evaluation: EvaluationConfig, training: TrainConfig) -> Iterator[Finding]:
    """Yield where an evaluation does otherwise than the training of the same MMAR."""
    yield from _networks(evaluation, training)
    yield from preparation(evaluation.section, training.validate or training.train)
    if training.validate is not None:
        yield from _measures(evaluation.section, training.validate)


def _networks(evaluation: EvaluationConfig, training: TrainConfig) -> Iterator[Finding]:
    own = evaluation.section.entries.get("model")
    trained = training.train.specs("model")
    if not isinstance(own, ComponentSpec) or not trained:
        return
    if has_own_engine(evaluation.section):
        return  # such as an ensemble, which has several
    [network, *_] = trained
    if own.title != network.title:
        different = f"{own.title} in place of {network.title}"
    else:
        one, other = plain(own.args), plain(network.args)
        shared = [name for name in one if name in other and not name.startswith(NO_WEIGHTS)]
        different = ", ".join(
            f"{name} {one[name]!r} in place of {other[name]!r}"
            for name in shared
            if one[name] != other[name]
        )
    if different:
        yield Finding(
            rule="network",
            place=own.location,
            message=f"another network than in training ({network.location}): {different}",
            advice="Copy 'model' of the train section here.",
            certain=not _has_own_weights(evaluation, training),
        )


def _has_own_weights(evaluation: EvaluationConfig, training: TrainConfig) -> bool:
    """Return whether an evaluation loads weights from elsewhere than where the training writes."""
    folder = Path(str(training.value("MMAR_CKPT_DIR")))
    loaders = (s for s in evaluation.section.specs("handlers") if s.name == "CheckpointLoader")
    files = (
        plain(spec.args.items["load_path"]) for spec in loaders if "load_path" in spec.args.items
    )
    return any(Path(str(file)).parent != folder for file in files)


# --- Preparation ---------------------------------------------------------------------------------


def preparation(section: Section, reference: Section) -> Iterator[Finding]:
    """Yield where a section prepares images otherwise than one by which models are scored."""
    here, there = _image_steps(section), _image_steps(reference)
    if list(here) == list(there):
        return
    only_here = [spec for values, spec in here.items() if values not in there]
    only_there = [spec for values, spec in there.items() if values not in here]
    by_title = {title_of(spec): spec for spec in reversed(only_there)}
    changed = next((spec for spec in only_here if title_of(spec) in by_title), None)
    one = changed or next(iter(only_here), None)
    other = by_title[title_of(changed)] if changed else next(iter(only_there), None)
    if one is not None and other is not None and changed:
        what = _difference(one, other)
    elif one is None and other is None:
        what = "in another order, or another number of times"
    else:
        named = ((one, "here"), (other, "there"))
        what = ", ".join(f"{title_of(spec)} only {where}" for spec, where in named if spec)
    yield Finding(
        rule="preparation",
        place=one.location if one else section.location / "pre_transforms",
        message="images are prepared otherwise than in training "
        f"({other.location if other else reference.location / 'pre_transforms'}): {what}",
        advice="Write equal transforms, unless that is meant.",
        certain=False,
    )


def _image_steps(section: Section) -> dict[str, ComponentSpec]:
    """Return the transforms that change an image, the random ones apart, by what they do."""
    return {
        canonical(_values(spec)): spec
        for spec in transforms_of(section, "pre_transforms")
        if "image" in texts_of(spec, "keys")
        and title_of(spec) not in BOOKKEEPING
        and not title_of(spec).startswith("Rand")
    }


def _values(spec: ComponentSpec) -> Mapping[str, Any]:
    """Return what a transform does with images, in values that can be compared."""
    title = title_of(spec)
    names = [name for name in spec.args.items if name not in NO_VALUES]
    values = {name: argument_of(spec, "image", name) for name in names}
    if title in INTERPOLATING:
        values.setdefault("mode", INTERPOLATING[title])
    return {"name": title, **values}


def _difference(one: ComponentSpec, other: ComponentSpec) -> str:
    here, there = _values(one), _values(other)
    names = [name for name in {**here, **there} if here.get(name, None) != there.get(name, None)]
    listed = ", ".join(
        f"{name} {_shown(here, name)} in place of {_shown(there, name)}" for name in names
    )
    return f"{title_of(one)} with {listed}"


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "its default"


# --- Names of metrics ----------------------------------------------------------------------------


def _measures(section: Section, reference: Section) -> Iterator[Finding]:
    """Yield names of metrics that mean another measure than in the training's validation."""
    known = {spec.log_label: (spec, pred, label) for spec, pred, label in metrics_of(reference)}
    here, there = Grids.at_metrics(section), Grids.at_metrics(reference)
    other_grid: list[ComponentSpec] = []
    for spec, pred, label in metrics_of(section):
        if spec.log_label not in known:
            continue
        other, other_pred, other_label = known[spec.log_label]
        if different := _other_metric(spec, other):
            yield Finding(
                rule="measure",
                place=spec.location,
                message=f"{spec.log_label} is another measure in training ({other.location}): "
                f"{different}",
                advice="Give one of them another log_label.",
                certain=False,
            )
        elif differ(here.of(label), there.of(other_label)) or differ(
            here.of(pred), there.of(other_pred)
        ):
            other_grid.append(spec)
    if other_grid:
        first = other_grid[0]
        other, _, other_label = known[first.log_label]
        label = next(label for spec, _, label in metrics_of(section) if spec is first)
        steps = odd_steps(there.of(other_label), here.of(label))
        more = odd_steps(here.of(label), there.of(other_label))
        named = [f"{step.title} there only" for step in steps]
        named += [f"{step.title} here only" for step in more]
        names = ", ".join(spec.log_label or spec.title for spec in other_grid)
        yield Finding(
            rule="measure",
            place=first.location,
            message=f"{names}: measured on another grid than in training ({other.location}): "
            f"{', '.join(named) or 'the prediction is brought back in one of them'}",
            advice="Compare such numbers only among themselves.",
            certain=False,
        )


def _other_metric(one: ComponentSpec, other: ComponentSpec) -> str:
    if one.title != other.title:
        return f"{one.title} here, {other.title} there"
    here, there = (
        {name: plain(node) for name, node in spec.args.items.items() if name != "output_transform"}
        for spec in (one, other)
    )
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    return ", ".join(
        f"{name} {_shown(here, name)} here, {_shown(there, name)} there" for name in names
    )
