"""The folder of a run is a new one."""

from __future__ import annotations

from pathlib import Path

from fl_admin.simulation.run_folder import RunFolder


def test_each_run_gets_the_next_free_folder(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path / "runs").root.name == "run-001"
    assert RunFolder.create(tmp_path / "runs").root.name == "run-002"


def test_earlier_runs_and_other_files_stay(tmp_path: Path) -> None:
    for name in ("run-041", "run-x", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").touch()

    assert RunFolder.create(tmp_path).root.name == "run-042"
    assert len(list(tmp_path.glob("*/kept"))) == 3
