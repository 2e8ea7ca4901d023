"""Updates of a job with a large model arrive in files while NVFlare carries its run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.fuel.utils.fobs import FOBSContextKey

from fl_server.federation import FederatedRun
from tests.carriers.nvflare import EngineStandIn, run_nvflare
from tests.carriers.script import Script

IN_FILES = FOBSContextKey.TENSOR_DISK_OFFLOAD
FOLDER = "tensor_disk_offload_root_dir"


@pytest.mark.parametrize("asked", [True, False])
def test_nvflare_writes_updates_to_files_during_the_run_if_the_job_asks(
    asked: bool, tmp_path: Path, make_mmar: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context: dict[str, Any] = {}
    cell = SimpleNamespace(
        get_fobs_context=lambda: context.copy(), update_fobs_context=context.update
    )
    monkeypatch.setattr(EngineStandIn, "run_manager", SimpleNamespace(cell=cell), raising=False)
    during: list[tuple[bool, bool]] = []
    open_round = FederatedRun.open_round

    def watched(run: FederatedRun) -> Any:
        during.append((context.get(IN_FILES, False), Path(context.get(FOLDER, "")).is_absolute()))
        return open_round(run)

    monkeypatch.setattr(FederatedRun, "open_round", watched)
    script = Script(terms={"enable_tensor_disk_offload": asked})

    record = run_nvflare(script, make_mmar(tmp_path / "mmar"), tmp_path / "run")

    assert record.status == "complete"
    assert during == [(asked, asked)] * 2
    assert not context.get(IN_FILES)
    assert not context.get(FOLDER)
