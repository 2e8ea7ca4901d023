"""The models of a job that trains none: read as they lie there, and refused before a site is asked.

What becomes of their evaluation is in ``test_federation_validation``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fl_server.given_models import given_models
from mmar_runtime.errors import CheckpointError, FederationError
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights

NETWORK: Weights = {"w": torch.zeros(2), "b": torch.zeros(1)}


@pytest.fixture
def mmar(tiny_mmar: Path) -> Mmar:
    """A job that brings ``ours``: ones."""
    found = Mmar.open(tiny_mmar)
    save_file({"w": torch.ones(2), "b": torch.ones(1)}, found.models / "ours.safetensors")
    return found


def test_each_model_is_read_as_it_lies_in_the_job(mmar: Mmar) -> None:
    found = given_models(mmar, ["ours"], NETWORK)

    assert list(found) == ["ours"]
    assert found["ours"]()["w"].tolist() == [1.0, 1.0]


def test_a_model_that_does_not_fit_the_network_is_refused(mmar: Mmar) -> None:
    save_file({"w": torch.ones(3), "b": torch.ones(1)}, mmar.models / "theirs.safetensors")

    with pytest.raises(FederationError, match=r"'theirs' does not fit the network: w: shape"):
        given_models(mmar, ["ours", "theirs"], NETWORK)


def test_so_is_a_model_that_is_not_there(mmar: Mmar) -> None:
    with pytest.raises(CheckpointError, match="there is no file of weights"):
        given_models(mmar, ["theirs"], NETWORK)


@pytest.mark.parametrize("name", ["../../secret", "/secret", "SRV_ours", ".ours", "", 1])
def test_a_name_that_leads_out_of_the_job_is_refused(mmar: Mmar, name: Any) -> None:
    """The server would read the file, and send it to every site."""
    save_file(dict(NETWORK), mmar.root.parent / "secret.safetensors")

    with pytest.raises(FederationError, match="is not a name of a model that a job brings"):
        given_models(mmar, [name], NETWORK)
