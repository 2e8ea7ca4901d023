"""NVFlare's two documents of a job: exact keys, each class in its place, one course of a run."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fl_client.job_check import check_app, check_job
from fl_client.jobs.classes import CLASSES, LIMITS, OWN_AGGREGATOR
from fl_client.jobs.documents import document_faults
from fl_client.jobs.encryption import with_encryption
from fl_client.jobs.rounding import with_rounding
from fl_client.privacy.settings import SETTINGS
from fl_server.guard.update_limits import update_limits
from fl_server.record.cross_site import MODEL_NAME
from mmar_runtime.exchange.job_documents import FEDERATION, SERVER_TERMS
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.policy.site_policy import Byoc, SitePolicy

JOB = Path(__file__).resolve().parents[3] / "jobs/spleen_ct_segmentation"
SERVER, CLIENT = "config_fed_server.json", "config_fed_client.json"
CODE_ON = SitePolicy(byoc=Byoc(mode="on"))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A copy of the job of this repository."""
    ignored = shutil.ignore_patterns("models", "eval")
    return Path(shutil.copytree(JOB, tmp_path / "spleen", ignore=ignored))


def told(job: Path, file: str, edit: Callable[[Any], object]) -> list[str]:
    """Rules and places of the refusals, once a document was changed."""
    path = job / file if file == "meta.json" else job / "app/config" / file
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    return [f"{one.rule} {one.location.place}" for one in check_job(job).problems]


def arguments(**values: object) -> Callable[[Any], object]:
    """A change of the workflow's arguments."""
    return lambda document: document["workflows"][0]["args"].update(values)


def test_a_refusal_says_the_value_that_it_found(job: Path) -> None:
    for file, edit in (
        (SERVER, {"format_version": 3}),
        (CLIENT, {"executors": [{"tasks": ["trian"], "executor": {}}]}),
    ):
        path = job / "app/config" / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))

    messages = [problem.message for problem in check_job(job).problems]
    assert "has to be 2, found 3" in messages
    assert (
        "has to list tasks of a site: train, score_model, submit_model, validate, *; "
        "found ['trian']" in messages
    )


def test_a_factor_that_is_none_is_named_with_its_site(job: Path) -> None:
    factors = {"site-1": 2, "site-2": -3, "site-3": True}

    found = told(job, SERVER, arguments(aggregation_weights=factors))

    place = "argument workflows[0].args.aggregation_weights"
    assert found == [f"{place}['site-2']", f"{place}['site-3']"]


# --- The table against the classes ---------------------------------------------------------------


def signature(path: str) -> dict[str, inspect.Parameter]:
    """The arguments of a class; those of the workflow are terms of the job as well."""
    module, _, name = path.rpartition(".")
    found = dict(inspect.signature(getattr(import_module(module), name)).parameters)
    if path == FEDERATION:
        terms = inspect.signature(JobTerms).parameters
        values = JobTerms(rounds=0, min_sites=1)
        for name in SERVER_TERMS - {"min_sites", "num_rounds"}:
            found[name] = terms[name].replace(default=getattr(values, name))
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: one for name, one in found.items() if one.kind not in variable}


@pytest.mark.parametrize("path", sorted(CLASSES))
def test_the_table_has_just_the_arguments_of_a_class(path: str) -> None:
    arguments = signature(path)
    own = {OWN_AGGREGATOR} if path == FEDERATION else set()

    if path not in SETTINGS:  # whose arguments fl_client.privacy.settings judges
        assert set(CLASSES[path].arguments) | own == set(arguments)
        assert set(CLASSES[path].required) == {
            name for name, one in arguments.items() if one.default is inspect.Parameter.empty
        }


def defaults() -> Iterator[tuple[str, str, Any]]:
    for path, one in CLASSES.items():
        for name, parameter in sorted(signature(path).items()):
            if name in one.arguments and parameter.default is not inspect.Parameter.empty:
                yield path, name, parameter.default


@pytest.mark.parametrize(("path", "name", "default"), list(defaults()))
def test_the_default_of_an_argument_has_its_form(path: str, name: str, default: Any) -> None:
    form = CLASSES[path].arguments[name]

    assert form.fits(default)


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ({"max_bytes": 1, "max_norm": 0.5, "norm_ratio": 3, "max_steps": 10}, True),
        ({"metadata_bytes": 1000, "metric_ranges": {"dice": [0, 1]}}, True),
        ({"weight_ratio": 1}, True),
        ({"weight_ratio": 0.5}, False),
        ({"max_bytes": 0}, False),
        ({"max_steps": 10**10}, False),
        ({"metric_ranges": {"dice": [1, 0]}}, False),
        ({"other": 1}, False),
    ],
)
def test_the_limits_of_the_guard_are_those_of_the_server(limits: Any, fits: bool) -> None:
    assert LIMITS.fits(limits) == fits
    try:
        update_limits(limits, {})
    except Exception:
        assert not fits
    else:
        assert fits


@pytest.mark.parametrize("name", ["ours", "site-1", "SRV_ours", "../x", "a b", "x" * 101])
def test_the_names_of_models_are_those_of_the_server(name: str) -> None:
    form = CLASSES[FEDERATION].arguments["models"]

    assert form.fits([name]) == (MODEL_NAME.fullmatch(name) is not None)


# --- Exact keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "edit", "place"),
    [
        (CLIENT, lambda conf: conf.update(extra=1), "job-file extra"),
        (CLIENT, lambda conf: conf.update(handlers=[]), "job-file handlers"),
        (CLIENT, lambda conf: conf.update(workflows=[]), "job-file workflows"),
        (CLIENT, lambda conf: conf.update(format_version=3), "job-file format_version"),
        (SERVER, lambda conf: conf.update(executors=[]), "job-file executors"),
        (SERVER, lambda conf: conf["server"].update(admin_host="x"), "job-file server.admin_host"),
        (
            CLIENT,
            lambda conf: conf["executors"][0].update(priority=1),
            "job-file executors[0].priority",
        ),
        (
            CLIENT,
            lambda conf: conf["executors"][0]["executor"].update(config_type="dict"),
            "job-file executors[0].executor.config_type",
        ),
        (SERVER, arguments(weigh=1), "argument workflows[0].args.weigh"),
        (SERVER, arguments(start_round=900), "argument workflows[0].args.start_round"),
        (SERVER, arguments(local_epochs=3), "argument workflows[0].args.local_epochs"),
    ],
)
def test_what_is_not_in_the_table_is_refused(
    job: Path, file: str, edit: Callable[[Any], object], place: str
) -> None:
    assert told(job, file, edit) == [place]


def test_an_entry_may_use_a_value_of_its_own_document(job: Path) -> None:
    def bounded(conf: Any) -> None:
        conf["train_timeout"] = 3600
        arguments(train_timeout="{train_timeout}")(conf)

    assert told(job, SERVER, bounded) == []


@pytest.mark.parametrize("value", [-1, 10**9, "3600", True])
def test_and_the_value_is_judged_where_it_is_used(job: Path, value: Any) -> None:
    def unbounded(conf: Any) -> None:
        conf["train_timeout"] = value
        arguments(train_timeout="{train_timeout}")(conf)

    assert told(job, SERVER, unbounded) == ["argument workflows[0].args.train_timeout"]


def test_a_value_that_no_entry_uses_is_an_unknown_key(job: Path) -> None:
    assert told(job, SERVER, lambda conf: conf.update(train_timeout=1)) == [
        "job-file train_timeout"
    ]


# --- Each class in its place ---------------------------------------------------------------------


def test_a_class_of_the_server_has_no_place_at_a_site(job: Path) -> None:
    server = {"id": "x", "path": FEDERATION, "args": {"min_sites": 2}}

    assert told(job, CLIENT, lambda conf: conf["components"].append(server)) == [
        "allow-list components[1].path"
    ]


def test_a_filter_is_no_component_and_the_executor_no_filter(job: Path) -> None:
    path = "fl_client.flare.executor.MmarExecutor"
    chain = {"tasks": ["train"], "filters": [{"path": path, "args": {}}]}

    found = told(job, CLIENT, lambda conf: conf["task_result_filters"].append(chain))

    assert "allow-list task_result_filters[0].filters[0].path" in found


def test_own_code_cannot_bring_a_class_of_ours_in_its_arguments(job: Path) -> None:
    (job / "app/custom").mkdir()
    (job / "app/custom/own.py").write_text("class Half: ...\n")
    inner = {"path": FEDERATION, "args": {"min_sites": 2}}
    path = job / "app/config" / CLIENT
    for args, rules in (({"rate": 1}, set()), ({"part": inner}, {"allow-list"})):
        document = json.loads((JOB / "app/config" / CLIENT).read_text())
        document["components"].append({"id": "own", "path": "own.Half", "args": args})
        path.write_text(json.dumps(document))

        assert {one.rule for one in check_app(job / "app", CODE_ON).problems} == rules


# --- One course of a run -------------------------------------------------------------------------


def test_a_workflow_stands_once(job: Path) -> None:
    def fifty(conf: Any) -> None:
        conf["workflows"] += [{**conf["workflows"][0], "id": f"again-{n}"} for n in range(40)]

    assert {one.split()[0] for one in told(job, SERVER, fifty)} == {"course"}


def test_a_workflow_of_the_jobs_own_code_is_a_course_too(job: Path) -> None:
    (job / "app/custom").mkdir()
    (job / "app/custom/own.py").write_text("class Course: ...\n")
    path = job / "app/config" / SERVER
    document = json.loads(path.read_text())
    document["workflows"] = [{"id": "own", "path": "own.Course", "args": {"num_rounds": 3}}]
    path.write_text(json.dumps(document))

    assert check_app(job / "app", CODE_ON).problems == ()
    assert {one.rule for one in check_job(job).problems} == {"code"}


@pytest.mark.parametrize(
    "path",
    [
        "fl_server.flare.wake.WakingScatterAndGather",
        "nvflare.app_common.workflows.scatter_and_gather.ScatterAndGather",
    ],
)
def test_an_old_document_is_answered_with_the_way_to_a_new_one(job: Path, path: str) -> None:
    document = json.loads((job / "app/config" / SERVER).read_text())
    document["workflows"] = [{"id": "scatter_and_gather", "path": path, "args": {}}]
    (job / "app/config" / SERVER).write_text(json.dumps(document))

    [problem] = check_job(job).problems

    assert problem.location.place == "workflows[0].path"
    assert FEDERATION in problem.advice
    assert "'mmar job create'" in problem.advice
    assert "'mmar job import'" in problem.advice


def test_a_task_has_one_executor(job: Path) -> None:
    found = told(job, CLIENT, lambda conf: conf["executors"].append(conf["executors"][0]))

    assert {one.split()[0] for one in found} == {"course"}


def test_the_executor_may_take_every_task(job: Path) -> None:
    assert told(job, CLIENT, lambda conf: conf["executors"][0].update(tasks=["*"])) == []


# --- Whatever a document holds -------------------------------------------------------------------

ODD = (
    *(None, True, -1, 10**400, "", "{components}", "{", [], {}, [None], [[]], [{}], ["train"]),
    *({"path": ["x"]}, {"path": FEDERATION, "args": []}, {"disabled": True}),
)


def parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document: its holder, and its key or index."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from parts(value[key])


@pytest.mark.parametrize("file", [SERVER, CLIENT])
def test_no_value_at_any_place_crashes_the_check(job: Path, file: str) -> None:
    path = job / "app/config" / file
    document = json.loads(path.read_text())
    if file == CLIENT:
        document = with_encryption(with_rounding(document, "int8"), ["*"])
    else:
        arguments(transfer="int8", encrypt_layers=["*"], limits={"max_norm": 1})(document)
    for holder, key in list(parts(document)):
        before = holder[key]
        for odd in ODD:
            holder[key] = odd
            path.write_text(json.dumps(document))
            for fault in document_faults(job / "app", CODE_ON):
                assert fault.message
        holder[key] = before


# --- meta.json -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"site-1": {}},
        {"site-1": {"num_of_gpus": 1, "mem_per_gpu_in_GiB": 16}},
        {"@default": {"num_of_cpus": 8, "memory": "64Gi"}, "server": {"num_of_gpus": 0}},
    ],
)
def test_a_job_may_ask_for_amounts(job: Path, resources: Any) -> None:
    assert told(job, "meta.json", lambda meta: meta.update(resource_spec=resources)) == []


@pytest.mark.parametrize(
    "resources",
    [
        {"site-1": {"docker": {"image": "evil"}}},
        {"site-1": {"k8s": {"image": "evil"}}},
        {"site-1": {"process": {"num_of_gpus": 1}}},
        {"site-1": {"image": "evil"}},
        {"site-1": {"num_of_gpus": 10**6}},
        {"site-1": {"num_of_gpus": "all"}},
        {"site-1": {"num_of_gpus": True}},
        {"site-1": {"memory": "64Gi; id"}},
        {"../x": {"num_of_gpus": 1}},
        {"num_of_gpus": 1},
    ],
)
def test_and_for_nothing_else(job: Path, resources: Any) -> None:
    found = told(job, "meta.json", lambda meta: meta.update(resource_spec=resources))

    assert found == ["job-file resource_spec"]
