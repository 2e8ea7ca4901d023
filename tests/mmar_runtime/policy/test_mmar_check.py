"""MMARs against a site's policy, without data, without torch, and without a way to hang it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.policy.files.tree_hash import file_hash
from mmar_runtime.policy.mmar_check import MAX_DOCUMENTS, check_mmar
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, OWN_MMAR_POLICY, Byoc, SitePolicy

REPOSITORY = Path(__file__).resolve().parents[3]
ROOTS = [
    *sorted(path.parent for path in (REPOSITORY / "tests/mmars").glob("*/config")),
    *sorted((REPOSITORY / "jobs").glob("*/app")),
]
WITHOUT_CODE = [root for root in ROOTS if not (root / "custom").is_dir()]
WITH_CODE = [root for root in ROOTS if (root / "custom").is_dir()]

Edited = Callable[[Path, Callable[[Any], object]], Path]


def name(root: Path) -> str:
    return root.parent.name if root.name == "app" else root.name


def rules(path: Path, policy: SitePolicy = DEFAULT_POLICY, **values: Any) -> set[str]:
    return {one.rule for one in check_mmar(path, policy, **values).problems}


def train(root: Path) -> Path:
    return root / "config/config_train.json"


# --- Every MMAR of the repository ----------------------------------------------------------------


@pytest.mark.parametrize("root", WITHOUT_CODE, ids=name)
def test_an_mmar_without_code_is_accepted_by_default(root: Path) -> None:
    assert check_mmar(root).problems == ()


@pytest.mark.parametrize("root", WITH_CODE, ids=name)
def test_an_mmar_with_code_is_refused_by_default_and_accepted_where_code_is_on(root: Path) -> None:
    assert rules(root) == {"code"}
    assert check_mmar(root, OWN_MMAR_POLICY).problems == ()


@pytest.mark.parametrize("root", ROOTS, ids=name)
def test_a_whole_mmar_takes_less_than_200_ms(root: Path) -> None:
    check_mmar(root)  # the table of components is read once in a process
    times = []
    for _ in range(3):
        start = time.process_time()
        check_mmar(root)
        times.append(time.process_time() - start)

    assert min(times) < 0.2


def test_a_check_imports_neither_torch_nor_monai() -> None:
    code = f"""
import sys
from mmar_runtime import check_mmar
from fl_admin.cli.main import main
assert check_mmar({str(WITHOUT_CODE[0])!r}).accepted
assert main(["check", {str(WITH_CODE[0])!r}]) == 3
print(sorted({{"torch", "monai", "ignite", "nvflare", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


# --- Whose values count --------------------------------------------------------------------------


def test_the_authors_data_are_passed_over_with_a_notice(tiny_mmar: Path) -> None:
    shutil.rmtree(tiny_mmar / "data")

    found = check_mmar(tiny_mmar)

    assert found.accepted
    assert any("passed over DATA_ROOT and DATASET_JSON" in one for one in found.notices)


@pytest.mark.parametrize("value", ["/etc", "../..", "models/../../..", "a\0b"])
def test_an_mmar_variable_cannot_lead_out(tiny_mmar: Path, edited: Edited, value: str) -> None:
    edited(tiny_mmar / "config/environment.json", lambda env: env.update(MMAR_CKPT_DIR=value))

    assert "path" in rules(tiny_mmar)


def test_an_mmar_variable_cannot_lead_out_through_a_link(tiny_mmar: Path, tmp_path: Path) -> None:
    shutil.rmtree(tiny_mmar / "models")
    (tiny_mmar / "models").symlink_to(tmp_path)

    assert "path" in rules(tiny_mmar)


def test_a_redefined_root_has_no_effect(tiny_mmar: Path, edited: Edited) -> None:
    edited(tiny_mmar / "config/environment.json", lambda env: env.update(MMAR_ROOT="/etc"))

    found = check_mmar(tiny_mmar)

    assert found.accepted
    assert any("MMAR_ROOT" in one for one in found.notices)


def test_overrides_are_judged_like_what_they_replace(tiny_mmar: Path) -> None:
    assert check_mmar(tiny_mmar, overrides={"learning_rate": 0.1}).accepted
    assert "path" in rules(tiny_mmar, overrides={"MMAR_CKPT_DIR": "config"})


# --- Components ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["subprocess.Popen", "os.system", "monai.bundle.run"])
def test_a_path_outside_the_table_is_refused(tiny_mmar: Path, edited: Edited, path: str) -> None:
    edited(train(tiny_mmar), lambda conf: conf["train"].update(loss={"path": path, "args": {}}))

    assert "code" in rules(tiny_mmar)


def test_the_site_can_deny_a_component_under_all_its_names(tiny_mmar: Path, edited: Edited) -> None:
    policy = SitePolicy(denied_components=("DiceLoss",))

    def by_path(conf: Any) -> None:
        conf["train"]["loss"]["path"] = "monai.losses.DiceLoss"

    assert rules(tiny_mmar, policy) == {"denied-component"}
    edited(train(tiny_mmar), by_path)
    assert rules(tiny_mmar, policy) == {"denied-component"}
    assert check_mmar(tiny_mmar).accepted


def test_a_handler_that_sends_needs_the_sites_consent(tiny_mmar: Path, edited: Edited) -> None:
    handler = {"name": "MLFlowHandler", "args": {"tracking_uri": "http://127.0.0.1:1"}}
    edited(train(tiny_mmar), lambda conf: conf["train"]["handlers"].append(handler))

    assert "egress" in rules(tiny_mmar)
    assert "egress" not in rules(tiny_mmar, SitePolicy(egress=True))


def test_by_hash_refuses_what_is_not_approved() -> None:
    policy = SitePolicy(byoc=Byoc(mode="by_hash", approved=("0" * 64,)))

    for root in WITH_CODE:
        assert rules(root, policy) == {"code"}


# --- One workflow --------------------------------------------------------------------------------


def test_one_workflow_is_judged_with_the_environment_beside_it(tiny_mmar: Path) -> None:
    assert check_mmar(train(tiny_mmar)).accepted

    (tiny_mmar / "config/environment.json").unlink()
    assert "unknown-variable" in rules(train(tiny_mmar))  # TRAIN_DATALIST_KEY, among others


def test_one_workflow_need_not_lie_in_an_mmar(tiny_mmar: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in ("config_train.json", "environment.json"):
        shutil.copy(tiny_mmar / "config" / file, alone)

    assert check_mmar(alone / "config_train.json").accepted


def test_every_workflow_of_a_folder_is_judged(tiny_mmar: Path, edited: Edited) -> None:
    other = tiny_mmar / "config/anything.json"
    shutil.copy(train(tiny_mmar), other)
    edited(other, lambda conf: conf["train"].update(loss={"path": "os.system"}))

    found = check_mmar(tiny_mmar)

    assert {one.location.file for one in found.problems} == {"anything.json"}


def test_a_document_that_is_no_workflow_is_left_alone(tiny_mmar: Path) -> None:
    shutil.copy(tiny_mmar / "data/dataset.json", tiny_mmar / "config/dataset_0.json")

    assert check_mmar(tiny_mmar).accepted


# --- Hostile documents ---------------------------------------------------------------------------


def large(count: int) -> str:
    return json.dumps(
        {"train": {"model": {"name": "UNet", "args": {f"x{i}": i for i in range(count)}}}}
    )


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "json"),
    "no object": ("[]", "json"),
    "a number": ("5", "json"),
    "null": ("null", "json"),
    "deep": ("[" * 100_000, "json"),
    "rather deep": ('{"train":' + "[" * 500 + "]" * 500 + "}", "limit"),
    "many digits": ('{"epochs":' + "9" * 5000 + "}", "json"),
    "huge number": ('{"epochs":1e999999}', "json"),
    "not a number": ('{"epochs":NaN}', "json"),
    "key twice": ('{"epochs":1,"epochs":2}', "json"),
    "not UTF-8": (b"\xff\xfe\x00", "json"),
    "lone surrogate": ('{"train":{"\\ud800":1}}', "json"),
    "large": (b" " * 5_000_000, "limit"),
    "long text": (json.dumps({"train": {"x": "a" * 100_000}}), "limit"),
    "long key": (json.dumps({"train": {"a" * 100_000: 1}}), "limit"),
    "many values": (large(5000), "limit"),
    "as many values as are read": (large(1300), "unknown-argument"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_document_is_refused_within_a_second(tiny_mmar: Path, case: str) -> None:
    content, rule = HOSTILE[case]
    train(tiny_mmar).write_bytes(content if isinstance(content, bytes) else content.encode())

    start = time.process_time()
    found = rules(tiny_mmar)

    assert rule in found
    assert time.process_time() - start < 1


@pytest.mark.parametrize("content", ["[]", "", '{"DATA_ROOT": []}', "null"])
def test_an_environment_that_is_none_is_refused(tiny_mmar: Path, content: str) -> None:
    (tiny_mmar / "config/environment.json").write_text(content)

    assert not check_mmar(tiny_mmar).accepted


@pytest.mark.parametrize("file", ["config_train.json", "environment.json", "config_x.json"])
def test_a_document_is_a_plain_file_itself(tiny_mmar: Path, tmp_path: Path, file: str) -> None:
    outside = tmp_path / "outside.json"
    shutil.copy(train(tiny_mmar), outside)
    path = tiny_mmar / "config" / file
    path.unlink(missing_ok=True)

    path.symlink_to(outside)
    assert "path" in rules(tiny_mmar)

    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever
    assert "path" in rules(tiny_mmar)


def test_a_device_behind_a_link_is_not_read(tiny_mmar: Path) -> None:
    (tiny_mmar / "config/config_x.json").symlink_to("/dev/zero")

    assert "path" in rules(tiny_mmar)


def test_more_documents_than_anybody_writes_are_refused(tiny_mmar: Path) -> None:
    for number in range(MAX_DOCUMENTS):
        (tiny_mmar / f"config/more_{number}.json").write_text("{}")

    assert "limit" in rules(tiny_mmar)


def test_a_log_config_that_asks_for_more_than_a_terminal_is_refused(tiny_mmar: Path) -> None:
    log = tiny_mmar / "resources/log.config"
    log.parent.mkdir()
    log.write_text("[handlers]\nkeys=a\n[handler_a]\nclass=subprocess.Popen\nargs=(['id'],)\n")

    assert "log-config" in rules(tiny_mmar)


@pytest.mark.parametrize("path", ["nowhere", "a\0b", ""])
def test_what_is_no_mmar_is_refused(tmp_path: Path, path: str) -> None:
    assert not check_mmar(f"{tmp_path}/{path}").accepted


@pytest.mark.parametrize(
    ("fault", "rule"),
    [(RecursionError, "check"), (PermissionError, "check"), (MemoryError, "cost")],
)
def test_a_fault_of_the_check_itself_is_a_refusal(
    tiny_mmar: Path, monkeypatch: pytest.MonkeyPatch, fault: type[Exception], rule: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("mmar_runtime.policy.mmar_check.load_train_config", broken)

    assert rules(tiny_mmar) == {rule}


def test_a_folder_that_may_not_be_read_asks_for_the_right(
    tiny_mmar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/home/me/config")

    monkeypatch.setattr("mmar_runtime.policy.mmar_check.load_train_config", closed)
    [problem] = check_mmar(tiny_mmar).problems

    assert (problem.message, problem.advice) == (
        "cannot be read: Permission denied",
        "Give the user of this process the right to read all of it.",
    )


def test_weights_are_not_opened(tiny_mmar: Path) -> None:
    os.mkfifo(tiny_mmar / "models/model.pt")  # who opens it waits for ever

    assert rules(tiny_mmar) == {"path"}


def test_torchscript_is_refused_unless_the_site_has_listed_it(
    tiny_mmar: Path, edited: Edited
) -> None:
    def names_it(document: Any) -> None:
        document["model"] = {"ts_path": "{MMAR_TORCHSCRIPT}"}

    edited(tiny_mmar / "config/config_validation.json", names_it)
    assert check_mmar(tiny_mmar).accepted  # there is no such file
    script = tiny_mmar / "models/model.ts"

    script.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert check_mmar(tiny_mmar).accepted  # a pointer to one

    script.write_bytes(b"PK\x03\x04 code")
    assert rules(tiny_mmar) == {"torchscript"}
    listed = SitePolicy(torchscript_sha256=(file_hash(script),))
    assert check_mmar(tiny_mmar, listed).accepted


def test_a_name_that_no_file_can_have_is_judged_like_any_other(
    tiny_mmar: Path, edited: Edited
) -> None:
    def names_it(document: Any) -> None:
        document["model"] = {"ts_path": "{MMAR_CKPT_DIR}/" + "x" * 300 + ".ts"}

    edited(tiny_mmar / "config/config_validation.json", names_it)

    assert "check" not in rules(tiny_mmar)
