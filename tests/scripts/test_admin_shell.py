"""Speaking to NVFlare's console; what the real one answers is in ``tests/federation``."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from mmar_runtime.errors import FederationError
from scripts import admin_shell
from scripts.admin_shell import AdminShell

CONSOLE = r"""
printf 'User Name: '
read -r user
[ "$user" = lead@hub.org ] || { echo "Login rejected"; exit 1; }
echo "Type ? to list commands"
printf '\n> '
while read -r line; do
  case $line in
    bye) exit 0 ;;
    ends) echo "the last words"; exit 0 ;;
    hangs) sleep 100 ;;
    abort) printf 'Are you sure (y/N): ' ;;
    *) echo "| $line > x |"; echo "Done"; printf '\n> ' ;;
  esac
done
"""
"""Prompts as NVFlare's console does."""


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    startup = tmp_path / "startup"
    startup.mkdir()
    admin = {"username": "lead@hub.org", "host": "fl", "port": 8002, "server_identity": "fl"}
    (startup / "fed_admin.json").write_text(json.dumps({"admin": admin}))
    (startup / "fl_admin.sh").write_text(CONSOLE)
    return tmp_path


def test_it_logs_in_and_answers_line_by_line(kit: Path) -> None:
    with AdminShell(kit) as shell:
        assert shell.greeting == "Type ? to list commands\n\n"
        assert shell.ask("list_jobs") == "| list_jobs > x |\nDone\n\n"
        assert shell.ask("list_jobs -v") == "| list_jobs -v > x |\nDone\n\n"


def test_a_question_is_an_answer_too(kit: Path) -> None:
    with AdminShell(kit) as shell:
        assert shell.ask("abort") == "Are you sure (y/N): "
        assert shell.ask("y") == "| y > x |\nDone\n\n"


def test_a_console_that_ends_is_told_with_its_last_words(kit: Path) -> None:
    with AdminShell(kit) as shell, pytest.raises(FederationError, match="has ended") as caught:
        shell.ask("ends")

    assert "the last words" in str(caught.value)


def test_a_login_that_is_rejected(kit: Path) -> None:
    script = kit / "startup" / "fl_admin.sh"
    script.write_text(CONSOLE.replace("lead@hub.org", "somebody@else.org"))

    with pytest.raises(FederationError, match="Login rejected"), AdminShell(kit):
        pass


def test_a_console_that_hangs_is_ended(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_shell, "SECONDS_TO_END", 0.2)
    with AdminShell(kit) as shell, pytest.raises(FederationError, match=r"within 1 s; it said"):
        shell.ask("hangs", seconds=1)

    left = [
        one
        for one in psutil.process_iter(["cwd", "status"])
        if one.info["cwd"] == str(kit / "startup") and one.info["status"] != "zombie"
    ]
    assert left == []
