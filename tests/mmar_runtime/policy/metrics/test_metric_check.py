"""What a job may name as a metric, and over what; many more are in the corpus of tests/security."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.policy.component_table import load_component_table
from mmar_runtime.policy.metrics.metric_check import USES
from mmar_runtime.policy.mmar_check import check_mmar
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, CrossSite, Outgoing, SitePolicy

FIT = ("grids", "label-interpolated")

Edited = Callable[[Path, Callable[[Any], object]], Path]

LOSS = "#monai.handlers.from_engine(['loss'], first=True)"
PAIR = "#monai.handlers.from_engine(['pred', 'label'])"


@pytest.fixture
def found(tiny_mmar: Path, edited: Edited) -> Callable[..., dict[str, str]]:
    """Place -> message of what is wrong with the training workflow after a change."""

    def check(change: Callable[[Any], object], policy: SitePolicy = DEFAULT_POLICY) -> Any:
        edited(tiny_mmar / "config/config_train.json", change)
        problems = check_mmar(tiny_mmar, policy).problems
        # The tests change one entry alone, and the others then do not fit it.
        return {one.location.place: one.message for one in problems if one.rule not in FIT}

    return check


def more(section: str, name: str, **arguments: Any) -> Callable[[Any], object]:
    spec = {"name": name, "log_label": "val_more", "args": arguments}
    return lambda config: config[section].setdefault("additional_metrics", []).append(spec)


def test_every_class_that_may_leave_is_in_the_table() -> None:
    table = load_component_table()

    found = [table.by_path(path) for path in USES]
    assert {entry and f"{entry.namespace}.{entry.name}" for entry in found} == set(USES)
    assert {entry and entry.kind for entry in found} == {"metric"}


def test_a_mean_is_of_the_loss_alone(found: Callable[..., dict[str, str]]) -> None:
    assert found(more("train", "Average", output_transform=LOSS)) == {}

    image = "#monai.handlers.from_engine(['image'])"
    problems = found(more("train", "Average", output_transform=image))
    assert "Average reports 'image' itself" in problems.values()


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"alpha": 0.9}, None),
        ({"alpha": 0.6}, "RunningAverage: alpha is below 0.9, so that single cases show"),
        ({"src": "@key_metric"}, "RunningAverage: src hides what is averaged"),
    ],
)
def test_a_running_mean_is_of_losses_of_about_the_same_weight(
    found: Callable[..., dict[str, str]], further: dict[str, Any], message: str | None
) -> None:
    problems = found(more("train", "RunningAverage", output_transform=LOSS, **further))

    assert [*problems.values()] == ([] if message is None else [message])


def test_a_class_that_looks_at_one_input_is_refused(found: Callable[..., dict[str, str]]) -> None:
    [message] = found(more("validate", "Entropy", output_transform=PAIR)).values()

    assert message == "Entropy does not compare predictions with labels, so it may not leave"


def test_a_site_reports_so_many_metrics(found: Callable[..., dict[str, str]]) -> None:
    change = more("validate", "MeanDice", output_transform=PAIR, reduction="mean_batch",
                  return_with_label=["liver", "spleen"])  # fmt: skip

    assert found(change) == {}
    few = SitePolicy(outgoing=Outgoing(max_metrics=3))
    [message] = found(lambda config: None, few).values()
    assert "a site reports 3 at most" in message


@pytest.mark.parametrize(
    ("size", "least"),
    [([8, 8, 1], True), ([8, 7, 1], False), (8, True), (7, False), ([-1, 1, 1], True),
     ("#[8, 4 * 2, 1]", True), ("#[8, 8 if 1 else 1, 1]", False)],
)  # fmt: skip
def test_a_region_has_64_values(
    found: Callable[..., dict[str, str]], size: object, least: bool
) -> None:
    crop = {"name": "CenterSpatialCropd", "args": {"keys": ["image", "label"], "roi_size": size}}

    problems = found(lambda config: config["validate"]["pre_transforms"].append(crop))

    assert (problems == {}) is least


@pytest.mark.parametrize(
    ("name", "argument", "good", "bad", "bounds"),
    [("Zoomd", "zoom", 0.5, 0.04, "0.05 to 20"),
     ("RandAffined", "scale_range", [0.5], [-0.96], "-0.95 to 19")],
)  # fmt: skip
def test_no_axis_is_scaled_to_almost_nothing(
    found: Callable[..., dict[str, str]], name: str, argument: str, good: Any, bad: Any, bounds: str
) -> None:
    def scaled(value: Any) -> Callable[[Any], object]:
        made = {"name": name, "args": {"keys": ["image", "label"], argument: value}}
        return lambda config: config["validate"]["pre_transforms"].append(made)

    assert found(scaled(good)) == {}
    message = f"{name}: {argument} has to be from {bounds}"
    assert message in found(scaled(bad)).values()


def test_no_volume_is_resampled_to_a_few_voxels(found: Callable[..., dict[str, str]]) -> None:
    def spacing(step: float) -> Callable[[Any], object]:
        made = {"name": "Spacingd", "args": {"keys": ["image", "label"], "pixdim": [step] * 3}}
        return lambda config: config["validate"]["pre_transforms"].append(made)

    assert found(spacing(50)) == {}
    assert "Spacingd: pixdim has to be from -inf to 50" in found(spacing(51)).values()


def test_a_flat_region_of_a_large_volume_counts_by_itself(
    found: Callable[..., dict[str, str]],
) -> None:
    def crops(*sizes: list[int]) -> Callable[[Any], object]:
        made = [
            {"name": "CenterSpatialCropd", "args": {"keys": ["image", "label"], "roi_size": size}}
            for size in sizes
        ]
        return lambda config: config["validate"]["pre_transforms"].extend(made)

    assert found(crops([64, 64, 64], [8, 8])) == {}
    [message] = found(crops([7, 7])).values()  # behind these two
    assert message == "CenterSpatialCropd: a region of fewer than 64 values may be left"


def test_where_persons_are_counted_epochs_are_whole_and_lists_are_files(
    found: Callable[..., dict[str, str]],
) -> None:
    few = SitePolicy(cross_site=CrossSite(min_cases=2))

    def short(config: Any) -> None:
        config["train"]["trainer"]["args"]["epoch_length"] = 1

    assert found(short) == {}
    [message] = found(lambda config: None, few).values()
    assert "epoch_length stops before the end of the data set" in message

    def written(config: Any) -> None:
        del config["train"]["trainer"]["args"]["epoch_length"]
        arguments = {"data": [], "transform": "@pre_transforms"}
        config["train"]["dataset"] = {"name": "Dataset", "args": arguments}

    assert "Dataset names no data list" in " ".join(found(written, few).values())
