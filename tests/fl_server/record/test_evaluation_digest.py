"""Two jobs have one digest exactly if they evaluate a model in the same way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_server.record.evaluation_digest import evaluation_digest
from mmar_runtime.errors import ConfigError
from mmar_runtime.mmar import Mmar

MakeMmar = Callable[..., Path]
Edited = Callable[[Path, Callable[[Any], object]], Path]

ENVIRONMENT = "config/environment.json"
DOCUMENT = "config/config_cross_validation.json"


@pytest.fixture
def digest(tiny_mmar: Path) -> Callable[..., str]:
    return lambda **arguments: evaluation_digest(Mmar.open(tiny_mmar), **arguments)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (DOCUMENT, {"amp": True}),
        (DOCUMENT, {"inferer": {"name": "SimpleInferer"}}),
        (ENVIRONMENT, {"VAL_DATALIST_KEY": "training"}),
        (ENVIRONMENT, {"amp": True}),
        (ENVIRONMENT, {"tf32": True}),
    ],
)
def test_it_changes_with_whatever_the_numbers_depend_on(
    tiny_mmar: Path, digest: Callable[..., str], edited: Edited, file: str, change: dict[str, Any]
) -> None:
    before = digest()

    edited(tiny_mmar / file, lambda document: document.update(change))

    assert digest() != before


def test_it_changes_with_the_code_and_with_what_is_shared(
    tiny_mmar: Path, digest: Callable[..., str]
) -> None:
    before = digest()
    assert digest(shared_names=["a.weight"]) != before

    (tiny_mmar / "custom").mkdir()
    (tiny_mmar / "custom/mine.py").write_text("")
    assert digest() != before


def test_it_does_not_change_with_the_sites_data_or_with_the_training(
    tiny_mmar: Path, digest: Callable[..., str], edited: Edited
) -> None:
    before = digest()

    edited(
        tiny_mmar / ENVIRONMENT,
        lambda document: document.update(
            DATA_ROOT="/elsewhere", DATASET_JSON="/elsewhere/d.json", learning_rate=0.5
        ),
    )
    edited(tiny_mmar / "config/config_train.json", lambda document: document.update(epochs=9))
    assert digest() == before


def test_spaces_and_the_order_of_keys_do_not_count(
    tiny_mmar: Path, digest: Callable[..., str]
) -> None:
    before = digest()
    path = tiny_mmar / DOCUMENT
    document = json.loads(path.read_text())

    path.write_text(json.dumps(dict(reversed(document.items())), indent=8))

    assert digest() == before


def test_an_mmar_that_evaluates_nothing_elsewhere_has_none(
    tiny_mmar: Path, digest: Callable[..., str]
) -> None:
    (tiny_mmar / DOCUMENT).unlink()

    with pytest.raises(ConfigError, match="there is no file"):
        digest()
