"""README.md and docs: commands, options and imports are there, and the pages build."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from fl_admin.cli.parser import build_parser

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = (REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/**/*.md")))
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
OURS = ("fl_admin", "fl_client", "fl_server", "medl", "mmar_runtime")


def commands() -> list[str]:
    """Return each line of a block that starts with ``mmar``, continued lines joined."""
    lines = "\n".join(BLOCK.findall(TEXT)).replace("\\\n", " ").splitlines()
    return sorted({" ".join(line.split()) for line in lines if re.match(r" *mmar [^=]", line)})


def imports() -> list[tuple[str, str]]:
    """Return module and name of each import of this project in the pages' Python."""
    nodes = [node for block in PYTHON.findall(TEXT) for node in ast.walk(ast.parse(block))]
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    pairs = {(node.module, alias.name) for node in froms for alias in node.names}
    return sorted(pair for pair in pairs if pair[0].partition(".")[0] in OURS)


@pytest.mark.parametrize("command", commands())
def test_mmar_understands_a_command_of_the_documents(command: str) -> None:
    _, *words = shlex.split(command, comments=True)

    if words != ["--version"]:
        build_parser().parse_args(words)


@pytest.mark.parametrize(("module", "name"), imports(), ids=str)
def test_an_import_of_the_documents_is_there(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)


def test_an_option_that_mmar_does_not_know_is_found() -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["simulate", "MMAR", "--site", "2", "--epoch", "1"])


def test_each_page_is_in_the_order_and_each_link_leads_to_a_heading(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "do" / "researcher.html").is_file()
