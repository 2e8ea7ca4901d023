"""Paths of a configuration: where a job may read and write, and where an owner may."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmar_runtime.config.loader import Check, load_train_config
from mmar_runtime.errors import ConfigError
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.files import image_file, paths
from mmar_runtime.policy.files.paths import Places, resolve_inside, text_fault
from mmar_runtime.policy.mmar_check import check_mmar, own_mmar_checks
from mmar_runtime.policy.path_check import path_check, results_elsewhere
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SitePolicy

Edited = Callable[[Path, Callable[[Any], object]], Path]

LOADER, SAVER = 0, 3
"""The checkpoint handlers among those of the tiny MMAR's training."""


def train(root: Path) -> Path:
    return root / "config/config_train.json"


def problems(root: Path, policy: SitePolicy = DEFAULT_POLICY, **values: Any) -> list[str]:
    """The places of all problems of a job's MMAR, which are about paths alone."""
    found = check_mmar(root, policy, **values).problems
    assert {one.rule for one in found} <= {"path"}
    return [one.location.place for one in found]


def handler(document: Any, index: int, **arguments: object) -> None:
    document["train"]["handlers"][index]["args"].update(arguments)


# --- The resolver --------------------------------------------------------------------------------


def test_a_path_is_followed_to_where_it_leads(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "folder").mkdir(parents=True)
    outside.mkdir()
    (root / "in").symlink_to("folder")
    (root / "out").symlink_to(outside)

    assert resolve_inside(root, "folder/x") == root / "folder/x"
    assert resolve_inside(root, "in/x") == root / "folder/x"
    assert resolve_inside(root, "folder/../x") == root / "x"
    assert resolve_inside(root, str(root / "x")) == root / "x"
    for leads_out in ("out/x", "../outside", "folder/../../outside", "/etc/passwd", "../root2"):
        assert resolve_inside(root, leads_out) is None


PARTS = st.sampled_from(
    ["..", ".", "", "a", "up", "out", "loop", "/", "a b", "root", "~", "x" * 300]
)


@given(parts=st.lists(PARTS | st.text(st.characters(exclude_characters="\0"), max_size=5)))
def test_no_text_leads_out(parts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp() / "resolver"
    root = base / "root"
    if not root.exists():
        (root / "a").mkdir(parents=True)
        (root / "up").symlink_to("..")
        (root / "out").symlink_to("/etc")
        (root / "loop").symlink_to("loop")
    text = "/".join(parts)
    if text_fault(text):
        return

    found = resolve_inside(root, text)

    assert found is None or Path(os.path.realpath(found)).is_relative_to(os.path.realpath(root))


@pytest.mark.parametrize(
    "text",
    ["a\0b", "a\nb", "a\x1b[2Jb", "http://host/x", "FILE:///etc", "C:\\x", "~/x", "~root",
     "$HOME/x", "a\\b", "a/" * 2000],
)  # fmt: skip
def test_a_text_that_means_another_place_elsewhere_is_no_path(text: str) -> None:
    assert text_fault(text)
    assert not text_fault("/data/study 7/case-1.nii.gz")


# --- One place after another ---------------------------------------------------------------------


def test_results_go_to_no_data_but_those_that_lie_in_the_mmar() -> None:
    """A site may have named a folder of its own below its data, and keep data in an MMAR."""
    places = Places(root="/job", data=("/data", "/job/data"), trusted=("/data/results", "/runs"))

    assert places.fault("/runs/a", "write:run") == ""
    assert places.fault("/job/data/a", "write:run") == ""
    assert places.fault("/data/results/a", "write:run")
    assert places.fault("/elsewhere/a", "write:run")


def test_the_list_of_a_site_may_lie_anywhere_but_in_the_job() -> None:
    def fault(text: str, named: str) -> str:
        return Places(root="/job", data=("/data",), data_list=named).fault(text, "read:list")

    assert fault("/lists/a.json", named="/lists/a.json") == ""
    assert fault("/data/b.json", named="/lists/a.json") == ""
    assert fault("/lists/b.json", named="/lists/a.json")
    assert fault("/job/a.json", named="/job/a.json")


def test_a_list_is_no_pipe_and_a_folder_of_slices_no_flood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(root="/job", data=(str(tmp_path),))
    os.mkfifo(tmp_path / "list.json")
    (tmp_path / "series").mkdir()
    for number in range(3):
        (tmp_path / f"series/{number}.dcm").touch()
    assert places.fault(f"{tmp_path}/list.json", "read:list") == "is not a plain file"
    assert places.fault(f"{tmp_path}/series", "read:image") == ""

    monkeypatch.setattr(paths, "MAX_MEMBERS", 2)
    assert places.fault(f"{tmp_path}/series", "read:image") == "holds more than 2 files"


@pytest.mark.parametrize(
    ("text", "good"),
    [("https://tracker", True), ("file:///job/runs", True), ("sqlite:////job/runs.db", True),
     ("/job/runs", True), ("file://etc/x", False), ("sqlite://etc/x", False),
     ("file:///etc/x", False), ("sqlite:////etc/x", False)],
)  # fmt: skip
def test_a_service_is_elsewhere_or_a_file_of_the_run(text: str, good: bool) -> None:
    fault = Places(root="/job", data=("/data",)).fault(text, "write:service")

    assert (fault == "") is good


def test_a_header_names_a_plain_file_by_a_plain_name(tmp_path: Path) -> None:
    places, header = Places(root="/job", data=(str(tmp_path),)), tmp_path / "a.mhd"
    for name in ("voxels.raw", "$voxels.raw"):
        (tmp_path / name).touch()

    def fault(named: str) -> str:
        header.write_text(f"ObjectType = Image\nElementDataFile = {named}\n")
        return places.fault(str(header), "read:image")

    assert fault("voxels.raw") == ""
    assert "another place" in fault("$voxels.raw")
    assert "not a plain file" in fault("gone.raw")
    assert "site's data" in fault("../voxels.raw")


def test_a_header_lists_its_files_in_the_part_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, header = Places(root="/job", data=(str(tmp_path),)), tmp_path / "a.mhd"
    listed = "ObjectType = Image\nElementDataFile = LIST\nvoxels.raw\n"
    (tmp_path / "voxels.raw").touch()
    header.write_text(listed)
    assert places.fault(str(header), "read:image") == ""

    header.write_text(f"{listed}/etc/passwd\n")
    assert "site's data" in places.fault(str(header), "read:image")
    monkeypatch.setattr(image_file, "HEADER_BYTES", len(listed))
    assert "by a pattern" in places.fault(str(header), "read:image")


def test_a_word_that_begins_as_that_for_a_list_is_no_name(tmp_path: Path) -> None:
    """Readers compare its first letters alone."""
    places, header = Places(root="/job", data=(str(tmp_path),)), tmp_path / "a.nhdr"
    for name in ("LIST2", "skiplist.raw", "my-list.raw"):
        (tmp_path / name).touch()

    def fault(named: str) -> str:
        header.write_text(f"NRRD0004\ntype: float\ndata file: {named}\n")
        return places.fault(str(header), "read:image")

    assert fault("my-list.raw") == ""
    assert "by a pattern" in fault("LIST2")
    assert "by a pattern" in fault("skiplist.raw")


def test_results_go_to_no_pipe(tmp_path: Path) -> None:
    places = Places(root=str(tmp_path), data=())
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()

    assert places.fault(f"{tmp_path}/folder", "write:run") == ""
    assert places.fault(f"{tmp_path}/pipe", "write:run")


# --- Writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["{MMAR_CKPT_DIR}", "{MMAR_CKPT_DIR}/a/b", "{MMAR_ROOT}/runs"])
def test_a_job_writes_below_its_own_folder(tiny_mmar: Path, edited: Edited, place: str) -> None:
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir=place))

    assert problems(tiny_mmar) == []


@pytest.mark.parametrize(
    "place",
    ["/tmp/x", "{MMAR_ROOT}/../x", "{MMAR_CKPT_DIR}/../../x", "{MMAR_ROOT}/config",
     "{MMAR_ROOT}/custom/x", "{DATA_ROOT}/x", "models", "local", ".", "~/x", "file:///tmp", "a\0b"],
)  # fmt: skip
def test_a_job_writes_nowhere_else(tiny_mmar: Path, edited: Edited, place: str) -> None:
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir=place))

    assert problems(tiny_mmar) == ["train.handlers[3].args.save_dir"]


def test_a_relative_path_depends_on_where_the_site_was_started(
    tiny_mmar: Path, edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused even where it would happen to lead into the MMAR, as for whoever checks it."""
    monkeypatch.chdir(tiny_mmar)
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir="models"))

    assert problems(tiny_mmar) == ["train.handlers[3].args.save_dir"]


def test_a_link_in_the_mmar_leads_nowhere_else(
    tiny_mmar: Path, edited: Edited, tmp_path: Path
) -> None:
    (tiny_mmar / "models/in").symlink_to(tiny_mmar / "models")
    (tiny_mmar / "models/out").symlink_to(tmp_path)
    place = "{MMAR_CKPT_DIR}/in/x"
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir=place))
    assert problems(tiny_mmar) == []

    place = "{MMAR_CKPT_DIR}/out/x"
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir=place))
    assert problems(tiny_mmar) == ["train.handlers[3].args.save_dir"]


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("MMAR_CKPT_DIR", "models/a", False),
        ("MMAR_EXPORTS", "docs/exports", False),
        ("MMAR_VERSION", 3, False),
        ("MMAR_CKPT_DIR", "config", True),
        ("MMAR_EVAL_OUTPUT_PATH", "custom/x", True),
        ("MMAR_EVAL_OUTPUT_PATH", ".", True),
        ("MMAR_CKPT_DIR", "", True),
        ("MMAR_CKPT_DIR", 3, True),
        ("MMAR_EXPORTS", "../x", True),
        ("MMAR_EXPORTS", "a\0b", True),
    ],
)
def test_the_runtime_itself_writes_where_a_variable_says(
    tiny_mmar: Path, edited: Edited, name: str, value: object, refused: bool
) -> None:
    environment = tiny_mmar / "config/environment.json"
    edited(environment, lambda document: document.update({name: value}))

    assert (name in problems(tiny_mmar)) is refused


@pytest.mark.parametrize("argument", ["final_filename", "key_metric_filename", "file_prefix"])
def test_a_file_has_a_plain_name(tiny_mmar: Path, edited: Edited, argument: str) -> None:
    def named(name: str) -> Callable[[Any], object]:
        return lambda document: handler(document, SAVER, **{argument: name})

    edited(train(tiny_mmar), named("best-2.pt"))
    assert problems(tiny_mmar) == []

    for name in ("../x.pt", "/tmp/x.pt", "a/b.pt", "..", "a b"):
        edited(train(tiny_mmar), named(name))
        assert problems(tiny_mmar) == [f"train.handlers[3].args.{argument}"]


def test_names_that_become_names_of_files_are_plain_too(tiny_mmar: Path, edited: Edited) -> None:
    escape = {"../../x": "@model"}
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dict=escape))
    assert problems(tiny_mmar) == ["train.handlers[3].args.save_dict"]

    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dict={"net": "@model"}))
    assert problems(tiny_mmar) == []

    metric = {"log_label": "../../x"}
    edited(train(tiny_mmar), lambda document: document["validate"]["key_metric"].update(metric))
    (problem,) = check_mmar(tiny_mmar).problems
    assert (problem.rule, problem.location.place) == ("log-label", "validate.key_metric.log_label")


def test_results_are_not_named_by_a_way_out(tiny_mmar: Path, edited: Edited) -> None:
    def save(base: str) -> Callable[[Any], object]:
        arguments = {"keys": "pred", "output_dir": "{MMAR_CKPT_DIR}", "data_root_dir": base}
        saver = {"name": "SaveImaged", "args": arguments}
        return lambda document: document["validate"]["post_transforms"].__setitem__(0, saver)

    edited(train(tiny_mmar), save("{DATA_ROOT}"))
    assert problems(tiny_mmar) == []

    # MONAI joins output_dir with the way from data_root_dir to the image: ../../../.. here.
    edited(train(tiny_mmar), save("{DATA_ROOT}/a/b/c/d"))
    assert "validate.dataset.data_file_base_dir" in problems(tiny_mmar)

    edited(train(tiny_mmar), save("/"))
    assert "validate.post_transforms[0].args.data_root_dir" in problems(tiny_mmar)


def test_a_tracker_writes_where_everything_else_does(tiny_mmar: Path, edited: Edited) -> None:
    policy = SitePolicy(egress=True)

    def track(**arguments: object) -> Callable[[Any], object]:
        tracker = {"name": "MLFlowHandler", "args": arguments}
        return lambda document: document["train"]["handlers"].__setitem__(4, tracker)

    for good in ("https://tracker.example:5000", "sqlite:///{MMAR_CKPT_DIR}/runs.db",
                 "file://{MMAR_CKPT_DIR}/runs", "{MMAR_CKPT_DIR}/runs"):  # fmt: skip
        edited(train(tiny_mmar), track(tracking_uri=good, artifacts="{MMAR_ROOT}/config"))
        assert problems(tiny_mmar, policy) == []
    for bad in ("file:///tmp/x", "file:/tmp/x", "sqlite:////tmp/x.db", "/tmp/x", "runs"):
        edited(train(tiny_mmar), track(tracking_uri=bad))
        assert problems(tiny_mmar, policy) == ["train.handlers[4].args.tracking_uri"]
    for upload in ("/etc", ["{MMAR_ROOT}/config", "/etc"]):
        edited(train(tiny_mmar), track(artifacts=upload))
        assert problems(tiny_mmar, policy) == ["train.handlers[4].args.artifacts"]


def test_a_service_may_be_switched_on_without_an_address(tiny_mmar: Path, edited: Edited) -> None:
    policy = SitePolicy(egress=True)

    def track(output_uri: object) -> Callable[[Any], object]:
        tracker = {"name": "ClearMLStatsHandler", "args": {"output_uri": output_uri}}
        return lambda document: document["train"]["handlers"].__setitem__(4, tracker)

    for good in (True, False, "https://files.example:8081"):
        edited(train(tiny_mmar), track(good))
        assert problems(tiny_mmar, policy) == []
    for bad in (1, "/tmp/x"):
        edited(train(tiny_mmar), track(bad))
        assert problems(tiny_mmar, policy) == ["train.handlers[4].args.output_uri"]


# --- Weights -------------------------------------------------------------------------------------


def load(path: object) -> Callable[[Any], object]:
    def change(document: Any) -> None:
        document["dont_load_ckpt_model"] = False
        handler(document, LOADER, load_path=path)

    return change


def test_weights_are_those_of_the_mmar(tiny_mmar: Path, edited: Edited) -> None:
    edited(train(tiny_mmar), load("{MMAR_CKPT_DIR}/other.safetensors"))
    assert problems(tiny_mmar) == []

    for bad in ("/srv/model.pt", "{MMAR_ROOT}/../model.pt", "models/model.pt", "https://host/x.pt",
                "{MMAR_ROOT}/custom/x.pt", "{MMAR_CKPT_DIR}/x.pkl", "/dev/zero", 0, ["a.pt"],
                None):  # fmt: skip
        edited(train(tiny_mmar), load(bad))
        assert problems(tiny_mmar) == ["train.handlers[0].args.load_path"]


def test_weights_are_a_plain_file(tiny_mmar: Path, edited: Edited) -> None:
    edited(train(tiny_mmar), load("{MMAR_CKPT_DIR}/start.pt"))
    os.mkfifo(tiny_mmar / "models/start.pt")

    assert problems(tiny_mmar) == ["train.handlers[0].args.load_path"]


def test_the_site_may_keep_weights_and_results_elsewhere(tiny_mmar: Path, tmp_path: Path) -> None:
    elsewhere = {"MMAR_CKPT_DIR": str(tmp_path / "runs"), "MMAR_CKPT": str(tmp_path / "start.pt")}

    assert problems(tiny_mmar, site_values=elsewhere) == []
    assert problems(tiny_mmar, overrides=elsewhere) == []


def test_a_jobs_own_word_for_the_same_is_refused(tiny_mmar: Path, edited: Edited) -> None:
    environment = tiny_mmar / "config/environment.json"
    edited(environment, lambda document: document.update(MMAR_CKPT_DIR="/scratch/runs"))

    assert "MMAR_CKPT_DIR" in problems(tiny_mmar)


# --- Data ----------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """A site's own values, with an empty folder of data."""
    (tmp_path / "data").mkdir()
    return {"DATA_ROOT": str(tmp_path / "data"), "DATASET_JSON": str(tmp_path / "list.json")}


def listed(site: dict[str, str], *items: object) -> dict[str, str]:
    """The site's values, once its list of cases is written."""
    Path(site["DATASET_JSON"]).write_text(json.dumps({"training": list(items)}))
    return site


def loading(document: Any, *keys: str) -> None:
    document["train"]["pre_transforms"][0]["args"]["keys"] = list(keys)


def insert(document: Any, index: int, transform: Any) -> None:
    document["train"]["pre_transforms"].insert(index, transform)


@pytest.mark.parametrize(
    "item",
    ["a.nii.gz", {"image": "a/b.nii.gz", "label": "c.nii"}, {"image": ["a.nii", "b.nii"]},
     {"image": "x/../a.nii", "age": 3, "note": "left / right"}, {"image": "a..b.nii.gz"},
     {"image": "M\u00fcller 1/T1 (2).NII.GZ"}, {"image": "a.nii", "source": "pacs:17 ~3 cm"},
     {"image": "a.nii", "from": "https://example.org/1"},
     {"image": "a.nii", "scanner": {"name": "A/B 1.5T", "rooms": ["x", 7]}}],
)  # fmt: skip
def test_a_list_names_data_of_the_site(tiny_mmar: Path, site: dict[str, str], item: object) -> None:
    assert problems(tiny_mmar, site_values=listed(site, item)) == []


@pytest.mark.parametrize(
    "item",
    ["/etc/passwd", "../other/a.nii", {"image": "a.nii", "label": "../../x.nii"},
     {"image": ["a.nii", "/proc/self/environ"]}, {"image": "a.nii", "mask": "~root/x.nii"},
     {"image": "http://host/a.nii"}, {"image": "a.nii", "extra": "/etc/passwd"},
     {"image": "a.nii", "extra": {"deep": [["../x.nii"]]}}, {"image": "a.nii", "b": "~/x.nii"},
     {"image": "a.nii", "label": {"/etc/x.nii": 1}}, {"image": "a.nii", "/etc/x.nii": 1},
     {"image": "a.nii", "image_meta_dict": {"filename_or_obj": "x"}},
     {"image": "a.nii", "image_meta_dict": {"patch_index": "x"}}, {"image": "a.eps"},
     {"image": "a.nii.hdr"}, {"image": "a.h5"}, {"image": "a"}, {"image": "a\\b.nii"}],
)  # fmt: skip
def test_and_nothing_else(tiny_mmar: Path, site: dict[str, str], item: object) -> None:
    [place] = problems(tiny_mmar, site_values=listed(site, "a.nii.gz", item))
    assert place.startswith("training[1]")


def test_what_a_loader_opens_is_a_file_whatever_it_is_called(
    tiny_mmar: Path, edited: Edited, site: dict[str, str]
) -> None:
    listed(site, {"image": "a.nii", "label": "b.nii", "contour": "notes.txt"})
    assert problems(tiny_mmar, site_values=site) == []

    edited(train(tiny_mmar), lambda document: loading(document, "image", "label", "contour"))
    assert problems(tiny_mmar, site_values=site) == ["training[0].contour"]
    listed(site, {"image": "a.nii", "label": "b.nii", "contour": "notes.nii"})
    assert problems(tiny_mmar, site_values=site) == []


def test_a_copy_of_an_entry_is_followed(
    tiny_mmar: Path, edited: Edited, site: dict[str, str]
) -> None:
    copier = {"name": "CopyItemsd", "args": {"keys": "note", "names": "copy"}}
    loader = {"name": "LoadImageD", "args": {"keys": "copy"}}
    listed(site, {"image": "a.nii", "label": "b.nii", "note": "none"})
    edited(train(tiny_mmar), lambda document: insert(document, 0, copier))
    assert problems(tiny_mmar, site_values=site) == []

    edited(train(tiny_mmar), lambda document: insert(document, 1, loader))
    assert problems(tiny_mmar, site_values=site) == ["training[0].note"]


@pytest.mark.parametrize(
    "steps",
    [[{"name": "FlattenSubKeysd", "args": {"keys": "a", "sub_keys": "b"}},
      {"name": "LoadImageD", "args": {"keys": "b"}}],
     [{"name": "FlattenSubKeysd", "args": {"keys": "a"}}],
     [{"name": "MapLabelValued", "args": {"keys": "label", "orig_labels": [1],
                                          "target_labels": ["/etc/x.nii"]}}],
     [{"name": "LoadImageD", "args": {"keys": "image_meta_dict"}}],
     [{"name": "LoadImageD", "args": {"keys": "lambda x: x"}}]],
)  # fmt: skip
def test_a_loader_opens_nothing_that_another_file_brings_along(
    tiny_mmar: Path, edited: Edited, steps: list[Any]
) -> None:
    edited(train(tiny_mmar), lambda document: document["train"]["pre_transforms"].extend(steps))

    assert check_mmar(tiny_mmar, DEFAULT_POLICY).problems


def test_the_labels_of_a_classification_are_values_until_a_loader_opens_them(
    tiny_mmar: Path, edited: Edited, site: dict[str, str]
) -> None:
    site["PROCESSING_TASK"] = "classification"
    edited(train(tiny_mmar), lambda document: loading(document, "image"))
    listed(site, *({"image": "a.png", "label": one} for one in (1, [0, 1], "none", "benign/2")))
    assert problems(tiny_mmar, site_values=site) == []

    listed(site, {"image": "a.png", "label": 1}, {"image": "a.png", "label": "none"})
    edited(train(tiny_mmar), lambda document: loading(document, "image", "label"))
    assert problems(tiny_mmar, site_values=site) == ["training[1].label"]


def test_a_jobs_folder_is_no_place_for_data(
    tiny_mmar: Path, edited: Edited, site: dict[str, str]
) -> None:
    (tiny_mmar / "config/list.json").write_text(json.dumps({"training": ["a.nii"]}))
    own = {"data_list_file_path": "{MMAR_ROOT}/config/list.json", "data_list_key": "training"}
    edited(train(tiny_mmar), lambda document: document["train"]["dataset"].update(own))
    assert problems(tiny_mmar, site_values=site) == ["train.dataset.data_list_file_path"]
    site["DATA_ROOT"] = str(tiny_mmar.parent)  # even where the site's data lie around the job
    assert problems(tiny_mmar, site_values=site) == ["train.dataset.data_list_file_path"]


@pytest.mark.parametrize(
    ("data", "places"),
    [
        ([{"image": "{DATA_ROOT}/a.nii", "label": "{DATA_ROOT}/b.nii", "age": 3}], []),
        ([{"image": "a.nii"}], ["data[0].image"]),
        ([{"image": "{MMAR_ROOT}/a.nii"}], ["data[0].image"]),
        ([{"image": "{DATA_ROOT}/a.nii", "label": ["/etc/x.nii"]}], ["data[0].label"]),
        (["#'/etc/x.nii' if 1 else None"], ["data[0]"]),
        ("#['/etc/x.nii']", ["data"]),
        ("@pre_transforms", ["data"]),
    ],
)
def test_cases_in_the_workflow_are_judged_too(
    tiny_mmar: Path, edited: Edited, site: dict[str, str], data: object, places: list[str]
) -> None:
    def written(document: Any) -> None:
        arguments = {"data": data, "transform": "@pre_transforms"}
        document["train"]["dataset"] = {"name": "Dataset", "args": arguments}

    edited(train(tiny_mmar), written)
    found = problems(tiny_mmar, site_values=site)
    assert found == [f"train.dataset.args.{one}" for one in places]


def test_nothing_opens_what_is_refused(
    tiny_mmar: Path, edited: Edited, site: dict[str, str], tmp_path: Path
) -> None:
    """The checks that follow read lists and images, and one names the keys that a list has."""
    (tmp_path / "other.json").write_text(json.dumps({"training": [{"image": "a", "prde": 1}]}))
    listed(site, "a.nii")

    def asking(document: Any) -> None:
        document["train"]["dataset"]["data_list_file_path"] = str(tmp_path / "other.json")
        asked = "#monai.handlers.from_engine(['prd'], first=True)"
        document["train"]["handlers"][4]["args"]["output_transform"] = asked

    edited(train(tiny_mmar), asking)
    opened: list[object] = []
    checks: list[Check] = [path_check(DEFAULT_POLICY), lambda config: opened.append(config) or []]

    with pytest.raises(ConfigError, match="leads out") as caught:
        load_train_config(Mmar.open(tiny_mmar), site=site, checks=checks)
    assert opened == []
    assert "prde" not in str(caught.value)


def test_links_in_the_data_lead_nowhere_else(
    tiny_mmar: Path, site: dict[str, str], tmp_path: Path
) -> None:
    data, archive = tmp_path / "data", tmp_path / "archive"
    (archive / "x").mkdir(parents=True)
    (archive / "a.nii").write_bytes(b"")
    (data / "link.nii").symlink_to(archive / "a.nii")
    (data / "folder").symlink_to(archive / "x")
    (data / "a.nii").write_bytes(b"")
    (data / "inside.nii").symlink_to("a.nii")
    os.mkfifo(data / "pipe.nii")
    both = SitePolicy(data_roots=(tmp_path / "data", archive, tmp_path / "list.json"))

    listed(site, "inside.nii")
    assert problems(tiny_mmar, site_values=site) == []
    # The last one looks like data/a.nii, and the kernel opens archive/a.nii.
    for name in ("link.nii", "folder/b.nii", "folder/../a.nii"):
        listed(site, name)
        assert problems(tiny_mmar, site_values=site) == ["training[0].image"]
        assert problems(tiny_mmar, both, site_values=site) == []

    listed(site, "pipe.nii")
    assert problems(tiny_mmar, site_values=site) == ["training[0].image"]


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ("#'{0}/x' if 1 < 2 else '{0}/y'", False),
        ("#'{0}/x' if 1 < 2 else '/tmp/y'", True),
        ("#None or '/tmp/y'", True),
        ("#f'{{1}}/tmp/y'", True),
        (["/tmp/y"], True),
        ({"a": "/tmp/y"}, True),
        (7, True),
        ("#7", True),
        ("#torch.float32", True),
    ],
)
def test_a_path_is_a_text_or_texts_that_can_be_listed(
    tiny_mmar: Path, edited: Edited, value: Any, refused: bool
) -> None:
    if isinstance(value, str):
        value = value.replace("{0}", str(tiny_mmar / "models"))
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir=value))

    assert problems(tiny_mmar) == ["train.handlers[3].args.save_dir"] * refused


@pytest.mark.parametrize(("folder", "refused"), [("models", False), ("/tmp/x", True), (None, True)])
def test_a_folder_that_is_left_out_is_that_of_the_run(
    tiny_mmar: Path, edited: Edited, folder: str | None, refused: bool
) -> None:
    place = None if folder is None else str(tiny_mmar / folder)
    edited(tiny_mmar / "config/environment.json", lambda values: values.update(MMAR_CKPT_DIR=place))
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir=None))

    found = problems(tiny_mmar)

    assert ("train.handlers[3].args.save_dir" in found) is refused


def test_a_file_of_a_folder_that_is_null_is_not_guessed(tiny_mmar: Path, edited: Edited) -> None:
    mapping = {"name": "WriteFileMappingd", "args": {"keys": "image"}}
    edited(train(tiny_mmar), lambda document: document["train"]["pre_transforms"].append(mapping))
    assert problems(tiny_mmar) == []

    environment = tiny_mmar / "config/environment.json"
    edited(environment, lambda values: values.update(MMAR_EVAL_OUTPUT_PATH=None))
    messages = [one.message for one in check_mmar(tiny_mmar).problems]
    left_out = "mapping_file_path is left out, and so is the run's folder"
    assert f"WriteFileMappingd: {left_out}" in messages


def test_data_lie_where_the_policy_says(tiny_mmar: Path, tmp_path: Path) -> None:
    study = SitePolicy(data_roots=(tmp_path / "study",))
    inside = {"DATA_ROOT": str(tmp_path / "study/a"),
              "DATASET_JSON": str(tmp_path / "study/list.json")}  # fmt: skip
    outside = {**inside, "DATA_ROOT": str(tmp_path / "study2")}

    assert problems(tiny_mmar, study) == []  # judged without a site's own values
    assert problems(tiny_mmar, study, site_values=inside) == []
    assert "DATA_ROOT" in problems(tiny_mmar, study, site_values=outside)


def test_the_authors_own_folders_grant_nothing(tiny_mmar: Path, edited: Edited) -> None:
    """What a job's environment says of data is passed over; what its workflow says is refused."""
    own = {"data_file_base_dir": "/data/other-study"}
    edited(train(tiny_mmar), lambda document: document["train"]["dataset"].update(own))
    environment = tiny_mmar / "config/environment.json"
    edited(environment, lambda document: document.update(DATA_ROOT="/data/other-study"))

    assert problems(tiny_mmar) == ["train.dataset.data_file_base_dir"]


def test_images_lie_below_the_folder_that_results_are_named_from(
    tiny_mmar: Path, edited: Edited, site: dict[str, str]
) -> None:
    arguments = {"keys": "pred", "output_dir": "{MMAR_CKPT_DIR}", "data_root_dir": "{DATA_ROOT}/a"}
    saver = {"name": "SaveImaged", "args": arguments}
    edited(train(tiny_mmar), lambda document: document["train"]["post_transforms"].append(saver))
    below = {"data_file_base_dir": "{DATA_ROOT}/a"}
    edited(train(tiny_mmar), lambda document: document["train"]["dataset"].update(below))
    edited(train(tiny_mmar), lambda document: document["validate"]["dataset"].update(below))

    assert problems(tiny_mmar, site_values=listed(site, "case.nii")) == []
    listed(site, "../b/case.nii")  # the site's own, but one folder up
    assert problems(tiny_mmar, site_values=site) == ["training[0].image"]


def test_a_refusal_does_not_name_the_file(tiny_mmar: Path, site: dict[str, str]) -> None:
    listed(site, "../DOE_JOHN_1961.nii")

    assert "DOE" not in str(check_mmar(tiny_mmar, site_values=site).as_dict())


# --- An MMAR of one's own ------------------------------------------------------------------------


def own(root: Path, **overrides: str) -> list[str]:
    """The places of the problems for who runs the MMAR here."""
    try:
        load_train_config(Mmar.open(root), checks=own_mmar_checks(), overrides=overrides)
    except ConfigError as error:
        return [one.location.place for one in error.problems]
    return []


def test_who_runs_an_mmar_of_their_own_says_where_things_lie(
    tiny_mmar: Path, edited: Edited, tmp_path: Path
) -> None:
    assert own(tiny_mmar) == []
    environment = tiny_mmar / "config/environment.json"
    mine = {
        "DATA_ROOT": "/data/mine",
        "DATASET_JSON": "/data/list.json",
        "MMAR_CKPT_DIR": "/runs/7",
    }
    edited(environment, lambda document: document.update(mine))

    assert own(tiny_mmar) == []
    assert own(tiny_mmar, MMAR_CKPT_DIR=str(tmp_path / "x")) == []


def test_the_rest_holds_for_them_as_well(tiny_mmar: Path, edited: Edited) -> None:
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir="~/runs"))
    assert own(tiny_mmar) == ["train.handlers[3].args.save_dir"]


def test_results_of_theirs_may_lie_anywhere_and_are_told(
    tiny_mmar: Path, edited: Edited, tmp_path: Path
) -> None:
    elsewhere = str(tmp_path.parent / "elsewhere")
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir=elsewhere))

    config = load_train_config(Mmar.open(tiny_mmar), checks=own_mmar_checks())

    [note] = results_elsewhere(config)
    assert note == (
        f"config_train.json: train.handlers[3].args.save_dir: results go to {elsewhere!r}, outside "
        "of the MMAR"
    )
    assert "train.handlers[3].args.save_dir" in problems(tiny_mmar)  # of a job


def test_results_in_the_mmar_are_not_told(tiny_mmar: Path) -> None:
    config = load_train_config(Mmar.open(tiny_mmar), checks=own_mmar_checks())
    assert list(results_elsewhere(config)) == []


def test_results_of_theirs_do_not_lie_among_their_images(tiny_mmar: Path, edited: Edited) -> None:
    outside = tiny_mmar.parent / "images"
    edited(tiny_mmar / "config/environment.json", lambda e: e.update(DATA_ROOT=str(outside)))
    save_dir = str(outside / "results")
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir=save_dir))

    assert own(tiny_mmar) == ["train.handlers[3].args.save_dir"]


def test_a_relative_path_of_theirs_is_below_where_they_are(
    tiny_mmar: Path, edited: Edited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir="runs/7"))
    assert own(tiny_mmar) == []

    edited(train(tiny_mmar), lambda document: handler(document, SAVER, save_dir="../runs"))
    assert own(tiny_mmar) == ["train.handlers[3].args.save_dir"]
