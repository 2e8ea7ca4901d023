"""Writes build/sbom.cdx.json and build/licences.md: the parts of an installation, their licences.

Parts are the packages of provisioning/requirements/ that are installed with the Python that runs
this, as they are there. The list of parts is CycloneDX 1.6, and is checked against its schema. Exit
code 1 if a part of base.txt is not installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

REQUIREMENTS = Path("provisioning/requirements")
OUT = Path("build")
NOT_DECLARED = "not declared"


def main() -> int:
    bom = installed()
    keep_parts(bom, listed("*.txt"))
    missing = listed("base.txt") - {
        canonicalize_name(component["name"]) for component in bom["components"]
    }
    if missing:
        print(f"not installed: {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    text = json.dumps(bom, indent=2)
    validate(text)
    OUT.mkdir(exist_ok=True)
    (OUT / "sbom.cdx.json").write_text(text + "\n")
    (OUT / "licences.md").write_text("\n".join([*licence_table(bom), ""]))
    print(f"{OUT}/sbom.cdx.json, {OUT}/licences.md: {len(bom['components'])} parts")
    return 0


def listed(files: str) -> set[str]:
    """The packages that files of provisioning/requirements/ name."""
    lines = [line for path in REQUIREMENTS.glob(files) for line in path.read_text().splitlines()]
    return {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}


def installed() -> dict[str, Any]:
    """All packages of this environment, as CycloneDX."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable]
    command += ["--pyproject", "pyproject.toml", "--output-reproducible"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def keep_parts(bom: dict[str, Any], names: set[str]) -> None:
    """Take all other packages out, and give a licence to each part that declares one in words."""
    parts = [
        component
        for component in bom["components"]
        if canonicalize_name(component["name"]) in names
    ]
    for part in parts:
        words, *_ = metadata.metadata(part["name"]).get_all("License", [""])
        if "licenses" not in part and words:
            part["licenses"] = [{"license": {"name": words, "acknowledgement": "declared"}}]
    kept = {bom["metadata"]["component"]["bom-ref"], *(part["bom-ref"] for part in parts)}
    bom["components"] = parts
    bom["dependencies"] = [
        {**dependency, "dependsOn": [ref for ref in dependency.get("dependsOn", ()) if ref in kept]}
        for dependency in bom["dependencies"]
        if dependency["ref"] in kept
    ]


def validate(text: str) -> None:
    """Check a list of parts against the schema.

    Raises:
        ValueError: it has a fault.
    """
    from cyclonedx.schema import SchemaVersion  # of the extra `release`, which tests do without
    from cyclonedx.validation.json import JsonStrictValidator

    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"not CycloneDX 1.6: {fault}")


def licence_table(bom: dict[str, Any]) -> Iterator[str]:
    """The parts as a table, those of one licence together."""
    yield "| part | version | licence, as it declares |"
    yield "|---|---|---|"
    parts = [
        (licence(component), component["name"], component["version"])
        for component in bom["components"]
    ]
    for declared, name, version in sorted(parts, key=lambda row: [text.lower() for text in row]):
        yield f"| {name} | {version} | {declared} |"


def licence(part: dict[str, Any]) -> str:
    """What a part declares: SPDX where it does, else its own words."""
    declared = part.get("licenses", ())
    spdx = [
        licence_entry.get("expression") or licence_entry["license"].get("id")
        for licence_entry in declared
    ]
    words = [licence_entry["license"]["name"].rpartition(":: ")[2] for licence_entry in declared
             if "name" in licence_entry.get("license", ())]  # fmt: skip
    return ", ".join([text for text in spdx if text] or words) or NOT_DECLARED


if __name__ == "__main__":
    sys.exit(main())
