"""A recipe is the job that ``mmar job create`` makes, in NVFlare's environments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nvflare.recipe.sim_env import SimEnv

from fl_admin.cli.main import main
from fl_admin.jobs.job import Job
from fl_admin.recipe import MmarFedAvgRecipe, data_of_sites, results_of
from fl_admin.simulation.plan import SimulationRequest, plan_simulation
from mmar_runtime.errors import ConfigError, FederationError, MmarError
from mmar_runtime.policy.files.tree_hash import tree_hash
from tests.conftest import write_data

JOB = Path(__file__).resolve().parents[2] / "jobs" / "spleen_ct_segmentation"
SITES = ["site-1", "site-2"]


@pytest.fixture
def mmar(tiny_mmar: Path) -> Path:
    return tiny_mmar


def test_importing_it_leaves_the_arguments_of_the_program_as_they_are() -> None:
    """NVFlare takes them out; what the program was asked for, `execute` still knows."""
    program = (
        "import sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from fl_admin.recipe import MmarFedAvgRecipe\n"
        "import fl_admin.recipes.recipe_env\n"
        "from nvflare.recipe.spec import _peek_recipe_args\n"
        "print(sys.argv[1:], _peek_recipe_args())\n"
    )
    words = ["--export", "--export-dir", "x", "--own"]

    ended = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )

    assert ended.stdout.strip() == f"{words} (True, 'x')"


def test_it_exports_the_job_that_mmar_job_create_makes(mmar: Path, tmp_path: Path) -> None:
    recipe = MmarFedAvgRecipe(
        mmar=mmar, name="tiny", min_clients=3, num_rounds=7, local_epochs=2,
        weigh_by="steps", aggregation_weights={"site-1": 2.0},
    )  # fmt: skip
    recipe.export(str(tmp_path / "exported"))
    options = ["--min-sites", "3", "--rounds", "7", "--local-epochs", "2", "--name", "tiny"]
    options += [
        "--weigh-by",
        "steps",
        "--aggregation-weights",
        "site-1=2.0",
        "--out",
        str(tmp_path / "created"),
    ]

    assert main(["job", "create", str(mmar), *options]) == 0

    assert tree_hash(tmp_path / "exported" / "tiny") == tree_hash(tmp_path / "created")
    assert recipe.name == "tiny"
    assert any("DATA_ROOT" in notice for notice in recipe.notices)


def test_a_second_export_replaces_the_first(mmar: Path, tmp_path: Path) -> None:
    for rounds in (1, 2):
        MmarFedAvgRecipe(mmar=mmar, name="tiny", num_rounds=rounds).export(str(tmp_path / "out"))

    server = json.loads((tmp_path / "out/tiny/app/config/config_fed_server.json").read_text())
    assert server["num_rounds"] == 2


def test_faults_are_told_as_for_any_job(mmar: Path) -> None:
    with pytest.raises(ConfigError, match="rounds: has to be a whole number from 1, found 0"):
        MmarFedAvgRecipe(mmar=mmar, num_rounds=0)


def test_a_job_is_no_mmar() -> None:
    with pytest.raises(ConfigError, match="is a job already"):
        MmarFedAvgRecipe(mmar=JOB)


def test_what_a_site_would_not_take_cannot_be_added(mmar: Path) -> None:
    recipe = MmarFedAvgRecipe(mmar=mmar)

    with pytest.raises(MmarError, match="a dict cannot be added for the sites"):
        recipe.add_client_config({"x": 1})
    with pytest.raises(MmarError, match="a str cannot be added for the server"):
        recipe.add_server_file("server.py")


def test_the_sites_of_a_federation_have_values_of_their_own(mmar: Path, tmp_path: Path) -> None:
    from nvflare.recipe.prod_env import ProdEnv

    recipe = MmarFedAvgRecipe(mmar=mmar)
    recipe.set_per_site_config({"site-1": {"DATA_ROOT": "/data"}})

    with pytest.raises(ConfigError, match="the sites of a federation have values of their own"):
        recipe.execute(ProdEnv(startup_kit_location=str(tmp_path)))


def test_a_stock_poc_federation_would_refuse_every_job_and_that_is_said(mmar: Path) -> None:
    from nvflare.recipe.poc_env import PocEnv

    with pytest.raises(FederationError, match="MmarPocEnv makes a federation"):
        MmarFedAvgRecipe(mmar=mmar).execute(PocEnv())


def test_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no dataset.json for site-1, site-2"):
        data_of_sites(tmp_path, SITES)


def test_its_simulated_sites_read_what_those_of_mmar_simulate_do(
    mmar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of threads is a part of the bits, so both share the machine out alike."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for site in SITES:
        write_data(tmp_path / "data" / site, seed=0)
    recipe = MmarFedAvgRecipe(mmar=mmar, name="tiny", min_clients=2)
    values = data_of_sites(tmp_path / "data", SITES)
    recipe.set_per_site_config({**values, "site-2": {**values["site-2"], "NUM_PROCESSES": 2}})
    environment = tmp_path / "environment.json"
    environment.write_text('{"sites": {"site-2": {"NUM_PROCESSES": 2}}}')

    recipe.process_env(SimEnv(num_clients=2, workspace_root=str(tmp_path / "recipe")))
    recipe.export(str(tmp_path / "jobs"))
    request = SimulationRequest(
        job=Job.open(tmp_path / "jobs" / "tiny"),
        sites=2,
        data=tmp_path / "data",
        environment=environment,
    )
    plan = plan_simulation(request)
    folder = plan.engine.new_folder(tmp_path / "runs")
    plan.engine.prepare(plan, folder)

    local, ours = folder.flare / "tiny" / "local", tmp_path / "recipe" / "tiny" / "local"
    found = {path.name: json.loads(path.read_text()) for path in ours.iterdir()}
    assert found == {path.name: json.loads(path.read_text()) for path in local.iterdir()}
    assert [one["NUM_THREADS"] for one in found["environment.json"]["sites"].values()] == [4, 2]
    assert {path.stat().st_mode & 0o777 for path in (*ours.iterdir(), *local.iterdir())} == {0o600}


def test_a_run_without_results(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="there are no results"):
        results_of(str(tmp_path))
    with pytest.raises(FederationError, match="there are no results"):
        results_of(None)


# --- runs


@pytest.fixture(scope="module", autouse=True)
def programs_start_warm(warm: None) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import write_data

    folder = tmp_path_factory.mktemp("data")
    for seed, site in enumerate(SITES):
        write_data(folder / site, seed=seed)
    return folder


def outcome(results: Path) -> Any:
    record = json.loads((results / "run_record.json").read_text())
    cells = json.loads((results / "cross_site.json").read_text())["cells"]
    return record["status"], [one["weights_sha256"] for one in record["rounds"]], cells


PROGRAM = """
import sys
from fl_admin.recipe import MmarFedAvgRecipe, data_of_sites, results_of

mmar, data, workspace, kind = sys.argv[1:]
sites = ["site-1", "site-2"]
recipe = MmarFedAvgRecipe(mmar=mmar, name="tiny", min_clients=2, num_rounds=2)
values = data_of_sites(data, sites)
recipe.set_per_site_config({site: {**one, "NUM_THREADS": 1} for site, one in values.items()})
if kind == "sim":
    from nvflare.recipe.sim_env import SimEnv
    environment = SimEnv(num_clients=2, workspace_root=workspace)
else:
    from fl_admin.recipes.recipe_env import MmarPocEnv
    environment = MmarPocEnv(workspace, num_clients=2)
run = recipe.execute(environment)
print("result:", results_of(run.get_result()))
print("status:", run.get_status())
"""


def run_program(*words: object) -> str:
    """What a program of a user prints behind ``result:``."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
    )
    assert "result: " in ended.stdout, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout[ended.stdout.index("result: ") + len("result: ") :]


@pytest.fixture(scope="module")
def simulated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The outcome of ``mmar simulate`` with the same MMAR, sites and numbers."""
    from tests.conftest import write_mmar

    folder = tmp_path_factory.mktemp("simulated")
    write_mmar(folder / "mmar")
    options = ["--sites", 2, "--rounds", 2, "--data", data, "-w", folder / "runs"]
    command = [sys.executable, "-m", "fl_admin.cli.main", "simulate", folder / "mmar", *options]
    subprocess.run([*map(str, command), "--set", "NUM_THREADS=1"], check=True, capture_output=True)
    return outcome(folder / "runs" / "run-001" / "results")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "kind",
    [
        "sim",
        # ``test_console`` runs a recipe in a federation.
        pytest.param("poc", marks=pytest.mark.rehearsal),
    ],
)
def test_a_run_gives_the_bits_of_mmar_simulate(
    mmar: Path, data: Path, tmp_path: Path, simulated: Any, kind: str
) -> None:
    printed = run_program(mmar, data, tmp_path / "work", kind)

    results, _, status = printed.strip().partition("\nstatus: ")
    assert outcome(Path(results)) == simulated
    assert simulated[0] == "complete"
    assert status == {"sim": "None", "poc": "FINISHED:COMPLETED"}[kind]
    import psutil

    assert not [
        one
        for one in psutil.process_iter(["cmdline"])
        if str(tmp_path / "work") in " ".join(one.info["cmdline"] or ())
    ]
