"""``mmar job``: what it prints where, and with which code it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from fl_admin.jobs.job import Job
from fl_client.jobs.classes import ALLOWED_CLASSES

REPOSITORY = Path(__file__).resolve().parents[4]
EXAMPLE = REPOSITORY / "jobs" / "spleen_ct_segmentation"
MMARS = REPOSITORY / "tests" / "mmars"


@pytest.fixture
def old_mmar(tmp_path: Path) -> Path:
    """An MMAR of Clara Train 4.0 with a federation's configs, one filter in them."""
    root = shutil.copytree(MMARS / "segmentation_3d_v4_0", tmp_path / "mmar")
    server = {
        "format_version": 1,
        "servers": [{"name": "here", "min_num_clients": 2, "num_rounds": 8}],
        "aggregator": {"name": "AccumulateWeightedAggregator"},
    }
    client = {
        "format_version": 1,
        "client": {"inbound_filters": [{"name": "SVTPrivacy"}]},
        "client_trainer": {"name": "ClientTrainer", "args": {"local_epochs": 2}},
    }
    for name, document in (("server", server), ("client", client)):
        (root / "config" / f"config_fed_{name}.json").write_text(json.dumps(document))
    return root


# --- create


def test_create_prints_the_folder_and_tells_the_rest_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--min-sites", "3", "--rounds", "5", "--local-epochs", "2", "--name", "trial"]
    weights = ["--aggregation-weights", "site-1=2", "site-2=0.5"]

    create = ["job", "create", str(MMARS / "segmentation_3d"), "--out", f"{tmp_path}/job"]
    code = main([*create, *words, *weights, "--set", "learning_rate=0.5"])

    told = capfd.readouterr()
    assert code == 0, told.err
    assert told.out == f"{tmp_path}/job\n"
    assert "note: config_cross_validation.json is made from config_validation.json" in told.err
    job = Job.open(tmp_path / "job")
    assert (job.name, job.rounds) == ("trial", 5)
    assert json.loads(job.mmar.document("environment.json").read_text())["learning_rate"] == 0.5
    assert job.documents.federation["aggregation_weights"] == {"site-1": 2, "site-2": 0.5}


def configs_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of the server's workflow, and the clients' config."""
    job = Job.open(folder)
    client = json.loads(job.mmar.document("config_fed_client.json").read_text())
    return dict(job.documents.federation), client


def test_create_with_filters_and_tensors_that_stay(tmp_path: Path) -> None:
    words = ["--exclude-vars", "*.final.*", "--optional-names", "*.bias"]
    words += ["--result-filter", "ExcludeVars", "exclude_vars=a.*,b"]
    words += ["--result-filter", "SVTPrivacy", "epsilon_release=1", "gamma=0.001"]

    mmar = str(MMARS / "segmentation_3d")
    assert main(["job", "create", mmar, "--out", f"{tmp_path}/job", *words]) == 0

    server, client = configs_of(tmp_path / "job")
    module = "fl_client.flare.privacy"
    train, submit = client["task_result_filters"]
    assert [one["path"] for one in train["filters"]] == [
        f"{module}.ExcludeVars",
        f"{module}.SVTPrivacy",
    ]
    assert [one["args"] for one in train["filters"]] == [
        {"exclude_vars": ["a.*", "b"]},
        {"epsilon_release": 1, "gamma": 0.001},
    ]
    assert submit["tasks"] == ["submit_model"]
    assert server["shared_names"] == ["!*.final.*"]
    assert server["optional_names"] == [
        *("*.bias", "a.*", "b"),
        *("*.running_mean", "*.running_var", "*.num_batches_tracked"),  # kept by default
    ]


def test_create_with_an_aggregator_of_ones_own(tmp_path: Path) -> None:
    mmar = Path(shutil.copytree(MMARS / "segmentation_3d", tmp_path / "mmar"))
    (mmar / "custom").mkdir()
    (mmar / "custom/own.py").write_text("class Median: ...\n")
    words = ["--out", f"{tmp_path}/job", "--aggregator", "own.Median", "trim=0.1", "--with-code"]

    assert main(["job", "create", str(mmar), *words]) == 0

    server, _ = configs_of(tmp_path / "job")
    assert server["aggregator"] == {"path": "own.Median", "args": {"trim": 0.1}}
    assert (tmp_path / "job/app/custom/own.py").is_file()


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("own.Nope", "is not a class that custom/own.py defines itself"),
        ("json.Median", "has the name of a module of Python itself"),
    ],
)
def test_and_not_with_one_that_no_site_would_take(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], path: str, fault: str
) -> None:
    mmar = Path(shutil.copytree(MMARS / "segmentation_3d", tmp_path / "mmar"))
    (mmar / "custom").mkdir()
    for name in ("own.py", "json.py"):
        (mmar / "custom" / name).write_text("class Median: ...\n")

    words = ["--out", f"{tmp_path}/job", "--aggregator", path, "--with-code"]
    assert main(["job", "create", str(mmar), *words]) == 2

    assert f"{path!r} {fault}" in capfd.readouterr().err
    assert not (tmp_path / "job").exists()


def test_a_job_that_the_default_policy_refuses_is_made_with_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", f"{tmp_path}/job", "--with-code", "--json"]

    assert main(["job", "create", str(MMARS / "own_components"), *words]) == 0

    told = capfd.readouterr()
    printed = json.loads(told.out)
    assert {one["rule"] for one in printed["refusals"]} == {"code"}
    assert told.err.count("a site may refuse this: ") == 6
    assert f"and {len(printed['refusals']) - 5} more" in told.err


def test_what_no_policy_can_allow_is_said_in_other_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mmar = Path(shutil.copytree(MMARS / "segmentation_3d", tmp_path / "mmar"))
    file = mmar / "config/config_train.json"
    document = json.loads(file.read_text())
    document["train"]["dataloader"]["args"]["num_workers"] = 40
    file.write_text(json.dumps(document))

    assert main(["job", "create", str(mmar), "--out", f"{tmp_path}/job"]) == 0

    told = capfd.readouterr().err
    assert "every site refuses this: config_train.json: train.dataloader.args.num_workers" in told
    assert "a site may refuse this" not in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--aggregation-weights", "site-1"], "'site-1' is not a weight of a site"),
        (["--aggregation-weights", "site-1=much"], "Write SITE=WEIGHT"),
        (["--aggregation-weights", "site-1=nan"], "has to be a number from 1e-06 to 1e+06"),
        (["--aggregation-weights", "a=1", "a=2"], "'a' is named twice"),
        (["--result-filter", "PercentilePrivacy", "gamma=0"], "has to be a number above 0"),
        (["--result-filter", "SVTPrivacy"], "takes one of epsilon_release and noise_var"),
        (["--result-filter", "SVTPrivacy", "1"], "'1' is not KEY=VALUE"),
        (["--result-filter", "own.Half"], "names no module in custom/"),
        (["--aggregator", "own.Mean"], "names no module in custom/"),
        (["--exclude-vars", "*a*b*c*d*e"], "has more than 4 '*'"),
        (["--min-sites", "0"], "min_sites: has to be a whole number from 1"),
        (["--local-epochs", "0"], "local_epochs: has to be a whole number from 1"),
    ],
)
def test_create_refuses_what_no_federation_can_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    job = ["job", "create", str(MMARS / "segmentation_3d"), "--out", str(tmp_path / "job")]

    assert main([*job, *words]) == 2

    told = capfd.readouterr()
    assert message in told.err
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


def test_create_imports_nothing_heavy(tmp_path: Path) -> None:
    words = ["job", "create", str(MMARS / "segmentation_3d"), "--out", str(tmp_path / "job")]
    code = (
        "import sys; from fl_admin.cli.main import main; code = main(sys.argv[1:]); "
        "sys.exit(code or bool({'torch', 'monai', 'nvflare'} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


# --- import


def test_import_names_every_field_and_refuses(
    old_mmar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["job", "import", str(old_mmar), "--out", f"{tmp_path}/job"]) == 2

    told = capfd.readouterr()
    assert "translated config_fed_server.json: servers[0].num_rounds: num_rounds = 8 ->" in told.err
    assert "refused    config_fed_client.json: client.inbound_filters[0]: SVTPriv" in told.err
    assert "--allow-dropped SVTPrivacy goes on without it." in told.err
    assert not (tmp_path / "job").exists()


def test_import_goes_on_without_what_may_be_dropped(
    old_mmar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", f"{tmp_path}/job", "--allow-dropped", "SVTPrivacy", "--json"]

    assert main(["job", "import", str(old_mmar), *words]) == 0

    printed = json.loads(capfd.readouterr().out)
    outcomes = {one["name"]: one["outcome"] for one in printed["fields"]}
    assert outcomes["num_rounds"] == outcomes["local_epochs"] == "translated"
    assert outcomes["SVTPrivacy"] == "refused"
    assert any("cross-site validation" in one for one in printed["notices"])
    assert Job.open(printed["folder"]).rounds == 8


def test_create_with_rounded_updates(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mmar, job = str(MMARS / "segmentation_3d"), f"{tmp_path}/job"
    words = ["--transfer", "int8", "--result-filter", "PercentilePrivacy", "gamma=0.01"]

    assert main(["job", "create", mmar, "--out", job, *words]) == 0

    server, client = configs_of(tmp_path / "job")
    assert server["transfer"] == "int8"
    of_train = [one for one in client["task_result_filters"] if one["tasks"] == ["train"]]
    assert [one["path"].rpartition(".")[2] for one in of_train[0]["filters"]] == [
        "PercentilePrivacy", "CompactUpdate",
    ]  # fmt: skip
    assert main(["check", job]) == 0
    capfd.readouterr()
    assert main(["job", "show", job]) == 0
    told = capfd.readouterr().out
    assert "updates:        large tensors as int8\n" in told
    assert "fl_client.flare.compact.CompactUpdate\n" in told


def test_what_is_encrypted_is_not_rounded_as_well(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", f"{tmp_path}/job", "--he", "--transfer", "int8"]

    assert main(["job", "create", str(MMARS / "segmentation_3d"), *words]) == 2

    told = capfd.readouterr().err
    assert "job: transfer: what is encrypted cannot be rounded as well" in told
    assert "Leave out --transfer, or --he." in told
    assert not (tmp_path / "job").exists()


# --- show


def shown(job: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    assert main(["job", "show", str(job), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_show_says_what_a_job_will_do(capfd: pytest.CaptureFixture[str]) -> None:
    found = shown(EXAMPLE, capfd)

    assert found["name"] == "spleen_ct_segmentation"
    assert (found["min_sites"], found["rounds"], found["local_epochs"]) == (2, 3, 3)
    assert found["workflows"] == ["federation"]
    assert (found["network"], found["key_metric"]) == ("UNet", "val_mean_dice")
    assert found["classes"] == sorted(set(found["classes"]) & set(ALLOWED_CLASSES))
    assert found["files"] == len([path for path in EXAMPLE.rglob("*") if path.is_file()])
    assert found["refusals"] == []


def test_show_in_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = ["job", "create", str(MMARS / "own_components"), "--with-code", "--rounds", "1"]
    main([*job, "--out", str(tmp_path / "job"), "--aggregation-weights", "a=2"])
    capfd.readouterr()

    assert main(["job", "show", str(tmp_path / "job")]) == 0

    lines = capfd.readouterr().out.splitlines()
    assert "rounds:         1, each 1 epoch at a site" in lines
    assert "weights:        by samples, a x 2" in lines
    assert "own code:       custom/networks/__init__.py" in lines
    assert "default policy: refused:" in lines


def test_the_digest_changes_with_any_file_of_the_app_and_not_with_a_signature(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = shutil.copytree(EXAMPLE, tmp_path / "job")
    before = shown(job, capfd)["digest"]

    (job / "app" / "config" / ".__nvfl_sig.json").write_text("{}")
    assert shown(job, capfd)["digest"] == before
    (job / "app" / "docs" / "Readme.md").write_text("another")
    assert shown(job, capfd)["digest"] != before


# --- simulate


def test_simulate_takes_a_plain_mmar_and_checks_it_for_every_site(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing has started yet; tests/end_to_end runs one to its end."""
    words = ["--data", str(tmp_path / "nothing"), "-w", str(tmp_path / "runs")]

    assert main(["simulate", str(MMARS / "segmentation_3d_v4_0"), *words]) == 2

    told = capfd.readouterr().err
    assert "note: config_cross_validation.json is made from" in told
    assert "--data names a folder with site-1/dataset.json" in told


def test_what_a_job_says_itself_is_not_taken_from_options(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--local-epochs", "2", "--aggregation-weights", "site-1=2"]

    assert main(["simulate", str(EXAMPLE), *words]) == 2

    assert capfd.readouterr().err.count("is for a plain MMAR") == 2


# --- submit; tests/federation sends jobs and a plain MMAR to a server


def test_submit_says_what_it_makes_of_a_plain_mmar_before_it_asks_for_a_kit(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MMAR_ADMIN_KIT", raising=False)

    assert main(["submit", str(MMARS / "segmentation_3d_v4_0"), "--min-sites", "3"]) == 2

    told = capfd.readouterr().err
    assert "note: config_cross_validation.json is made from" in told
    assert "--kit: no admin's kit is named" in told


def test_submit_takes_no_numbers_for_a_job_either(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--rounds", "3", "--min-sites", "2", "--with-code", "--set", "a=1", "--he"]

    assert main(["submit", str(EXAMPLE), *words]) == 2

    assert capfd.readouterr().err.count("is for a plain MMAR") == 5


def test_submit_fetches_nothing_that_it_does_not_wait_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", str(EXAMPLE), "--out", str(tmp_path / "out")]) == 2

    assert "--out: there are no results to fetch before the job has ended" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
