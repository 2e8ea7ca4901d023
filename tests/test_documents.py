"""README.md and docs: `mmar` knows each command and its options, and the pages build."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fl_admin.cli.main import build_parser

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = (REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/**/*.md")))
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)


def commands() -> list[str]:
    """Return each line of a block that starts with ``mmar``, continued lines joined."""
    blocks = [block for page in PAGES for block in BLOCK.findall(page.read_text(encoding="utf-8"))]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return sorted({" ".join(line.split()) for line in lines if re.match(r" *mmar [^=]", line)})


@pytest.mark.parametrize("command", commands())
def test_mmar_understands_a_command_of_the_documents(command: str) -> None:
    _, *words = shlex.split(command, comments=True)

    if words != ["--version"]:
        build_parser().parse_args(words)


def test_an_option_that_mmar_does_not_know_is_found() -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["simulate", "MMAR", "--site", "2", "--epoch", "1"])


def test_each_page_is_in_the_order_and_each_link_leads_to_a_heading(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "do" / "researcher.html").is_file()
