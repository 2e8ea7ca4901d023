"""Documents of Clara Train 3.x: told in one sentence, with the place that gives them away."""

from __future__ import annotations

from typing import Any

import pytest

from mmar_runtime.config.upgrades import upgrade_document
from mmar_runtime.errors import ConfigError

TRANSFORM_3 = {"name": "LoadNifti", "args": {"fields": ["image", "label"]}}
OWN_TRANSFORM = {"path": "own.Select", "args": {"fields": ["image"]}}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"num_training_epoch_per_valid": 20, "train": {}}, "num_training_epoch_per_valid"),
        ({"train": {"image_pipeline": {"name": "Pipeline"}}}, "train.image_pipeline"),
        ({"validate": {"image_pipeline": {"name": "Pipeline"}}}, "validate.image_pipeline"),
        ({"image_pipeline": {"name": "Pipeline"}}, "image_pipeline"),
        (
            {"train": {"pre_transforms": [TRANSFORM_3], "loss": {"name": "Dice"}}},
            "train.pre_transforms[0].args.fields",
        ),
    ],
)
def test_a_document_of_tensorflow_is_told_in_one_sentence(
    document: dict[str, Any], place: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        upgrade_document(document, "config_train.json")

    [problem] = caught.value.problems
    assert str(problem).splitlines()[0] == (
        f"config_train.json: {place}: is how Clara Train 3.x said it, which ran on TensorFlow"
    )


@pytest.mark.parametrize(
    "document",
    [
        {"train": {"pre_transforms": [OWN_TRANSFORM]}},
        {"train": {"pre_transforms": [{"name": "LoadImaged", "args": {"keys": "image"}}]}},
        {"train": "image_pipeline"},
        {"train": {"pre_transforms": [None, 3, {"args": None}]}},
    ],
)
def test_other_documents_are_not_taken_for_one(document: dict[str, Any]) -> None:
    upgrade_document(document, "config_train.json")
