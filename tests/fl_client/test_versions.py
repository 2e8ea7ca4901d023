"""The versions of a federation against those that are installed."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from fl_client import versions
from fl_client.versions import VERSIONS_FILE, differences, federation_versions, installed_versions
from mmar_runtime.errors import ConfigError

INSTALLED = {"torch": "2.13.0+cu126", "monai": "1.6.1", "nvflare": "2.9.0"}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in INSTALLED:
            raise PackageNotFoundError(name)
        return INSTALLED[name]

    monkeypatch.setattr(versions, "version", version)


def test_what_torch_was_built_for_is_up_to_each_site() -> None:
    assert installed_versions(("torch", "monai")) == {"torch": "2.13.0", "monai": "1.6.1"}
    assert list(differences({"torch": "2.13.0"})) == []


def test_what_is_not_installed_is_left_out() -> None:
    assert installed_versions(("monai", "tenseal")) == {"monai": "1.6.1"}


@pytest.mark.parametrize(
    ("federation", "fits"),
    [
        ("1.6.2", True),
        ("1.6.1rc1", True),
        ("1.5.1", False),
        ("1.60.1", False),
        ("2.6.1", False),
        ("1", False),
    ],
)
def test_two_versions_fit_if_their_first_two_numbers_are_the_same(
    federation: str, fits: bool
) -> None:
    [found] = differences({"monai": federation})

    assert found.fits is fits
    assert str(found) == f"monai 1.6.1, the federation {federation}"


def test_a_package_that_is_missing_does_not_fit() -> None:
    [found] = differences({"tenseal": "0.3.16"})

    assert not found.fits
    assert str(found) == "no tenseal, the federation 0.3.16"


def test_a_kit_that_says_nothing_is_not_compared(tmp_path: Path) -> None:
    assert federation_versions(tmp_path) is None


@pytest.mark.parametrize("content", [[], {"torch": 2}, "2.9.0"])
def test_what_is_no_list_of_versions_is_a_fault(tmp_path: Path, content: object) -> None:
    (tmp_path / "startup").mkdir()
    (tmp_path / VERSIONS_FILE).write_text(json.dumps(content))

    with pytest.raises(ConfigError, match="has to map names of packages to versions"):
        federation_versions(tmp_path)
