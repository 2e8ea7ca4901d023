"""What becomes of each field of an old federation's configs: a table, one line for each.

Clara Train's FL configs have ``format_version`` 1 (4.0, NVFlare 1) or 2 (4.1, NVFlare 2.0). A field
is a plain value at a path, or a class with its arguments. Each rule says what becomes of it:

    translated   it stands in the new job, at another place or under another name
    ignored      nothing depends on it today, or it belongs to whoever runs the server or a site
    refused      today's job has nothing like it, so that the result would be another
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mmar_runtime.config.overrides import Scalar

Outcome = Literal["translated", "ignored", "refused"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of one field.

    Attributes:
        outcome: see the module.
        text: what it becomes, why it does not matter, or why it cannot be had and what to do.
        sets: the field of ``JobSettings``, or else the argument of the workflow, that it sets.
        factor: by which a number is multiplied on the way.
        harmless: values that ask for nothing but what happens anyway: then it is ignored.
    """

    outcome: Outcome
    text: str
    sets: str = ""
    factor: int = 1
    harmless: tuple[Any, ...] = ()


def translated(text: str, sets: str = "", *, factor: int = 1) -> Rule:
    """Return the rule of a field that is in the new job."""
    return Rule("translated", text, sets, factor)


def ignored(text: str) -> Rule:
    """Return the rule of a field on which nothing depends."""
    return Rule("ignored", text)


def refused(text: str, *harmless: Any) -> Rule:
    """Return the rule of a field that changes the result, unless it has one of these values."""
    return Rule("refused", text, harmless=harmless)


@dataclass(frozen=True, slots=True)
class ClassRule:
    """What becomes of a class, and of its arguments by name; of a refused one they do not count."""

    rule: Rule
    arguments: Mapping[str, Rule]


def taken(text: str, /, **arguments: Rule) -> ClassRule:
    """Return the rule of a class whose work is done today as well."""
    return ClassRule(translated(text), arguments)


def dropped(text: str) -> ClassRule:
    """Return the rule of a class whose work nobody does today."""
    return ClassRule(refused(text), {})


# --- Reasons that several fields share -----------------------------------------------------------

KIT = "the start-up kit of a server or a site says it, not a job"
WIRING = "how NVFlare connects its parts; the new job has its own"
FIXED = "the new job's own components do it"
ENCRYPTED = "the job encrypts; a federation provisioned with 'he: true' has the keys"
KEYS = "in startup/ of the kit, under the name that NVFlare's provisioning gives it"
ALL_KINDS = "updates and whole models are encrypted"
AT_THE_SITES = "a filter runs at the sites, on what they send; there is none here"
NO_RESUME = "a job starts in round 0; put the weights into models/ and enable a CheckpointLoader"
NO_EARLY_STOP = "a job runs all its rounds; the best global model is kept whenever it was found"
LEFT_OUT = (
    "sites leave these tensors out and start each round from the server's, which keep their values"
)
KEPT = "shared_names without these tensors: each site keeps its own"
OWN_CODE = "the same class, behind the update guard; it needs --with-code and the sites' consent"
OWN_IMPORTS = "what it imports has to be there in NVFlare 2.9"
ONE_NETWORK = "the network is 'model' of config_train.json alone, and this one is another"
STEPS = "weigh_by: steps where it is true, equal where it is false"
ONCE = "a site multiplies by its steps before it encrypts; the server does not do so again"
MEAN = "models are compared by the unweighted mean over the sites"
PROCESSES = (
    "each site says how many processes it has: NUM_PROCESSES in its environment.json, 1 without; "
    "with N of them a step is of N batches"
)
DECIDES_ITSELF = "each site decides in its policy: cross_site"

CONTROLLER = "fl_server.flare.controller.FederationController"

NOTHING: tuple[Any, ...] = (None, "", False, [], {})

# --- Plain values --------------------------------------------------------------------------------

FIELDS: Mapping[str, Rule] = {
    "format_version": ignored("the new one is 2"),
    # config_fed_server.json, format_version 1
    "servers.name": ignored(KIT),
    "servers.service.target": ignored(KIT),
    "servers.service.scheme": ignored(KIT),
    "servers.ssl_cert": ignored(KIT),
    "servers.ssl_private_key": ignored(KIT),
    "servers.ssl_root_cert": ignored(KIT),
    "servers.admin_host": ignored(KIT),
    "servers.admin_port": ignored(KIT),
    "servers.admin_storage": ignored(KIT),
    "servers.admin_timeout": ignored(KIT),
    "servers.num_server_workers": ignored(KIT),
    "servers.max_num_clients": ignored("every site that is connected may take part"),
    "servers.min_num_clients": translated("min_clients", "min_sites"),
    "servers.num_rounds": translated("num_rounds", "rounds"),
    "servers.start_round": refused(NO_RESUME, 0),
    "servers.wait_after_min_clients": translated("wait_for_others, in seconds", "wait_for_others"),
    "servers.heart_beat_timeout": ignored("the new job has 600 seconds"),
    # config_fed_server.json, format_version 2
    "server.heart_beat_timeout": ignored("the new job has 600 seconds"),
    "server.task_request_interval": ignored("sites are woken when there is a task"),
    # config_fed_client.json, format_version 1
    "client.local_epochs": translated("local_epochs", "local_epochs"),
    "client.steps_aggregation": translated("steps_aggregation", "steps_aggregation"),
    "client.retry_timeout": ignored(KIT),
    "client.ssl_cert": ignored(KIT),
    "client.ssl_private_key": ignored(KIT),
    "client.ssl_root_cert": ignored(KIT),
    "cross_validate": refused(DECIDES_ITSELF, True),
    "cross_site_validation.is_participating": refused(DECIDES_ITSELF, True),
    "cross_site_validation.timeout": translated(
        "validation_timeout, from minutes to seconds", "validation_timeout", factor=60
    ),
    # config_fed_client.json, format_version 2
    "executors.tasks": ignored(WIRING),
    "task_result_filters.tasks": ignored("of filters that are judged one by one"),
    "task_data_filters.tasks": ignored("of filters that are judged one by one"),
    "components.id": ignored(WIRING),
    "workflows.id": ignored(WIRING),
    "executors.executor.id": ignored(WIRING),
}
"""Path without list indices -> rule."""

# --- Classes, by the last part of their names ----------------------------------------------------

AGGREGATOR = taken(
    CONTROLLER,
    aggregation_weights=translated(
        "aggregation_weights; the sum is divided by all weights, which NVFlare 1 did not do",
        "aggregation_weights",
    ),
    exclude_vars=translated(LEFT_OUT),
    weigh_by_local_iter=translated(STEPS, "weigh_by"),
    expected_data_kind=refused("sites send differences", "WEIGHT_DIFF", None),
    expected_algorithm=ignored(WIRING),
)
SELECTOR = taken(
    CONTROLLER,
    weigh_by_local_iter=refused(MEAN, *NOTHING),
    aggregation_weights=refused(MEAN, *NOTHING),
    key_metric=ignored("the key_metric of config_train.json is the one"),
    validation_metric_name=ignored("the key_metric of config_train.json is the one"),
    negate_key_metric=refused("higher is better", *NOTHING),
)
TRAINER = taken(
    "fl_client.flare.executor.MmarExecutor",
    local_epochs=translated("local_epochs", "local_epochs"),
    steps_aggregation=translated("steps_aggregation", "steps_aggregation"),
    model_reader_writer=ignored("weights are read and written by the names of their tensors"),
    integration_config=refused("an engine of one's own cannot be brought", *NOTHING),
    mmar_root=ignored("the app folder of the job"),
    wf_config_file_name=refused("it is config_train.json", "config_train.json", None),
    wf_config_file=refused("it is config_train.json", "config/config_train.json", None),
    env_config_file=refused("it is environment.json", "config/environment.json", None),
    log_config_file=ignored("NVFlare's own logging"),
)
CROSS_SITE = taken(
    CONTROLLER,
    submit_model_timeout=translated("submit_timeout", "submit_timeout"),
    validation_timeout=translated("validation_timeout", "validation_timeout"),
    cleanup_models=refused("models are kept with the results", *NOTHING),
    participating_clients=refused(DECIDES_ITSELF, *NOTHING),
    model_locator_id=ignored(WIRING),
    formatter_id=ignored(WIRING),
    json_generator_id=ignored(WIRING),
    cross_val_dir=ignored("the matrix is in results/cross_site.json"),
    submit_model_task_name=ignored(WIRING),
    validation_task_name=ignored(WIRING),
    validate_task_name=ignored(WIRING),
    task_check_period=ignored("sites are woken when there is a task"),
    wait_for_clients_timeout=ignored(FIXED),
)

DECRYPTOR = taken(
    "fl_client.flare.encryption.DecryptModel, before every other filter",
    tenseal_context_file=ignored(KEYS),
    data_kinds=refused(ALL_KINDS, *NOTHING, ["WEIGHT_DIFF", "WEIGHTS"], ["WEIGHTS"]),
)

_CLASSES: Mapping[str, ClassRule] = {
    # workflows
    "ScatterAndGather": taken(
        CONTROLLER,
        min_clients=translated("min_clients", "min_sites"),
        num_rounds=translated("num_rounds", "rounds"),
        start_round=refused(NO_RESUME, 0),
        wait_time_after_min_received=translated("wait_for_others", "wait_for_others"),
        train_timeout=translated("train_timeout", "train_timeout"),
        aggregator_id=ignored(WIRING),
        persistor_id=ignored(WIRING),
        shareable_generator_id=ignored(WIRING),
        train_task_name=ignored(WIRING),
        ignore_result_error=refused(
            "a failed site is left out of the round if the others are enough", None, False
        ),
        persist_every_n_rounds=ignored("the global model is written after each round"),
        snapshot_every_n_rounds=ignored("NVFlare has no snapshots any more"),
        task_check_period=ignored("sites are woken when there is a task"),
    ),
    "CrossSiteModelEval": CROSS_SITE,
    "GlobalModelEval": dropped("cross-site validation evaluates the models of the sites as well"),
    "CyclicController": dropped("sites train at the same time, not one after the other"),
    "InitializeGlobalWeights": dropped("the server draws the first weights from the job's seed"),
    # the server's parts
    "AccumulateWeightedAggregator": AGGREGATOR,
    "InTimeAccumulateWeightedAggregator": AGGREGATOR,
    "PTFileModelPersistor": taken(
        CONTROLLER,
        exclude_vars=translated(KEPT),
        global_model_file_name=ignored("it is results/models/FL_global_model.pt"),
        best_global_model_file_name=ignored("it is results/models/best_FL_global_model.pt"),
        source_ckpt_file_full_name=refused(NO_RESUME, *NOTHING),
        ckpt_preload_path=refused(NO_RESUME, *NOTHING),
        default_train_conf=ignored("checkpoints carry the network's configuration"),
        filter_id=ignored("models are written encrypted where the job encrypts"),
    ),
    "FullModelShareableGenerator": taken(CONTROLLER),
    "IntimeModelSelectionHandler": SELECTOR,
    "IntimeModelSelector": SELECTOR,
    "ModelSelectionHandler": SELECTOR,
    "PTFileModelLocator": taken(
        CONTROLLER,
        pt_persistor_id=ignored(WIRING),
        model_dir=ignored(WIRING),
        model_name=ignored(WIRING),
    ),
    "ValidationJsonGenerator": taken(
        f"{CONTROLLER}, into results/cross_site.json",
        results_dir=ignored(FIXED),
        json_file_name=ignored(FIXED),
    ),
    "EarlyStopHandler": dropped(NO_EARLY_STOP),
    "EarlyStopping": dropped(NO_EARLY_STOP),
    # the sites' parts
    "ClientTrainer": TRAINER,
    "FederatedLearner": TRAINER,
    "LearnerExecutor": taken(
        "fl_client.flare.executor.MmarExecutor",
        learner_id=ignored(WIRING),
        train_task=ignored(WIRING),
        submit_model_task=ignored(WIRING),
        validate_task=ignored(WIRING),
    ),
    "ClientValidator": taken(
        "fl_client.flare.executor.MmarExecutor, by config_cross_validation.json",
        model_reader_writer=ignored("weights are read and written by the names of their tensors"),
    ),
    "PTModelReaderWriter": taken("weights are read and written by the names of their tensors"),
    "PTMultiProcessExecutor": ClassRule(
        ignored(PROCESSES), {"executor_id": ignored(WIRING), "num_of_processes": ignored(PROCESSES)}
    ),
    "ConvertToFedEvent": ClassRule(ignored("progress is in the run record"), {}),
    "AnalyticsSender": ClassRule(ignored("progress is in the run record"), {}),
    "TBAnalyticsReceiver": ClassRule(ignored("progress is in the run record"), {}),
    # filters
    "PercentilePrivacy": dropped(AT_THE_SITES),
    "SVTPrivacy": dropped(AT_THE_SITES),
    "ExcludeVars": dropped(AT_THE_SITES),
    "ConvertWeights": dropped("sites send differences"),
    # homomorphic encryption
    "HEModelEncryptor": taken(
        "fl_client.flare.encryption.EncryptReply, behind every other filter",
        tenseal_context_file=ignored(KEYS),
        encrypt_layers=translated("encrypt_layers"),
        aggregation_weights=translated(
            "aggregation_weights; each site is told its own", "aggregation_weights"
        ),
        weigh_by_local_iter=translated(STEPS, "weigh_by"),
        data_kinds=refused(ALL_KINDS, *NOTHING, ["WEIGHT_DIFF"], ["WEIGHT_DIFF", "WEIGHTS"]),
    ),
    "HEModelDecryptor": DECRYPTOR,
    "HEEvalDecryptor": DECRYPTOR,
    "HEPTModelReaderWriter": taken("weights are read and written by the names of their tensors"),
    "HEModelShareableGenerator": taken(ENCRYPTED, tenseal_context_file=ignored(KEYS)),
    "HEModelSerializeFilter": taken(ENCRYPTED, tenseal_context_file=ignored(KEYS)),
    "HEInTimeAccumulateWeightedAggregator": ClassRule(
        translated(f"{CONTROLLER}, which adds up what is encrypted"),
        {**AGGREGATOR.arguments, "weigh_by_local_iter": refused(ONCE, False, None)},
    ),
}

CLASSES: Mapping[str, ClassRule] = {
    **_CLASSES,
    "HEPTFileModelPersistor": _CLASSES["PTFileModelPersistor"],
}

ENCRYPTING = tuple(name for name in CLASSES if name.startswith("HE"))
"""Classes of an encrypted federation."""

UNKNOWN_CLASS = dropped("is not known, so what it did is not done")
UNKNOWN_FIELD = refused("is not known, so what it asked for is not done", *NOTHING)

DEFAULTS: Mapping[str, Scalar] = {
    "ScatterAndGather.min_clients": 1,
    "ScatterAndGather.num_rounds": 5,
    "ClientTrainer.local_epochs": 1,
    "FederatedLearner.local_epochs": 1,
}
"""What the old classes did where their configs did not say: class and argument -> value."""
