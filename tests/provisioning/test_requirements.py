"""What a deployment installs: tested versions, each file by its hash; its parts and licences."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import sbom
from tests.provisioning.conftest import PROVISIONING

REPOSITORY = PROVISIONING.parent
FILES = sorted((PROVISIONING / "requirements").glob("*.txt"), key=lambda path: path.stem)
PIN = re.compile(r"([a-z0-9-]+)==(\S+) \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def pins(path: Path) -> dict[str, str]:
    found = [PIN.fullmatch(line) for line in path.read_text().splitlines()]
    return {one[1]: one[2] for one in found if one}


def constraints() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(name): version for name, version in pairs}


def test_a_deployment_gets_the_versions_that_were_tested() -> None:
    tested = constraints()

    assert [path.stem for path in FILES] == ["base", "build", "cuda", "he", "kubernetes"]
    for path in FILES:
        if path.stem != "cuda":
            assert {name: tested.get(name) for name in pins(path)} == pins(path)


def test_all_that_mmar_fl_asks_for_is_in_the_list() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {canonicalize_name(Requirement(one).name) for one in project["dependencies"]}

    assert wanted <= pins(PROVISIONING / "requirements/base.txt").keys()


def test_only_torchs_own_libraries_are_not_among_the_tested_versions() -> None:
    [cuda] = [path for path in FILES if path.stem == "cuda"]

    assert pins(cuda)
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in pins(cuda))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_package_has_hashes_and_nothing_says_where_to_get_it(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]

    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        assert PIN.fullmatch(line) or HASH.fullmatch(line)
        assert HASH.fullmatch(after) if line.endswith("\\") else not HASH.fullmatch(after)


# --- parts and licences


def part(name: str, **more: Any) -> dict[str, Any]:
    return {"bom-ref": f"{name}-ref", "name": name, "version": "1.0", "type": "library", **more}


def spdx(name: str) -> dict[str, Any]:
    return {"license": {"id": name}}


def test_what_only_a_development_needs_is_no_part() -> None:
    bom = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [part("monai"), part("numpy", licenses=[spdx("MIT")]), part("pytest")],
        "dependencies": [
            {"ref": "root", "dependsOn": ["monai-ref", "pytest-ref"]},
            {"ref": "monai-ref", "dependsOn": ["numpy-ref", "pytest-ref"]},
            {"ref": "pytest-ref"},
        ],
    }

    sbom.keep_parts(bom, {"monai", "numpy"})

    assert [one["name"] for one in bom["components"]] == ["monai", "numpy"]
    assert bom["dependencies"] == [
        {"ref": "root", "dependsOn": ["monai-ref"]},
        {"ref": "monai-ref", "dependsOn": ["numpy-ref"]},
    ]
    # MONAI declares its licence in words alone.
    assert sbom.licence(bom["components"][0]) == "Apache License 2.0"


@pytest.mark.parametrize(
    ("licences", "told"),
    [
        ([spdx("MIT")], "MIT"),
        ([spdx("MIT"), {"license": {"name": "License :: OSI Approved :: MIT License"}}], "MIT"),
        ([{"expression": "MPL-2.0 AND MIT"}], "MPL-2.0 AND MIT"),
        ([{"license": {"name": "License :: OSI Approved :: BSD License"}}], "BSD License"),
        ([], "not declared"),
    ],
)
def test_a_licence_is_told_as_it_is_declared(licences: list[Any], told: str) -> None:
    assert sbom.licence(part("x", licenses=licences)) == told


def test_the_whole_list_keeps_to_the_schema(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("cyclonedx_py", reason="needs the extra `release`")
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sbom, "OUT", tmp_path)

    assert sbom.main() == 0
    assert "| torch | 2.13.0" in (tmp_path / "licences.md").read_text()
