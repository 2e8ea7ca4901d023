"""Writes provisioning/requirements/: what a deployment installs, every file by its SHA-256.

The versions are those of constraints.txt, on Linux and Python 3.11. The hashes are of all files of
a release, so they hold on other processors too. What comes as source is built with build.txt, which
has to be installed before:

    pip install --require-hashes -r build.txt
    pip install --require-hashes --no-build-isolation -r base.txt -r cuda.txt
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from packaging.utils import canonicalize_name

OUT = Path("provisioning/requirements")
CONSTRAINTS = Path("constraints.txt")
PYTHON = "3.11"
EXTRAS = ("he", "kubernetes")

HEAD = "# {title}. Made by `make requirements`; do not edit.\n"
TITLES = {
    "build": "What pip builds packages with that come as source",
    "base": "What mmar-fl needs",
    "cuda": "What else torch for CUDA needs, which is PyPI's torch",
    "he": "What else the extra `he` needs",
    "kubernetes": "What else NVFlare's launcher of pods needs",
}


def main() -> None:
    pinned = {_name(line) for line in CONSTRAINTS.read_text().splitlines() if "==" in line}
    needed = _locked()
    parts = {
        "build": {"setuptools": needed["setuptools"]},
        "base": {name: text for name, text in needed.items() if name in pinned},
        # constraints.txt leaves out what torch pins itself.
        "cuda": {name: text for name, text in needed.items() if name not in pinned},
    }
    for extra in EXTRAS:
        more = _locked("--extra", extra)
        parts[extra] = {name: text for name, text in more.items() if name not in needed}
    OUT.mkdir(exist_ok=True)
    for part, blocks in parts.items():
        head = HEAD.format(title=TITLES[part])
        (OUT / f"{part}.txt").write_text(head + "".join(blocks.values()))


def _locked(*words: str) -> dict[str, str]:
    """Name -> its lines, pin and hashes, of each package that is needed."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--quiet", "--generate-hashes"]
    command += ["--constraint", str(CONSTRAINTS), "--python-version", PYTHON]
    command += ["--python-platform", "linux", "--no-header", "--no-annotate", *words]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    blocks = re.findall(r"^\S.*\n(?: .*\n)*", text, re.MULTILINE)
    return {_name(block): block for block in blocks}


def _name(line: str) -> str:
    """The name of a package in a line ``name==version``, in the spelling of the index."""
    return canonicalize_name(line.partition("==")[0])


if __name__ == "__main__":
    main()
