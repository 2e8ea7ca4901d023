"""Classes that run in place of MONAI's, where MONAI's own could not be used in an MMAR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai import transforms
from monai.networks.nets import BasicUNetPlusPlus
from PIL import Image

from mmar_runtime.components.deep_supervision import (
    SingleAnswerUNetPlusPlus,
    StackedDeepSupervisionLoss,
)
from mmar_runtime.components.images.image_readers import LoadImaged
from mmar_runtime.components.images.label_words import MapWords
from mmar_runtime.errors import ComponentError


def test_a_network_with_deep_supervision_answers_an_evaluation_with_its_deepest_output() -> None:
    arguments: dict[str, Any] = {
        **{"spatial_dims": 2, "in_channels": 1, "out_channels": 2},
        **{"features": [4] * 6, "deep_supervision": True},
    }
    torch.manual_seed(0)
    ours, monais = SingleAnswerUNetPlusPlus(**arguments), BasicUNetPlusPlus(**arguments)
    monais.load_state_dict(ours.state_dict())
    image = torch.rand(1, 1, 32, 32)

    with torch.no_grad():
        answer, outputs = ours.eval()(image), monais.eval()(image)

    assert len(outputs) == 4
    assert torch.equal(answer, outputs[-1])
    assert len(ours.train()(image)) == 4  # what DeepSupervisionLoss takes


def test_a_loss_of_several_outputs_takes_them_stacked() -> None:
    loss = StackedDeepSupervisionLoss(torch.nn.MSELoss(), weight_mode="exp")
    outputs, target = torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4)

    one, half, quarter = (((output - target) ** 2).mean() for output in outputs.unbind(1))

    assert torch.isclose(loss(outputs, target), one + half / 2 + quarter / 4)
    assert torch.equal(loss(outputs[:, 0], target), one)


@pytest.mark.parametrize("name", ["scan.png", "scan.nii.gz"])
def test_pictures_alone_are_read_rows_first(name: str, tmp_path: Path) -> None:
    voxels = np.arange(6, dtype=np.uint8).reshape(2, 3)  # two rows, three columns
    file = tmp_path / name
    if name.endswith("png"):
        Image.fromarray(voxels).save(file)
    else:
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)

    def read(**arguments: Any) -> Any:
        return LoadImaged(keys="image", **arguments)({"image": file})["image"]

    assert np.array_equal(read(reverse_indexing=False), voxels)
    assert np.array_equal(read(), voxels.T if name.endswith("png") else voxels)


@pytest.mark.parametrize("kind", [transforms.LoadImaged, LoadImaged])
def test_threads_do_not_share_the_files_that_a_reader_remembers(
    kind: type[transforms.LoadImaged], tmp_path: Path
) -> None:
    file = tmp_path / "t1.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), file)
    loader = kind(keys="image", reader="NibabelReader")

    image = transforms.Compose([loader])({"image": [file, file]}, threading=True)["image"]

    assert image.shape == (2, 2, 2, 2)
    # MONAI's own: another thread's files would be read next, and one file gives one channel.
    assert hasattr(loader._loader.readers[-1], "filenames") == (kind is not LoadImaged)


def test_words_become_the_numbers_of_their_classes() -> None:
    words = MapWords(keys="label", orig_labels=["healthy", "ill"], target_labels=[0, 1])

    assert words({"label": "ill", "age": 61}) == {"label": 1, "age": 61}
    assert words({"label": torch.tensor([0.0])})["label"].tolist() == [0.0]
    with pytest.raises(ComponentError, match="does not name; named are 'healthy', 'ill'"):
        words({"label": "unknown"})
