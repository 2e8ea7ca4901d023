"""scripts/structure.py: its figures of a made-up checkout, and bounds that this checkout keeps."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("structure", REPOSITORY / "scripts/structure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["structure"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


structure = script()

MODULES = {
    "fl_admin/one.py": "from fl_admin import two\n",
    "fl_admin/two.py": "def late():\n    from fl_admin.one import two\n    return two\n",
    "fl_client/reader.py": "documents = read_json(app / SERVER_CONFIG)\n",
    "fl_server/helper.py": '"""Doc."""\n\n\ndef _once():\n    return 1\n\n\nVALUE = _once()\n',
    "fl_server/report.py": "KEYS = {'received_metrics', 'local_metrics', 'epochs', 'built'}\n",
    "mmar_runtime/__init__.py": "",
}


@pytest.fixture
def checkout(tmp_path: Path) -> object:
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "README.md").write_text("three short words\n")
    return structure.Checkout(tmp_path)


def test_the_figures_of_a_made_up_checkout(checkout: object) -> None:
    figures = structure.figures(checkout)

    assert figures["lines of the product"] == str(sum(t.count("\n") for t in MODULES.values()))
    assert figures["words in README and docs"] == "3"
    assert structure.Checkout.circles(checkout) == ["fl_admin.one <-> fl_admin.two"]
    assert structure.Checkout.readers(checkout) == ["fl_client/reader.py"]
    assert structure.Checkout.helpers(checkout) == [(1, "fl_server/helper.py:4 _once")]
    assert structure.Checkout.definitions(checkout) == ["fl_server/report.py:1"]


def test_a_folder_that_is_no_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert structure.main([str(tmp_path)]) == 2
    assert "not a checkout of this project" in capsys.readouterr().err


def test_this_checkout_keeps_its_bounds() -> None:
    ours = structure.Checkout(REPOSITORY)

    assert ours.readers() == ["mmar_runtime/exchange/job_documents.py"]
    places = [place.split(":")[0] for place in ours.definitions()]
    # The record keeps a value of its own: what the server accepted, with bytes and heads of logs.
    assert places == ["fl_server/record/values.py", "mmar_runtime/exchange/messages.py"]
    assert ours.words <= 25_000
