"""Jobs against a site's policy: their files, the classes they ask for, and the zip they come in."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_client.job_check import check_app, check_job, check_path
from fl_client.jobs.classes import ALLOWED_CLASSES
from fl_client.jobs.files import MAX_FILES
from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.custom_check import code_hash
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, Byoc, Limits, SitePolicy

JOB = Path(__file__).resolve().parents[2] / "jobs/spleen_ct_segmentation"
CODE_ON = SitePolicy(byoc=Byoc(mode="on"))

Edited = Callable[[Path, Callable[[Any], object]], Path]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A copy of the job of this repository, as it is in a fresh checkout."""
    ignored = shutil.ignore_patterns("models", "eval")
    return Path(shutil.copytree(JOB, tmp_path / "spleen", ignore=ignored))


def rules(path: Path, policy: SitePolicy = DEFAULT_POLICY) -> set[str]:
    return {one.rule for one in check_job(path, policy).problems}


def zipped(folder: Path, *, top: str = "") -> Path:
    """The folder as a zip, below a folder of its own where ``top`` names one."""
    path = folder.parent / "job.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            archive.write(file, Path(top) / file.relative_to(folder))
    return path


def with_entry(path: Path, name: str | zipfile.ZipInfo, content: bytes = b"{}") -> Path:
    """The zip with one entry more."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


# --- What is accepted ----------------------------------------------------------------------------


def test_the_job_of_this_repository_is_accepted(job: Path) -> None:
    assert check_job(job).problems == ()
    assert check_app(job / "app").problems == ()


@pytest.mark.parametrize("top", ["", "spleen"])
def test_its_zip_is_accepted(job: Path, top: str) -> None:
    assert check_job(zipped(job, top=top)).problems == ()


def test_a_signed_job_is_accepted(job: Path) -> None:
    for folder in (job, job / "app", job / "app/config"):
        (folder / ".__nvfl_sig.json").write_text("{}")
        (folder / ".__nvfl_submitter.crt").write_text("")

    assert check_job(job).problems == ()


def test_weights_are_not_opened(job: Path) -> None:
    (job / "app/models").mkdir()
    (job / "app/models/model.pt").write_bytes(b"no weights")

    assert check_job(job).accepted
    assert check_job(zipped(job)).accepted


def test_one_function_takes_whatever_lies_there(job: Path) -> None:
    for path in (job, zipped(job), job / "app", job / "app/config/config_train.json"):
        assert check_path(path).accepted

    with pytest.raises(ConfigError, match="there is nothing at"):
        check_path(job / "nowhere")


# --- Code ----------------------------------------------------------------------------------------


def test_code_in_custom_needs_the_sites_consent_whether_or_not_it_is_named(job: Path) -> None:
    (job / "app/custom").mkdir()
    (job / "app/custom/own_loss.py").write_text("")

    assert rules(job) == {"code"}
    assert rules(zipped(job)) == {"code"}
    assert rules(job, SitePolicy(byoc=Byoc(mode="by_hash", approved=("0" * 64,)))) == {"code"}
    assert rules(job, CODE_ON) == set()


@pytest.mark.parametrize(
    "file",
    [
        "app/evil.py",
        "app/config/evil.py",
        "app/models/evil.so",
        "app/docs/evil.PYC",
        "app/x/evil.py",
    ],
)
def test_code_elsewhere_is_refused_even_where_code_is_on(job: Path, file: str) -> None:
    path = job / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("")

    assert rules(job) == {"code"}
    assert rules(job, CODE_ON) == {"code"}


def test_a_file_beside_custom_is_no_code_of_custom(job: Path) -> None:
    (job / "app/custom").write_text("")

    assert rules(job) == {"job-file"}


# --- Files and NVFlare's configs -----------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [
        "notes.txt",
        "other/config/config_fed_client.json",
        "meta.conf",
        "app/config/config_fed_client.conf",
        "app/config/config_fed_client.yml",
        "app/config/config_fed_extra.json",
        "app/config/deeper/config_train.json",
        "app/eval/metrics.csv",
        "app/anything.json",
    ],
)
def test_a_file_that_does_not_belong_there_is_refused(job: Path, file: str) -> None:
    path = job / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")

    assert rules(job) == {"job-file"}


@pytest.mark.parametrize("file", ["config_fed_server.json", "config_fed_client.json"])
def test_both_configs_of_nvflare_are_needed(job: Path, file: str) -> None:
    (job / "app/config" / file).unlink()

    assert rules(job) == {"missing-file"}


@pytest.mark.parametrize(
    "component",
    [
        {"id": "x", "path": "subprocess.Popen", "args": {"args": ["id"]}},
        {"id": "x", "path": ALLOWED_CLASSES[0] + "x"},
        {"id": "x", "path": "{chosen}"},
        {"id": "x", "path": ["subprocess.Popen"]},
        {"id": "x", "name": "Popen"},
        {"id": "x", "class_path": "subprocess.Popen"},
        {"id": "x", "path": ALLOWED_CLASSES[0], "args": {"filter": {"path": "os.system"}}},
        {"id": "x", "path": ALLOWED_CLASSES[0], "args": {"filters": [[{"path": "os.system"}]]}},
    ],
)
@pytest.mark.parametrize("file", ["config_fed_server.json", "config_fed_client.json"])
def test_only_listed_classes_may_be_named(
    job: Path, edited: Edited, file: str, component: dict[str, Any]
) -> None:
    edited(job / "app/config" / file, lambda conf: conf["components"].append(component))

    assert "allow-list" in rules(job)


# --- classes of a job's own code


def with_own_filter(job: Path, path: str = "own.parts.Half") -> Path:
    custom = job / "app/custom/own"
    custom.mkdir(parents=True)
    (custom / "parts.py").write_text("class Half: ...\n")
    file = job / "app/config/config_fed_client.json"
    document = json.loads(file.read_text())
    document["task_result_filters"] = [{"tasks": ["train"], "filters": [{"path": path}]}]
    file.write_text(json.dumps(document))
    return job


def told(path: Path, policy: SitePolicy) -> list[str]:
    found = check_job(path, policy).problems
    return [f"{one.rule} {one.location}" for one in found]


def test_a_class_of_the_jobs_own_code_needs_the_consent_for_code(job: Path) -> None:
    with_own_filter(job)
    place = "config_fed_client.json: task_result_filters[0].filters[0].path"

    assert f"code {place}" in told(job, DEFAULT_POLICY)
    assert told(job, CODE_ON) == []


def test_and_the_approval_of_this_very_code(job: Path) -> None:
    with_own_filter(job)
    approved = SitePolicy(byoc=Byoc(mode="by_hash", approved=(code_hash(job / "app/custom"),)))

    assert told(job, approved) == []
    (job / "app/custom/own/parts.py").write_text("class Half: ...\n\n")
    assert told(job, approved) == ["code custom"]


@pytest.mark.parametrize(
    "path",
    [
        "own.part.Half",  # no such file
        "own.Half",  # a folder, and no module of its own
        "Half",
        "os.system",
        "own.parts.Half()",
        "own/parts.Half",
        "fl_client.flare.privacy.ModelFilter",
    ],
)
def test_a_class_that_is_in_no_file_of_the_code_is_not_the_jobs_own(job: Path, path: str) -> None:
    with_own_filter(job, path)

    assert rules(job, CODE_ON) == {"allow-list"}


@pytest.mark.parametrize("module", ["subprocess", "nvflare", "fl_client"])
def test_a_file_cannot_stand_in_for_a_module_that_is_there(job: Path, module: str) -> None:
    """Python would find the one or the other; nobody should have to know which."""
    with_own_filter(job, f"{module}.Popen")
    (job / f"app/custom/{module}.py").write_text("class Popen: ...\n")

    assert rules(job, CODE_ON) == {"code"}


@pytest.mark.parametrize("document", ["client", "train"])
def test_approved_code_lends_no_job_what_it_imports(job: Path, document: str) -> None:
    """Else a job could call it with arguments that nobody has approved."""
    with_own_filter(job)
    (job / "app/custom/own/parts.py").write_text(
        "from subprocess import run\nclass Half: pass\ndef make(): pass\n"
    )
    approved = SitePolicy(byoc=Byoc(mode="by_hash", approved=(code_hash(job / "app/custom"),)))
    assert told(job, approved) == []
    hostile = {"path": "own.parts.run", "args": {"args": ["touch", "marker"]}}
    name = "config_fed_client" if document == "client" else "config_train"
    file = job / f"app/config/{name}.json"
    content = json.loads(file.read_text())
    if document == "client":
        content["components"].append({"id": "x", **hostile})
    else:
        content["train"]["handlers"].append({"path": "own.parts.make"})
        file.write_text(json.dumps(content))
        assert told(job, approved) == []
        content["train"]["handlers"].append(hostile)
    file.write_text(json.dumps(content))

    for policy in (approved, CODE_ON):
        [problem] = check_job(job, policy).problems
        assert problem.rule == "code"
        assert "custom/own/parts.py defines itself" in problem.message


@pytest.mark.parametrize("key", ["name", "class_path", "_target_"])
def test_own_classes_are_named_by_path_alone(job: Path, key: str) -> None:
    with_own_filter(job)
    file = job / "app/config/config_fed_client.json"
    file.write_text(file.read_text().replace('"path": "own.parts', f'"{key}": "own.parts'))

    assert "allow-list" in rules(job, CODE_ON)


def test_own_code_opens_no_other_class(job: Path, edited: Edited) -> None:
    with_own_filter(job)
    hostile = {"id": "x", "path": "subprocess.Popen"}
    file = job / "app/config/config_fed_client.json"
    edited(file, lambda conf: conf["components"].append(hostile))

    assert rules(job, CODE_ON) == {"allow-list"}


def test_arguments_of_our_filters_are_judged(job: Path, edited: Edited) -> None:
    path = "fl_client.flare.privacy.PercentilePrivacy"
    chain = {"tasks": ["train"], "filters": [{"path": path, "args": {"gamma": 0, "gama": 1}}]}
    file = job / "app/config/config_fed_client.json"
    edited(file, lambda conf: conf.update(task_result_filters=[chain]))

    assert told(job, DEFAULT_POLICY) == [
        "privacy config_fed_client.json: task_result_filters[0].filters[0].args.gama"
    ]


def test_a_chain_of_filters_names_real_tasks(job: Path, edited: Edited) -> None:
    one = {"path": "fl_client.flare.privacy.PercentilePrivacy"}
    chains = [{"tasks": ["*"], "filters": [one]}, {"tasks": ["train"], "filters": [one]}]
    file = job / "app/config/config_fed_client.json"
    edited(file, lambda conf: conf.update(task_result_filters=chains))

    assert told(job, DEFAULT_POLICY) == [
        "privacy config_fed_client.json: task_result_filters[0].tasks"
    ]


@pytest.mark.parametrize("text", ["{$SECRET}", "a {$HOME} b", "${env.SECRET}"])
@pytest.mark.parametrize("file", ["meta.json", "app/config/config_fed_client.json"])
def test_the_sites_environment_cannot_be_asked_for(
    job: Path, edited: Edited, file: str, text: str
) -> None:
    edited(job / file, lambda conf: conf.update(name=text) if file == "meta.json" else None)
    if file != "meta.json":
        edited(job / file, lambda conf: conf.update(note={text: [text]}))

    assert "job-file" in rules(job)


def test_a_key_given_twice_is_refused(job: Path) -> None:
    path = job / "app/config/config_fed_client.json"
    path.write_text('{"components": [], "components": []}')

    assert rules(job) == {"json"}


@pytest.mark.parametrize(
    "change",
    [
        {"deploy_map": {}},
        {"deploy_map": {"app": [], "other": []}},
        {"deploy_map": {"../app": []}},
        {"deploy_map": {"..": []}},
        {"deploy_map": ["app"]},
        {"name": ""},
        {"byoc": True},
        {"launcher_spec": {"docker": {"image": "evil"}}},
    ],
)
def test_the_jobs_own_description_is_a_closed_list(
    job: Path, edited: Edited, change: dict[str, Any]
) -> None:
    edited(job / "meta.json", lambda meta: meta.update(change))

    assert "job-file" in rules(job)


def test_no_name_of_a_job_asks_for_a_value(job: Path, edited: Edited) -> None:
    (job / "app").rename(job / "{WORKSPACE}")
    edited(job / "meta.json", lambda meta: meta.update(deploy_map={"{WORKSPACE}": ["@ALL"]}))

    assert rules(job) == {"job-file"}


def test_a_job_has_a_name(job: Path, edited: Edited) -> None:
    edited(job / "meta.json", lambda meta: meta.pop("name"))

    assert rules(job) == {"job-file"}


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config_fed_server.json", {"num_rounds": 6}),
        ("config_fed_client.json", {"local_epochs": 6}),
        ("config_fed_server.json", {"num_rounds": 0}),
        ("config_fed_server.json", {"num_rounds": "many"}),
    ],
)
def test_rounds_and_epochs_keep_to_the_sites_limits(
    job: Path, edited: Edited, file: str, change: dict[str, Any]
) -> None:
    policy = SitePolicy(limits=Limits(rounds=5, epochs_per_round=5))
    assert rules(job, policy) == set()

    edited(job / "app/config" / file, lambda conf: conf.update(change))
    assert rules(job, policy) == {"limit"}


def test_an_argument_cannot_pass_by_the_limit(job: Path, edited: Edited) -> None:
    def more(conf: Any) -> None:
        conf["executors"][0]["executor"]["args"]["local_epochs"] = 10_000

    edited(job / "app/config/config_fed_client.json", more)

    assert rules(job) == {"limit"}


def test_the_mmar_inside_is_judged(job: Path, edited: Edited) -> None:
    path = job / "app/config/config_train.json"
    edited(path, lambda conf: conf["train"].update(loss={"path": "os.system"}))

    assert "code" in rules(job)
    assert "code" in rules(zipped(job))
    assert "code" in {one.rule for one in check_app(job / "app").problems}


def test_an_app_that_is_not_there_is_refused(job: Path) -> None:
    shutil.rmtree(job / "app")

    assert rules(job) == {"job-file"}


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is not a zip"), (b"PK\5\6" + bytes(18), "has no files")],
)
def test_a_zip_without_files_says_so(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "job.zip").write_bytes(content)

    assert [one.message for one in check_path(tmp_path / "job.zip").problems] == [message]


# --- Links and odd files -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["app/config/config_x.json", "app/models", "app/docs/x.md"])
def test_a_link_is_refused(job: Path, name: str) -> None:
    (job / name).symlink_to("/etc")

    assert "archive" in rules(job)


def test_a_folder_that_cannot_be_listed_is_refused(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.scandir

    def refusing(path: str) -> Any:
        if str(path) == str(job / "app/docs"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    (job / "app/docs/x.md").touch()
    assert rules(job) == set()
    monkeypatch.setattr(os, "scandir", refusing)
    assert rules(job) != set()


def test_a_pipe_is_refused_unread(job: Path) -> None:
    os.mkfifo(job / "app/docs/x.md")

    assert rules(job) == {"archive"}


@pytest.mark.parametrize(
    "name", ["a\nb.md", "a\x1bb.md", "$HOME.md", "a\\b.md", "C:.md", "a\u202eb.md"]
)
def test_a_name_that_means_something_elsewhere_is_refused(job: Path, name: str) -> None:
    (job / "app/docs" / name).write_text("")

    found = check_job(job)

    assert {one.rule for one in found.problems} == {"archive"}
    assert all(str(one).isprintable() for one in found.problems)


# --- Zips ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "/etc/x.json",
        "../x.json",
        "app/../../x.json",
        "app\\..\\x.json",
        "C:/x.json",
        "app/./x.json",
        "app//x.json",
        "app/" + "a" * 300,
        "app/x\n.json",
    ],
)
def test_a_name_that_leads_out_of_the_zip_is_refused(job: Path, name: str) -> None:
    assert rules(with_entry(zipped(job), name)) == {"archive"}


def test_a_name_with_a_nul_is_refused(job: Path) -> None:
    path = with_entry(zipped(job), "app/docs/abc.md")
    path.write_bytes(path.read_bytes().replace(b"app/docs/abc.md", b"app/docs/a\0c.md"))

    assert rules(path) == {"archive"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["meta.json", "META.json", "app/config/Config_Train.json"])
def test_an_entry_given_twice_is_refused(job: Path, name: str) -> None:
    assert "archive" in rules(with_entry(zipped(job), name))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_an_entry_that_is_no_file_is_refused(job: Path, mode: int) -> None:
    info = zipfile.ZipInfo("app/docs/x.md")
    info.external_attr = (mode | 0o644) << 16

    assert rules(with_entry(zipped(job), info, b"/etc/passwd")) == {"archive"}


def test_an_entry_that_unpacks_to_far_more_than_it_is_is_refused(job: Path) -> None:
    path = with_entry(zipped(job), "app/models/model.pt", bytes(20 * 2**20))

    assert rules(path) == {"archive"}


def test_an_entry_that_lies_about_its_size_is_refused(job: Path) -> None:
    path = with_entry(zipped(job), "app/docs/x.md", b"a" * 100_000)
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 100_000), struct.pack("<L", 10)))

    assert rules(path) == {"archive"}


def test_too_many_entries_are_refused_before_the_table_is_read(job: Path) -> None:
    path = zipped(job)
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(MAX_FILES):
            archive.writestr(f"app/docs/{number}.md", b"")

    assert rules(path) == {"archive"}


def test_another_way_of_packing_is_refused(job: Path) -> None:
    path = zipped(job)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("app/docs/x.md", b"text")

    assert rules(path) == {"archive"}


def damaged(job: Path) -> dict[str, bytes]:
    whole = zipped(job).read_bytes()
    return {
        "nothing": b"",
        "text": b"no zip at all" * 100,
        "cut short": whole[:-30],
        "no table": whole[-22:],
        "something in front": b"#!/bin/sh\n" + whole,
        "something behind": whole + b"x",
        "a comment": whole[:-2] + b"\x01\x00x",
        "zeros inside": whole[:500] + bytes(500) + whole[1000:],
        "a wrong offset": whole[:-6] + bytes(4) + whole[-2:],
        "64-bit record": whole[:-22] + b"PK\x06\x07" + bytes(16) + whole[-22:],
    }


@pytest.mark.parametrize(
    "case",
    [
        *("nothing", "text", "cut short", "no table", "something in front", "something behind"),
        *("a comment", "zeros inside", "a wrong offset", "64-bit record"),
    ],
)
def test_a_damaged_or_ambiguous_zip_is_refused(job: Path, case: str) -> None:
    path = job.parent / "damaged.zip"
    path.write_bytes(damaged(job)[case])

    assert rules(path) == {"archive"}


def test_nothing_is_left_behind(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(private))

    check_job(zipped(job))
    check_job(with_entry(zipped(job), "app/config/config_train.JSON", b"["))

    assert list(private.iterdir()) == []


def test_a_job_is_judged_within_a_second(job: Path) -> None:
    path = zipped(job)
    start = time.perf_counter()
    check_job(path)

    assert time.perf_counter() - start < 1


def test_a_verdict_on_a_job_is_json(job: Path) -> None:
    (job / "app/evil.py").write_text("")

    assert json.loads(json.dumps(check_job(job).as_dict()))["problems"] == [
        {
            "rule": "code",
            "file": "evil.py",
            "place": "",
            "message": "is code outside of custom/",
        }
    ]
