"""Code that a site could approve: text that can be read, under names that nothing else has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from mmar_runtime.policy import custom_check
from mmar_runtime.policy.custom_check import (
    MAX_FILES,
    MAX_MODULE_BYTES,
    custom_faults,
    own_class_fault,
    own_module,
    undefined_fault,
)
from mmar_runtime.policy.files.tree_hash import tree_hash
from mmar_runtime.policy.mmar_check import approval_fault
from mmar_runtime.policy.site_policy import Byoc, SitePolicy

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    root = tmp_path / "custom"
    (root / "networks").mkdir(parents=True)
    (root / "own_loss.py").write_text('name = "Läsion"\n')
    (root / "networks/__init__.py").write_text("")
    (root / "networks/table.json").write_text("{}")
    return root


def places(custom: Path) -> list[str]:
    return [str(one.location) for one in custom_faults(custom)]


def test_readable_code_under_names_of_its_own_can_be_approved(custom: Path) -> None:
    assert places(custom) == []
    assert places(REPOSITORY / "tests/mmars/own_components/custom") == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own_loss.cpython-311-x86_64-linux-gnu.so", b"text"),
        ("__pycache__/own_loss.cpython-311.pyc", b"text"),
        ("start.pth", b"import os\n"),
        ("more.zip", b"PK"),
        ("MORE.SO", b"text"),
        ("table.txt", b"a\0b"),
        ("latin.py", b"# L\xe4sion\n"),
        ("image.png", b"\x89PNG\r\n\x1a\n\0"),
    ],
)
def test_what_nobody_can_read_cannot_be_approved(custom: Path, name: str, content: bytes) -> None:
    (custom / name).parent.mkdir(exist_ok=True)
    (custom / name).write_bytes(content)

    assert places(custom) == [f"custom/{name}"]


@pytest.mark.parametrize(
    "name",
    [
        "json.py", "os.py", "site.py", "sitecustomize.py", "usercustomize.py", "torch.py",
        "monai/__init__.py", "nvflare/evil.py", "numpy.py", "fl_client.py", "mmar_runtime.py",
        "mmar_runtime/config/loader.py", "medl/__init__.py", "__main__.py", "google.py",
    ],
)  # fmt: skip
def test_no_module_takes_the_place_of_another(custom: Path, name: str) -> None:
    """NVFlare puts the folder in front of all installed modules."""
    (custom / name).parent.mkdir(parents=True, exist_ok=True)
    (custom / name).write_text("")

    assert places(custom) == [f"custom/{Path(name).parts[0].removesuffix('.py')}"]


def test_that_holds_in_a_process_that_finds_the_folder_first(
    custom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (custom / "torch.py").write_text("")
    monkeypatch.syspath_prepend(str(custom))

    assert places(custom) == ["custom/torch"]


def test_two_jobs_in_one_process_may_have_modules_of_the_same_name(
    custom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the sites of a simulation have."""
    other = shutil.copytree(custom, tmp_path / "site-2/custom")
    monkeypatch.syspath_prepend(str(other))
    assert places(custom) == ["custom/networks", "custom/own_loss"]

    (tmp_path / "site-2/config").mkdir()

    assert places(custom) == []


def test_nothing_is_imported_by_the_question(custom: Path, tmp_path: Path) -> None:
    (custom / "torch.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    script = (
        "import sys; from pathlib import Path\n"
        "from mmar_runtime.policy.custom_check import custom_faults\n"
        f"assert list(custom_faults(Path({str(custom)!r})))\n"
        "assert not {'torch', 'monai', 'nvflare'} & set(sys.modules)\n"
    )

    subprocess.run([sys.executable, "-c", script], check=True)

    assert not (tmp_path / "marker").exists()


def test_too_much_to_be_read_is_not_read(custom: Path) -> None:
    for number in range(MAX_FILES):
        (custom / f"part_{number}.py").write_text("")

    assert [one.message for one in custom_faults(custom)] == [
        f"holds {MAX_FILES + 3} files of 19 bytes, too much to be read"
    ]


def test_a_few_large_files_are_too_much_as_well(
    custom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custom_check, "MAX_BYTES", 19)
    assert places(custom) == []

    monkeypatch.setattr(custom_check, "MAX_BYTES", 18)
    assert places(custom) == ["custom"]


def test_a_module_is_no_link(custom: Path) -> None:
    (custom / "linked.py").symlink_to("own_loss.py")

    assert own_module("own_loss.Loss", custom) == custom / "own_loss.py"
    assert own_module("linked.Loss", custom) is None


def test_a_package_that_is_installed_for_editing_keeps_its_name(
    custom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
            return ModuleSpec(name, None, origin="/src/edited.py") if name == "edited" else None

    assert own_class_fault("edited.Loss", custom) == ""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert "is installed here" in own_class_fault("edited.Loss", custom)
    assert own_class_fault("own_loss.Loss", custom) == ""


def test_an_empty_folder_is_nothing_to_approve(tmp_path: Path) -> None:
    assert places(tmp_path) == ["custom"]


# --- an approval


def policy_for(custom: Path) -> SitePolicy:
    return SitePolicy(byoc=Byoc(mode="by_hash", approved=("0" * 64, tree_hash(custom))))


def test_an_approved_folder_has_no_fault(custom: Path) -> None:
    assert approval_fault(custom, policy_for(custom)) == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda custom: (custom / "own_loss.py").write_text("import os\n"),
        lambda custom: (custom / "more.py").write_text(""),
        lambda custom: (custom / "own_loss.py").unlink(),
    ],
)
def test_one_that_was_changed_afterwards_has(
    custom: Path, change: Callable[[Path], object]
) -> None:
    policy = policy_for(custom)
    change(custom)

    fault = approval_fault(custom, policy)

    assert fault == f"its hash {tree_hash(custom)} is not among the 2 approved"


def test_a_hash_allows_nothing_that_could_not_have_been_read(custom: Path) -> None:
    """Somebody may have written the hash into the policy by hand."""
    (custom / "json.py").write_text("")

    fault = approval_fault(custom, policy_for(custom))

    assert fault == "custom/json has the name of a module of Python itself"


def test_the_signatures_of_a_signed_job_change_no_approval(custom: Path) -> None:
    """NVFlare puts them into each folder when the job is submitted."""
    policy = policy_for(custom)
    for folder in (custom, custom / "networks"):
        (folder / ".__nvfl_sig.json").write_text("{}")
        (folder / ".__nvfl_submitter.crt").write_bytes(b"\xff")

    assert approval_fault(custom, policy) == ""


def test_no_folder_and_links_are_faults_too(custom: Path) -> None:
    policy = policy_for(custom)
    (custom / "link.py").symlink_to("own_loss.py")

    assert "is not a plain file" in approval_fault(custom, policy)
    assert "is not a folder" in approval_fault(custom / "nowhere", policy)


# --- what a job may name of it

HELPERS = """
from subprocess import run
from subprocess import Popen as Started
call = run
class Half: pass
class run: pass
from subprocess import run
def make(): pass
if True:
    class Inner: pass
"""


@pytest.mark.parametrize("name", ["run", "Started", "call", "Inner", "subprocess", "nothing"])
def test_what_approved_code_imports_or_assigns_is_not_the_jobs_own(custom: Path, name: str) -> None:
    (custom / "helpers.py").write_text(HELPERS)

    fault = undefined_fault(f"helpers.{name}", custom, functions=True)

    assert "custom/helpers.py defines itself; name the file where it is defined" in fault


def test_a_class_is_and_a_function_where_one_will_do(custom: Path) -> None:
    (custom / "helpers.py").write_text(HELPERS)

    assert undefined_fault("helpers.Half", custom) == ""
    assert undefined_fault("helpers.make", custom, functions=True) == ""
    assert "is not a class that" in undefined_fault("helpers.make", custom)


def test_the_file_that_python_would_import_is_the_one_looked_at(custom: Path) -> None:
    (custom / "networks/__init__.py").write_text("from subprocess import run")
    (custom / "networks.py").write_text("class run: pass")

    assert "custom/networks/__init__.py" in undefined_fault("networks.run", custom)


@pytest.mark.parametrize("text", ["class Half(:", "#" * (MAX_MODULE_BYTES + 1), "(" * 5000])
def test_what_cannot_be_parsed_defines_nothing(custom: Path, text: str) -> None:
    (custom / "helpers.py").write_text(text)

    assert undefined_fault("helpers.Half", custom).startswith("is in custom/helpers.py, which")
