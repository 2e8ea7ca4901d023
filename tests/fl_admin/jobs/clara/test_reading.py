"""Old federations' configs, written here after the facts known of them, made into jobs of today."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fl_admin.jobs.clara.reading import OldFederation, import_job, read_old_federation
from fl_admin.jobs.clara.rules import CLASSES, DEFAULTS, FIELDS
from fl_admin.jobs.create import CreatedJob
from fl_admin.jobs.job import Job
from fl_admin.jobs.settings import JobSettings
from fl_client.job_check import check_job
from fl_client.jobs.classes import CLASSES as JOB_CLASSES
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG
from mmar_runtime.policy.site_policy import OWN_MMAR_POLICY

Edited = Callable[[Path, Callable[[Any], object]], Path]

REPOSITORY = Path(__file__).resolve().parents[4]
MMAR = REPOSITORY / "tests" / "mmars" / "segmentation_3d_v4_0"

NETWORK = {
    "name": "BasicUNet",
    "args": {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "features": [4, 4, 8, 8, 16, 4],
        "norm": "batch",
    },
}
"""That of the MMAR, which calls it by an alias and its argument by its old name."""

SERVER_1: dict[str, Any] = {
    "format_version": 1,
    "servers": [
        {
            "name": "spleen",
            "service": {"target": "fl.hospital.org:8002"},
            "min_num_clients": 3,
            "max_num_clients": 20,
            "wait_after_min_clients": 45,
            "heart_beat_timeout": 300,
            "start_round": 0,
            "num_rounds": 12,
        }
    ],
    "aggregator": {
        "name": "InTimeAccumulateWeightedAggregator",
        "args": {"aggregation_weights": {"hospital-a": 2.5, "hospital-b": 1}},
    },
    "inbound_filters": [],
    "outbound_filters": [],
    "model_persistor": {
        "name": "PTFileModelPersistor",
        "args": {"exclude_vars": None, "model": {**NETWORK, "name": "BasicUnet"}},
    },
    "shareable_generator": {"name": "FullModelShareableGenerator"},
    "handlers": [{"name": "IntimeModelSelectionHandler", "args": {"weigh_by_local_iter": False}}],
}
CLIENT_1: dict[str, Any] = {
    "format_version": 1,
    "client": {"inbound_filters": [], "outbound_filters": []},
    "client_trainer": {
        "path": "medl.apps.fed_learn.trainers.client_trainer.ClientTrainer",
        "args": {
            "local_epochs": 4,
            "steps_aggregation": 0,
            "model_reader_writer": {"name": "PTModelReaderWriter"},
        },
    },
    "handlers": [],
    "cross_validate": True,
    "cross_site_validation": {
        "is_participating": True,
        "model_validator": {
            "path": "medl.apps.fed_learn.validators.client_validator.ClientValidator"
        },
        "timeout": 15,
    },
}

FLARE = "nvflare.app_common"
SERVER_2: dict[str, Any] = {
    "format_version": 2,
    "min_clients": 2,
    "num_rounds": 9,
    "server": {"heart_beat_timeout": 600},
    "task_data_filters": [],
    "task_result_filters": [],
    "components": [
        {"id": "network", **NETWORK},
        {
            "id": "persistor",
            "path": f"{FLARE}.pt.pt_file_model_persistor.PTFileModelPersistor",
            "args": {"model": "network"},
        },
        {"id": "shareable_generator", "name": "FullModelShareableGenerator", "args": {}},
        {
            "id": "aggregator",
            "name": "InTimeAccumulateWeightedAggregator",
            "args": {"expected_data_kind": "WEIGHT_DIFF"},
        },
        {"id": "selector", "name": "IntimeModelSelectionHandler", "args": {}},
        {"id": "locator", "name": "PTFileModelLocator", "args": {"pt_persistor_id": "persistor"}},
        {"id": "json_generator", "name": "ValidationJsonGenerator", "args": {}},
    ],
    "workflows": [
        {
            "id": "scatter",
            "name": "ScatterAndGather",
            "args": {
                "min_clients": "{min_clients}",
                "num_rounds": "{num_rounds}",
                "start_round": 0,
                "wait_time_after_min_received": 20,
                "aggregator_id": "aggregator",
                "train_timeout": 3600,
            },
        },
        {
            "id": "cross",
            "name": "CrossSiteModelEval",
            "args": {
                "model_locator_id": "locator",
                "submit_model_timeout": 100,
                "validation_timeout": 900,
                "cleanup_models": False,
            },
        },
    ],
}
CLIENT_2: dict[str, Any] = {
    "format_version": 2,
    "executors": [
        {
            "tasks": ["train", "submit_model", "validate"],
            "executor": {"name": "LearnerExecutor", "args": {"learner_id": "learner"}},
        }
    ],
    "task_result_filters": [],
    "task_data_filters": [],
    "components": [
        {
            "id": "learner",
            "path": "medl.apps.fed_learn.executors.FederatedLearner",
            "args": {"local_epochs": 2, "integration_config": None},
        }
    ],
}


@dataclass
class Old:
    """An old MMAR with its federated configs, to be changed and imported."""

    root: Path
    server: dict[str, Any]
    client: dict[str, Any]
    out: Path

    def read(self, **options: Any) -> OldFederation:
        for file, document in ((SERVER_CONFIG, self.server), (CLIENT_CONFIG, self.client)):
            (self.root / "config" / file).write_text(json.dumps(document))
        return read_old_federation(self.root, **options)

    def imported(self, **options: Any) -> CreatedJob:
        return import_job(self.read(), self.out, **options)

    def refusals(self, **options: Any) -> dict[str, str]:
        """Place -> message of every problem of an import that is refused."""
        with pytest.raises(ConfigError) as caught:
            self.imported(**options)
        assert not self.out.exists()
        return {one.location.place: one.message for one in caught.value.problems}


def old(tmp_path: Path, server: dict[str, Any], client: dict[str, Any]) -> Old:
    root = shutil.copytree(MMAR, tmp_path / "mmar")
    return Old(root, *json.loads(json.dumps([server, client])), tmp_path / "job")


@pytest.fixture
def old_1(tmp_path: Path) -> Old:
    """Of Clara Train 4.0."""
    return old(tmp_path, SERVER_1, CLIENT_1)


@pytest.fixture
def old_2(tmp_path: Path) -> Old:
    """Of Clara Train 4.1."""
    return old(tmp_path, SERVER_2, CLIENT_2)


@pytest.fixture(params=["old_1", "old_2"])
def either(request: pytest.FixtureRequest) -> Old:
    found: Old = request.getfixturevalue(request.param)
    return found


def asked(job: Job) -> dict[str, Any]:
    """The arguments of the job's workflow."""
    return dict(job.documents.federation)


def outcomes(federation: OldFederation) -> dict[str, str]:
    return {one.location.place: one.outcome for one in federation.fields}


# --- what is translated


def test_the_form_of_4_0_becomes_a_job_that_every_site_takes(old_1: Old) -> None:
    created = old_1.imported()

    job = created.job
    assert check_job(job.folder).accepted
    client = json.loads(job.mmar.document(CLIENT_CONFIG).read_text())
    assert (job.rounds, client["local_epochs"], client["steps_aggregation"]) == (12, 4, 0)
    assert json.loads((job.folder / "meta.json").read_text())["min_clients"] == 3
    assert asked(job)["aggregation_weights"] == {"hospital-a": 2.5, "hospital-b": 1}
    assert asked(job)["weigh_by"] == "steps"
    assert asked(job)["wait_for_others"] == 45
    assert asked(job)["validation_timeout"] == 15 * 60


def test_the_form_of_4_1_becomes_a_job_that_every_site_takes(old_2: Old) -> None:
    created = old_2.imported()

    job = created.job
    assert check_job(job.folder).accepted
    client = json.loads(job.mmar.document(CLIENT_CONFIG).read_text())
    assert (job.rounds, client["local_epochs"]) == (9, 2)
    assert json.loads((job.folder / "meta.json").read_text())["min_clients"] == 2
    assert asked(job)["wait_for_others"] == 20
    assert asked(job)["train_timeout"] == 3600
    assert asked(job)["submit_timeout"] == 100
    assert asked(job)["validation_timeout"] == 900


def test_every_field_is_named_once(either: Old) -> None:
    def leaves(value: Any, path: str = "") -> set[str]:
        if isinstance(value, dict) and value:
            return {one for key, item in value.items() for one in leaves(item, f"{path}.{key}")}
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            return {one for i, item in enumerate(value) for one in leaves(item, f"{path}[{i}]")}
        return {path.lstrip(".")} if value not in ({}, []) else set()

    federation = either.read()

    told = [(one.location.file, one.location.place) for one in federation.fields]
    assert len(told) == len(set(told))
    for file, document in ((SERVER_CONFIG, either.server), (CLIENT_CONFIG, either.client)):
        places = {place for name, place in told if name == file}
        for leaf in leaves(document):
            # A class, and a network with its arguments, stand for what is in them.
            assert any(leaf == place or leaf.startswith(f"{place}.") for place in places) or (
                leaf.startswith(tuple(f"{place}[" for place in places))
            ), leaf


def test_nothing_of_a_usual_federation_is_refused(either: Old) -> None:
    assert "refused" not in outcomes(either.read()).values()


def test_what_the_old_classes_did_unsaid_is_said(old_2: Old) -> None:
    scatter = old_2.server["workflows"][0]["args"]
    del scatter["min_clients"], scatter["num_rounds"]
    del old_2.client["components"][0]["args"]["local_epochs"]

    job = old_2.imported().job

    assert job.rounds == 5
    assert json.loads((job.folder / "meta.json").read_text())["min_clients"] == 1
    assert json.loads(job.mmar.document(CLIENT_CONFIG).read_text())["local_epochs"] == 1


def test_steps_in_place_of_epochs(old_1: Old) -> None:
    old_1.client["client_trainer"]["args"]["steps_aggregation"] = 25

    job = old_1.imported().job

    assert json.loads(job.mmar.document(CLIENT_CONFIG).read_text())["steps_aggregation"] == 25


def test_cross_site_validation_that_nobody_asked_for_is_announced(old_2: Old) -> None:
    assert not any("cross-site validation" in one for one in old_2.imported().notices)
    del old_2.server["workflows"][1]

    created = import_job(old_2.read(), old_2.out, overwrite=True)

    assert any("which the old one did not ask for" in one for one in created.notices)


# --- privacy


def client_of(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.mmar.document(CLIENT_CONFIG).read_text())
    return found


@pytest.mark.parametrize("form", ["old_1", "old_2"])
def test_privacy_filters_are_those_of_today(form: str, request: pytest.FixtureRequest) -> None:
    """The exclusion comes first; all else is as it was, and what was unsaid is said."""
    old: Old = request.getfixturevalue(form)
    if form == "old_1":
        old.client["client"]["outbound_filters"] = FILTERS
    else:
        old.client["task_result_filters"] = [{"tasks": ["train"], "filters": FILTERS}]

    created = old.imported()

    train, submit = client_of(created.job)["task_result_filters"]
    module = "fl_client.flare.privacy"
    assert train == {
        "tasks": ["train"],
        "filters": [
            {"path": f"{module}.ExcludeVars", "args": {"exclude_vars": ["bn"]}},
            {
                "path": f"{module}.PercentilePrivacy",
                "args": {"percentile": 75, "gamma": 50, "buffers": "send"},
            },
            {
                "path": f"{module}.SVTPrivacy",
                "args": {"noise_var": 0.1, "epsilon": 0.2, "buffers": "send"},
            },
        ],
    }
    assert submit["tasks"] == ["submit_model"]  # whole models are held back
    assert asked(created.job)["optional_names"] == ["bn"]
    assert check_job(created.job.folder).accepted


@pytest.mark.parametrize(
    ("given", "outcome", "text"),
    [
        ({"name": "PercentilePrivacy", "args": {"gamma": 0}}, "ignored", "did nothing"),
        ({"name": "PercentilePrivacy", "args": {"percentile": 101}}, "ignored", "did nothing"),
        ({"name": "PercentilePrivacy", "args": {"gama": 1}}, "refused", "unknown argument"),
        ({"name": "SVTPrivacy", "args": {"tau": 1.0}}, "refused", "has to be a number from 0 to"),
        ({"name": "SVTPrivacy", "args": {"epsilon_query": 1}}, "refused", "the split of epsilon"),
        ({"name": "ExcludeVars", "args": {}}, "ignored", "asks for nothing"),
        ({"name": "ExcludeVars", "args": {"exclude_vars": "a(b)?"}}, "refused", "simple"),
    ],
)
def test_a_filter_that_does_not_mean_the_same_is_told(
    old_1: Old, given: Any, outcome: str, text: str
) -> None:
    old_1.client["client"]["outbound_filters"] = [given]

    [told] = [one for one in old_1.read().fields if one.name == given["name"]]

    assert told.outcome == outcome
    assert text in told.text


def test_exclusions_of_the_aggregator_are_left_out_at_the_sites(old_1: Old) -> None:
    old_1.server["aggregator"]["args"]["exclude_vars"] = r"^final\.|running_"

    job = old_1.imported().job

    names = ["final.*", "*running_*"]
    [train, _] = client_of(job)["task_result_filters"]
    assert [one["args"] for one in train["filters"]] == [{"exclude_vars": names}]
    assert asked(job)["optional_names"] == names


def test_what_the_persistor_excluded_stays_at_each_site(old_1: Old) -> None:
    old_1.server["model_persistor"]["args"]["exclude_vars"] = "final"
    old_1.client["client"]["outbound_filters"] = [
        {"name": "ExcludeVars", "args": {"exclude_vars": "final"}}
    ]

    job = old_1.imported().job

    assert asked(job)["shared_names"] == ["!*final*"]
    executor = client_of(job)["executors"][0]["executor"]
    assert executor["args"]["shared_names"] == ["!*final*"]
    assert client_of(job)["task_result_filters"] == []  # nothing of it is sent anyway


# --- code of the old MMAR's own


@pytest.fixture
def with_code(old_1: Old) -> Old:
    """An old MMAR with an aggregator and a filter of its own."""
    (old_1.root / "custom").mkdir(exist_ok=True)
    (old_1.root / "custom/our_parts.py").write_text("class Median: ...\n\n\nclass Half: ...\n")
    old_1.server["aggregator"] = {"path": "our_parts.Median", "args": {"trim": 0.1}}
    old_1.client["client"]["outbound_filters"] = [{"path": "our_parts.Half"}]
    return old_1


def test_own_aggregators_and_filters_go_along(with_code: Old) -> None:
    job = with_code.imported(with_code=True).job

    own = asked(job)["aggregator"]
    assert own == {"path": "our_parts.Median", "args": {"trim": 0.1}}
    assert client_of(job)["task_result_filters"] == [
        {"tasks": ["train"], "filters": [{"path": "our_parts.Half", "args": {}}]}
    ]
    assert check_job(job.folder, OWN_MMAR_POLICY).accepted
    assert {one.rule for one in check_job(job.folder).problems} == {"code"}


def test_and_do_not_without_a_word_for_it(with_code: Old) -> None:
    [message] = set(with_code.refusals().values())

    assert "is code of the MMAR's own" in message


@pytest.mark.parametrize("name", ["Nope", "median"])
def test_one_that_its_file_does_not_define_is_refused_before_any_site_is(
    with_code: Old, name: str
) -> None:
    with_code.server["aggregator"]["path"] = f"our_parts.{name}"

    [message] = with_code.refusals(with_code=True).values()

    assert f"{name}: is not a class that custom/our_parts.py defines itself" in message


# --- what is refused


FILTERS = [
    {"name": "PercentilePrivacy", "args": {"percentile": 75, "gamma": 50}},
    {"name": "SVTPrivacy", "args": {"epsilon": 0.2}},
    {"name": "ExcludeVars", "args": {"exclude_vars": ["bn"]}},
]


def test_filters_of_what_a_site_receives_are_refused_one_by_one(old_1: Old) -> None:
    old_1.client["client"]["inbound_filters"] = FILTERS

    first = old_1.refusals()
    assert [*first] == [f"client.inbound_filters[{index}]" for index in range(3)]
    assert "a filter runs at the sites, on what they send" in first["client.inbound_filters[0]"]


def test_and_of_the_later_form_too(old_2: Old) -> None:
    old_2.client["task_data_filters"] = [{"tasks": ["train"], "filters": FILTERS}]

    assert [*old_2.refusals()] == [f"task_data_filters[0].filters[{i}]" for i in range(3)]


@pytest.mark.parametrize(("said", "rule"), [(True, "steps"), (None, "steps"), (False, "equal")])
def test_sites_keep_the_weights_of_the_old_federation(old_1: Old, said: Any, rule: str) -> None:
    old_1.server["aggregator"]["args"]["weigh_by_local_iter"] = said

    assert asked(old_1.imported().job)["weigh_by"] == rule


def test_a_rule_of_weights_is_true_or_false(old_1: Old) -> None:
    old_1.server["aggregator"]["args"]["weigh_by_local_iter"] = "yes"

    with pytest.raises(ConfigError, match="has to be true or false, found 'yes'"):
        old_1.imported()


@pytest.fixture
def old_he(old_2: Old) -> Old:
    """An encrypted federation of Clara Train 4.1."""
    components = {one["id"]: one for one in old_2.server["components"]}
    components["aggregator"]["name"] = "HEInTimeAccumulateWeightedAggregator"
    components["aggregator"]["args"] |= {
        "weigh_by_local_iter": False,
        "aggregation_weights": {"hospital-a": 2},
    }
    components["shareable_generator"]["name"] = "HEModelShareableGenerator"
    components["persistor"]["path"] = "medl.apps.fed_learn.HEPTFileModelPersistor"
    components["persistor"]["args"]["filter_id"] = "serialize"
    old_2.server["components"].append({"id": "serialize", "name": "HEModelSerializeFilter"})
    encryptor = {
        "name": "HEModelEncryptor",
        "args": {"weigh_by_local_iter": True, "aggregation_weights": {"hospital-a": 2}},
    }
    old_2.client["task_result_filters"] = [{"tasks": ["train"], "filters": [encryptor]}]
    old_2.client["task_data_filters"] = [
        {"tasks": ["train"], "filters": [{"name": "HEModelDecryptor", "args": {}}]},
        {"tasks": ["validate"], "filters": [{"name": "HEEvalDecryptor"}]},
    ]
    return old_2


def test_an_encrypted_federation_stays_one(old_he: Old) -> None:
    job = old_he.imported().job

    client = json.loads(job.mmar.document(CLIENT_CONFIG).read_text())
    assert asked(job)["encrypt_layers"] == ["*"]
    assert asked(job)["aggregation_weights"] == {"hospital-a": 2}
    assert client["task_result_filters"][0]["filters"][0]["args"] == {"encrypt_layers": ["*"]}
    assert check_job(job.folder).accepted
    told = outcomes(old_he.read())
    assert told["task_result_filters[0].filters[0].args.encrypt_layers"] == "translated"
    assert set(told.values()) == {"translated", "ignored"}


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (["model.0.weight", "model.1.bias"], ["model.0.weight", "model.1.bias"]),
        ("conv", ["*conv*"]),
        ("^model\\.0.*weight$", ["model.0*weight"]),
        ("conv|norm", ["*conv*", "*norm*"]),
    ],
)
def test_the_tensors_that_were_encrypted_are(old_he: Old, layers: Any, names: list[str]) -> None:
    arguments = old_he.client["task_result_filters"][0]["filters"][0]["args"]
    arguments["encrypt_layers"] = layers

    assert asked(old_he.imported().job)["encrypt_layers"] == names


@pytest.mark.parametrize(
    "layers",
    ["conv.[0-9]+", "a.b", "(conv)", "", [], [1], ["conv*"], 7, "a.*b.*c.*d"],
)
def test_a_pattern_that_names_cannot_say_is_refused_and_dropped_means_all(
    old_he: Old, layers: Any
) -> None:
    arguments = old_he.client["task_result_filters"][0]["filters"][0]["args"]
    arguments["encrypt_layers"] = layers

    place = "task_result_filters[0].filters[0].args.encrypt_layers"
    assert "is not a list of names" in old_he.refusals()[place]
    job = old_he.imported(allow_dropped=["encrypt_layers"]).job
    assert asked(job)["encrypt_layers"] == ["*"]


def test_half_an_encrypted_federation_is_refused(old_he: Old) -> None:
    old_he.client["task_result_filters"] = []

    assert any("no site encrypts" in one for one in old_he.refusals().values())


def test_weights_that_both_sides_tell_differently_are_refused(old_he: Old) -> None:
    arguments = old_he.client["task_result_filters"][0]["filters"][0]["args"]
    arguments["aggregation_weights"] = {"hospital-a": 3}

    assert any("Let both say" in one or "asks for" in one for one in old_he.refusals().values())


def test_what_may_be_dropped_is_named_by_class_or_place(old_1: Old) -> None:
    old_1.client["client"]["inbound_filters"] = FILTERS

    left = old_1.refusals(allow_dropped=["PercentilePrivacy", "client.inbound_filters[2]"])
    assert [*left] == ["client.inbound_filters[1]"]
    created = old_1.imported(allow_dropped=["PercentilePrivacy", "SVTPrivacy", "ExcludeVars"])
    assert check_job(created.job.folder).accepted


def test_a_field_to_drop_that_is_not_refused_is_a_mistake(old_1: Old) -> None:
    old_1.client["client"]["inbound_filters"] = FILTERS[:1]

    with pytest.raises(ConfigError, match=r"called 'PercentPrivacy'\n +Did you mean 'PercentileP"):
        old_1.imported(allow_dropped=["PercentPrivacy"])


def change(path: str, value: Any) -> Callable[[Old], None]:
    """``client.cross_validate`` -> a function that puts the value there."""

    def apply(federation: Old) -> None:
        document, *steps, last = path.split(".")
        target: Any = getattr(federation, document)
        for step in steps:
            target = target[int(step)] if step.isdigit() else target[step]
        target[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("server.servers.0.start_round", 3, "starts in round 0"),
        ("server.aggregator.args.exclude_vars", "(norm|bn)+", "not a simple expression"),
        ("server.aggregator.name", "HEInTimeAccumulateWeightedAggregator", "no site encrypts"),
        ("server.aggregator.path", "our_aggregator.Median", "is not known"),
        ("server.model_persistor.args.model.args.norm", "instance", "this one is another"),
        ("server.model_persistor.args.ckpt_preload_path", "a.pt", "enable a CheckpointLoader"),
        ("server.handlers.0.args.weigh_by_local_iter", True, "unweighted mean"),
        ("server.handlers.0.name", "EarlyStopHandler", "runs all its rounds"),
        ("server.mystery", {"depth": 3}, "is not known"),
        ("client.cross_validate", False, "each site decides in its policy"),
        ("client.cross_site_validation.is_participating", False, "each site decides"),
        ("client.client_trainer.args.integration_config", {"a": 1}, "cannot be brought"),
        ("client.client_trainer.args.model_reader_writer.name", "HEPTModelReaderWriter", "no site"),
    ],
)
def test_what_would_change_the_result_is_refused(
    old_1: Old, path: str, value: Any, message: str
) -> None:
    change(path, value)(old_1)

    (found,) = old_1.refusals().values()
    assert message in found


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("server.workflows.0.args.start_round", 4, "starts in round 0"),
        ("server.workflows.1.args.participating_clients", ["a"], "each site decides"),
        ("server.components.0.args.norm", "instance", "this one is another"),
    ],
)
def test_and_of_the_later_form(old_2: Old, path: str, value: Any, message: str) -> None:
    change(path, value)(old_2)

    (found,) = old_2.refusals().values()
    assert message in found


def test_an_executor_in_several_processes_is_what_it_is_around(old_2: Old) -> None:
    """How many processes there are is the site's to say."""
    inner = {"id": "trainer", **old_2.client["executors"][0]["executor"]}
    arguments = {"executor_id": "trainer", "num_of_processes": 2, "components": [inner]}
    change("client.executors.0.executor", {"name": "PTMultiProcessExecutor", "args": arguments})(
        old_2
    )

    read = old_2.read()

    found = {one.name: one for one in read.fields}
    assert found["PTMultiProcessExecutor"].outcome == "ignored"
    assert "NUM_PROCESSES in its environment.json" in found["num_of_processes"].text
    assert found["LearnerExecutor"].outcome == "translated"
    assert found["learner_id"].location.place == (
        "executors[0].executor.args.components[0].args.learner_id"
    )
    assert not [one for one in read.fields if one.outcome == "refused"]
    old_2.imported()


def test_all_is_told_at_once_the_faults_of_the_mmar_too(old_1: Old, edited: Edited) -> None:
    edited(
        old_1.root / "config" / "config_train.json",
        lambda train: train["train"]["loss"].update(name="DiceLos"),
    )
    del old_1.server["servers"][0]["num_rounds"]
    del old_1.client["client_trainer"]
    old_1.server["servers"][0]["wait_after_min_clients"] = "soon"
    old_1.client["client"]["inbound_filters"] = FILTERS[:1]

    with pytest.raises(ConfigError) as caught:
        old_1.imported()

    text = str(caught.value)
    assert "does not say how many rounds: num_rounds" in text
    assert "does not say how a site trains" in text
    assert "has to be a whole number, found 'soon'" in text
    assert "PercentilePrivacy" in text
    assert "Did you mean 'DiceLoss'" in text


def test_two_answers_to_one_question(old_1: Old) -> None:
    old_1.client["client"]["local_epochs"] = 7

    assert "asks for 4, and config_fed_client.json: client.local_epochs for 7" in str(
        old_1.refusals()
    )


def test_weights_that_the_old_server_started_from(old_1: Old) -> None:
    """It read ``MMAR_CKPT`` whenever the file was there; today somebody has to say so."""
    (old_1.root / "models").mkdir()
    (old_1.root / "models" / "model.pt").write_bytes(b"weights")

    assert "--set dont_load_ckpt_model=false" in old_1.refusals()["MMAR_CKPT"]

    fresh = old_1.imported(allow_dropped=["MMAR_CKPT"])
    assert not fresh.job.mmar.models.exists()
    started = import_job(
        old_1.read(values={"dont_load_ckpt_model": False}), old_1.out, overwrite=True
    )
    assert (started.job.mmar.models / "model.pt").read_bytes() == b"weights"


# --- where the configs lie


def test_configs_beside_no_mmar(old_1: Old, tmp_path: Path) -> None:
    old_1.read()
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in (SERVER_CONFIG, CLIENT_CONFIG):
        (old_1.root / "config" / file).rename(bare / file)

    with pytest.raises(ConfigError, match=r"nothing to train\n +Name the MMAR with --mmar"):
        read_old_federation(bare)
    assert import_job(read_old_federation(bare, mmar=old_1.root), old_1.out).job.rounds == 12


def test_configs_in_a_job_whose_name_is_kept(old_2: Old, tmp_path: Path) -> None:
    old_2.read()
    folder = tmp_path / "submitted"
    folder.mkdir()
    old_2.root.rename(folder / "app")
    meta = {"name": "liver", "deploy_map": {"app": ["@ALL"]}}
    (folder / "meta.json").write_text(json.dumps(meta))

    assert import_job(read_old_federation(folder), old_2.out).job.name == "liver"


def test_a_job_of_today_is_not_imported() -> None:
    with pytest.raises(ConfigError, match=r"is of today already\n +'mmar submit'"):
        read_old_federation(REPOSITORY / "jobs" / "spleen_ct_segmentation")


def test_another_format(old_1: Old) -> None:
    old_1.server["format_version"] = 3
    old_1.client = {}

    with pytest.raises(ConfigError) as caught:
        old_1.read()
    assert len(caught.value.problems) == 2


def test_missing_documents_are_named_together(tmp_path: Path) -> None:
    root = shutil.copytree(MMAR, tmp_path / "mmar")

    with pytest.raises(ConfigError, match=r"(?s)config_fed_server\.json.*config_fed_client\.json"):
        read_old_federation(root)


# --- the table


def test_every_rule_sets_what_a_job_has() -> None:
    rules = [*FIELDS.values(), *(one for c in CLASSES.values() for one in c.arguments.values())]
    [workflow] = JobSettings().documents("job")[SERVER_CONFIG]["workflows"]
    settings = {*JobSettings.__dataclass_fields__, *JOB_CLASSES[workflow["path"]].arguments}
    for rule in rules:
        assert not rule.sets or rule.sets in settings
        assert (rule.outcome == "translated") or not rule.sets
        assert rule.text


def test_every_default_is_of_an_argument_in_the_table() -> None:
    for name in DEFAULTS:
        kind, _, argument = name.partition(".")
        assert CLASSES[kind].arguments[argument].sets
