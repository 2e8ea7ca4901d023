"""The wrappers for old code: what they show it, and what they make of its answer."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.transforms import Compose, Flip, RandomizableTrait

from mmar_runtime.components.compat import (
    BatchOutputHandler,
    NumpyTransform,
    RandomNumpyTransform,
    batch_output_handler,
    numpy_transform,
)
from mmar_runtime.errors import ComponentError

AFFINE = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))


def image() -> MetaTensor:
    values = torch.arange(8.0).reshape(1, 2, 2, 2)
    return MetaTensor(values, affine=AFFINE, meta={"filename_or_obj": "case_1"})


# --- Transforms ----------------------------------------------------------------------------------


def test_inside_there_are_arrays_with_their_metadata_beside_them() -> None:
    seen: dict[str, Any] = {}

    def look(data: dict[str, Any]) -> dict[str, Any]:
        seen.update(data)
        return data

    NumpyTransform(look)({"image": image(), "mask": torch.ones(1), "name": "case_1"})
    assert type(seen["image"]) is type(seen["mask"]) is np.ndarray
    assert seen["name"] == "case_1"
    assert seen["image_meta_dict"]["filename_or_obj"] == "case_1"
    assert np.array_equal(seen["image_meta_dict"]["affine"], AFFINE.numpy())
    assert "mask_meta_dict" not in seen


def test_outside_an_image_is_one_again() -> None:
    before = image()
    before.applied_operations = [{"class": "Earlier"}]
    result = NumpyTransform(lambda data: {**data, "image": data["image"] + 1})(
        {"image": before, "name": "case_1"}
    )
    assert sorted(result) == ["image", "name"]
    assert isinstance(result["image"], MetaTensor)
    assert torch.equal(result["image"].as_tensor(), before.as_tensor() + 1)
    assert torch.equal(result["image"].affine, AFFINE)
    assert result["image"].meta["filename_or_obj"] == "case_1"
    assert result["image"].applied_operations == [{"class": "Earlier"}]
    assert "extra" not in before.meta


def test_a_tensor_without_metadata_stays_one() -> None:
    result = NumpyTransform(lambda data: {"mask": data["mask"] + 1})({"mask": torch.ones(2)})
    assert type(result["mask"]) is torch.Tensor


def test_what_is_changed_in_the_metadata_stays() -> None:
    def coarser(data: dict[str, Any]) -> dict[str, Any]:
        data["image_meta_dict"]["affine"] = np.diag([4.0, 4.0, 4.0, 1.0])
        data["image_meta_dict"]["note"] = "coarser"
        return {**data, "image": data["image"][:, ::2, ::2, ::2]}

    before = image()
    result = NumpyTransform(coarser)({"image": before})
    assert torch.equal(result["image"].affine.diagonal(), torch.tensor([4.0, 4, 4, 1]).double())
    assert result["image"].meta["note"] == "coarser"
    assert result["image"].shape == (1, 1, 1, 1)
    assert torch.equal(before.affine, AFFINE)


def test_a_dictionary_of_metadata_that_was_there_stays_there() -> None:
    result = NumpyTransform(dict)({"image": image(), "image_meta_dict": {}})
    assert "image_meta_dict" in result


def test_arrays_with_flipped_axes_and_new_keys_pass() -> None:
    result = NumpyTransform(
        lambda data: {**data, "image": data["image"][:, ::-1], "score": np.float32(1)}
    )({"image": image()})
    assert torch.equal(result["image"], Flip(0)(image()))
    assert result["score"] == 1


def test_crops_are_a_list() -> None:
    crops = NumpyTransform(lambda data: [data, data])({"image": image()})
    assert [type(crop["image"]) for crop in crops] == [MetaTensor, MetaTensor]


def test_a_transform_of_single_images() -> None:
    result = NumpyTransform(lambda array: array.astype(np.float64) * 2)(image())
    assert isinstance(result, MetaTensor)
    assert result.dtype == torch.float64
    assert torch.equal(result.affine, AFFINE)


OLD = """
import numpy as np
from monai.transforms import MapTransform, Randomizable

class Scale(MapTransform):
    def __init__(self, keys, by=2):
        super().__init__(keys)
        self.by = by

    def __call__(self, data):
        return {**data, **{key: np.multiply(data[key], self.by) for key in self.keys}}

class Noise(Randomizable, MapTransform):
    def __call__(self, data):
        return {**data, **{key: data[key] + self.R.rand() for key in self.keys}}
"""


@pytest.fixture
def old_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "old_parts_of_compat.py").write_text(OLD)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "old_parts_of_compat"


def test_a_transform_is_found_by_its_path(old_module: str) -> None:
    transform = numpy_transform(f"{old_module}.Scale", {"keys": ["image"], "by": 3})
    assert torch.equal(transform({"image": image()})["image"], 3 * image())


def test_only_a_random_transform_is_random(old_module: str) -> None:
    """A data set that caches, caches what comes before the first random transform."""
    fixed = numpy_transform(f"{old_module}.Scale", {"keys": ["image"]})
    random = numpy_transform(f"{old_module}.Noise", {"keys": ["image"]})
    assert not isinstance(fixed, RandomizableTrait)
    assert isinstance(random, RandomizableTrait)
    results = []
    for _ in range(2):
        chain = Compose([fixed, random])
        chain.set_random_state(seed=7)
        results.append(chain({"image": image()})["image"])
    assert torch.equal(*results)


def test_it_can_be_handed_to_another_process(old_module: str) -> None:
    random = numpy_transform(f"{old_module}.Noise", {"keys": ["image"]})
    again = pickle.loads(pickle.dumps(random))  # noqa: S301  # what a DataLoader's process does
    assert isinstance(again, RandomNumpyTransform)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Scale", "'Scale' is not a path; write module.Class"),
        ("nowhere_to_be_found.Scale", "No module named 'nowhere_to_be_found'"),
        ("old_parts_of_compat.Scal", "has no 'Scal'. Did you mean 'Scale'?"),
    ],
)
def test_a_path_that_leads_nowhere_is_explained(old_module: str, path: str, message: str) -> None:
    with pytest.raises(ComponentError) as raised:
        numpy_transform(path)
    assert message in str(raised.value)
    with pytest.raises(ComponentError):
        batch_output_handler(path)


# --- Handlers ------------------------------------------------------------------------------------


class Look:
    """Registers in both of ignite's ways."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self, "added")

        @engine.on(Events.ITERATION_COMPLETED(every=2))
        def decorated(engine: Engine) -> None:
            self(engine, "decorated")

    def __call__(self, engine: Engine, how: str) -> None:
        self.seen.append((how, engine.state.output))


def run_with(handler: Look, output: Any, iterations: int = 1) -> Engine:
    engine = Engine(lambda *_: output)
    BatchOutputHandler(handler).attach(engine)
    engine.run(range(iterations))
    return engine


def test_a_list_of_cases_is_one_batch_for_the_handler_only() -> None:
    cases = [
        {"pred": torch.tensor([1.0]), "loss": 0.25, "name": "a", "crop": torch.ones(1)},
        {"pred": torch.tensor([2.0]), "loss": 0.25, "name": "b", "crop": torch.ones(2)},
    ]
    look = Look()
    engine = run_with(look, cases)
    assert engine.state.output is cases
    ((how, output),) = look.seen
    assert how == "added"
    assert torch.equal(output["pred"], torch.tensor([[1.0], [2.0]]))
    assert output["loss"] == 0.25
    assert output["name"] == ["a", "b"]
    assert [len(crop) for crop in output["crop"]] == [1, 2]


def test_numbers_that_differ_are_those_of_the_cases() -> None:
    look = Look()
    run_with(look, [{"score": 1.0}, {"score": 2.0}])
    assert look.seen[0][1] == {"score": [1.0, 2.0]}


def test_an_output_that_is_no_list_of_cases_passes_as_it_is() -> None:
    look = Look()
    run_with(look, {"loss": 1.0})
    assert look.seen == [("added", {"loss": 1.0})]


def test_both_ways_of_registering_are_kept_with_their_filters() -> None:
    look = Look()
    run_with(look, [{"loss": 1.0}], iterations=2)
    assert [how for how, _ in look.seen] == ["added", "added", "decorated"]
    assert all(output == {"loss": 1.0} for _, output in look.seen)
