"""A job's three documents: keys that NVFlare reads, classes out of their place, runs without end.

The benign ones are every form of a job that ``mmar job`` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.security.case import Case

META, FOLDER = "meta.json", "app/config/"
CLIENT, SERVER = f"{FOLDER}config_fed_client.json", f"{FOLDER}config_fed_server.json"
RULES = ("job-file", "argument", "allow-list", "course", "limit", "privacy", "encryption",
         "transfer", "code")  # fmt: skip

FEDERATION = "fl_server.flare.controller.FederationController"
PRIVACY = "fl_client.flare.privacy."
TASKS = ["train", "score_model", "submit_model", "validate"]

ARGS = {"min_sites": 2, "num_rounds": 3}
A = "workflows/0/args/"
EXECUTOR = {"id": "again", "path": "fl_client.flare.executor.MmarExecutor", "args": {}}

RESOURCES: dict[str, tuple[str, Any]] = {
    "docker-image": ("an image of a container", {"site-1": {"docker": {"image": "evil"}}}),
    "docker-default": ("an image for every site", {"@default": {"docker": {"image": "evil"}}}),
    "docker-entrypoint": ("a command", {"site-1": {"docker": {"entrypoint": ["sh", "-c", "id"]}}}),
    "docker-shm": ("shared memory", {"site-1": {"docker": {"shm_size": "900g"}}}),
    "k8s-image": ("an image of a pod", {"site-1": {"k8s": {"image": "evil", "command": ["sh"]}}}),
    "slurm-command": ("a command of a node",
                      {"site-1": {"slurm": {"additional_node_command": "sh -c id"}}}),
    "process-mode": ("the old nested form", {"site-1": {"process": {"num_of_gpus": 1}}}),
    "flat-image": ("an image in the flat form", {"site-1": {"num_of_gpus": 1, "image": "evil"}}),
    "flat-python": ("an interpreter", {"site-1": {"python_path": "/tmp/python"}}),
    "flat-mounts": ("a mount", {"site-1": {"volumes": ["/:/host"]}}),
    "flat-environment": ("variables", {"site-1": {"env": {"LD_PRELOAD": "/tmp/x.so"}}}),
    "gpus-many": ("a million GPUs", {"site-1": {"num_of_gpus": 10**6}}),
    "gpus-negative": ("GPUs that are given back", {"site-1": {"num_of_gpus": -1}}),
    "gpus-flag": ("a flag as a number", {"site-1": {"num_of_gpus": True}}),
    "gpus-text": ("all of them", {"site-1": {"num_of_gpus": "all"}}),
    "gpus-list": ("named ones", {"site-1": {"num_of_gpus": [0, 1]}}),
    "memory-huge": ("more memory than there is", {"site-1": {"mem_per_gpu_in_GiB": 10**9}}),
    "memory-text": ("a text behind the memory", {"site-1": {"memory": "16Gi --privileged"}}),
    "cpus-zero": ("no processor", {"site-1": {"num_of_cpus": 0}}),
    "site-is-a-path": ("a path as a site", {"../../local": {"num_of_gpus": 1}}),
    "site-is-markup": ("markup as a site", {"[red]x": {"num_of_gpus": 1}}),
    "flat": ("amounts of nobody", {"num_of_gpus": 1}),
    "list": ("an array", [{"num_of_gpus": 1}]),
    "nan": ("no amount", {"site-1": {"num_of_gpus": None}}),
}  # fmt: skip

METAS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "study": ("a study, which chooses mounts and variables", {"study": "other"}),
    "job-id": ("an id of its own choice", {"job_id": "../../x"}),
    "props": ("properties of its own", {"custom_props": {"log_config": "/tmp/x"}}),
    "pool": ("a pool of statistics", {"stats_pool_config": {"pools": []}}),
    "edge": ("a way to edge devices", {"edge_method": "cross"}),
    "content": ("where its content lies", {"content_location": "/etc"}),
    "clients-huge": ("more sites than there can be", {"min_clients": 10**9}),
    "clients-flag": ("a flag as a number", {"min_clients": True}),
    "clients-null": ("no number", {"min_clients": None}),
    "mandatory-twice": ("a site twice", {"mandatory_clients": ["a", "a"]}),
    "mandatory-markup": ("markup as a site", {"mandatory_clients": ["[link=x]a[/link]"]}),
    "targets": ("targets in place of sites", {"deploy_map": {"app": {"targets": ["@ALL"]}}}),
    "all-and-one": ("everybody, and one more", {"deploy_map": {"app": ["@ALL", "site-1"]}}),
    "site-twice": ("a site twice", {"deploy_map": {"app": ["server", "site-1", "site-1"]}}),
    "name-blank-end": ("a name with a blank at its end", {"name": "job "}),
    "format": ("a version of a format", {"format_version": 2}),
}

CLIENTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "unknown": ("an unknown key", {"extra": {"a": 1}}),
    "flag": ("a setting of NVFlare's own", {"runner_sync_timeout": 10**9}),
    "used-setting": ("a setting of NVFlare's, used once so that it looks like a value",
                     {"get_task_timeout": 10**9,
                      "components/0/args/max_wait": "{get_task_timeout}"}),
    "fetch": ("how often it asks", {"default_task_fetch_interval": 1e-9}),
    "handlers": ("handlers", {"handlers": []}),
    "macro": ("a macro", {"@x": 1}),
    "format": ("another format", {"format_version": 1}),
    "format-text": ("a format as a text", {"format_version": "2"}),
    "server-component": ("a server's class at a site", {
        "components/-": {"id": "p", "path": FEDERATION, "args": ARGS}}),
    "server-workflow": ("a workflow as the executor",
                        {"executors/0/executor": {"path": FEDERATION, "args": ARGS}}),
    "workflows": ("workflows at a site", {"workflows": [{"id": "x", "path": FEDERATION}]}),
    "executor-component": ("a second executor as a component", {"components/-": EXECUTOR}),
    "executor-twice": ("a second executor for the same tasks",
                       {"executors/-": {"tasks": TASKS, "executor": EXECUTOR}}),
    "executor-other-task": ("a second executor for another task",
                            {"executors/-": {"tasks": ["train2"], "executor": EXECUTOR}}),
    "executors-fifty": ("fifty executors", {
        "executors": [{"tasks": ["train"], "executor": EXECUTOR}] * 50}),
    "executors-none": ("no executor", {"executors": []}),
    "executor-key": ("a key of an entry", {"executors/0/when": "always"}),
    "executor-config-type": ("an object that NVFlare leaves as it is",
                             {"executors/0/executor/config_type": "dict"}),
    "executor-argument": ("an argument that is none", {"executors/0/executor/args/device": "cpu"}),
    "steps-many": ("a billion steps", {"executors/0/executor/args/steps_aggregation": 10**9}),
    "steps-top": ("the same at the top", {"steps_aggregation": 10**9}),
    "steps-negative": ("steps below none", {"executors/0/executor/args/steps_aggregation": -1}),
    "epochs-flag": ("a flag as epochs", {"executors/0/executor/args/local_epochs": True}),
    "shared-object": ("an object as names of tensors",
                      {"executors/0/executor/args/shared_names": {"a": 1}}),
    "shared-wild": ("a name of stars",
                    {"executors/0/executor/args/shared_names": ["*a*a*a*a*a*a"]}),
    "wait-long": ("a site that sleeps for a year", {"components/0/args/max_wait": 3.2e7}),
    "wait-text": ("a text as seconds", {"components/0/args/max_wait": "1"}),
    "wake-twice": ("a second listener", {"components/-": {
        "id": "wake2", "path": "fl_client.flare.wake.WakeListener", "args": {}}}),
    "id-twice": ("an id twice", {"components/-": {
        "id": "mmar", "path": "fl_client.flare.wake.WakeListener", "args": {}}}),
    "id-missing": ("no id", {"components": [
        {"path": "fl_client.flare.wake.WakeListener", "args": {}}]}),
    "id-markup": ("markup as an id", {"components/0/id": "[red]wake"}),
    "id-newline": ("an id of two lines", {"components/0/id": "wake\nINFO all is well"}),
    "args-list": ("arguments as an array", {"components/0/args": [1, 2]}),
    "entry-text": ("a text as an entry", {"components/-": "fl_client.flare.wake.WakeListener"}),
    "entry-array": ("an array as an entry", {"components/-": []}),
    "components-object": ("an object of components", {"components": {"a": {}}}),
    "components-many": ("hundreds of components", {"components": [
        {"id": f"a{n}", "path": "fl_client.flare.wake.WakeListener"} for n in range(300)]}),
    "chain-key": ("a key of a chain", {"task_result_filters": [{
        "tasks": ["train"], "filters": [], "scope": "x"}]}),
    "chain-direction": ("a chain of the other way", {"task_result_filters": [{
        "tasks": ["train"], "direction": "in",
        "filters": [{"path": f"{PRIVACY}PercentilePrivacy", "args": {}}]}]}),
    "chain-executor": ("an executor as a filter", {"task_result_filters": [{
        "tasks": ["train"], "filters": [{"path": EXECUTOR["path"], "args": {}}]}]}),
    "chain-wrong-side": ("a filter of replies for what comes in", {"task_data_filters": [{
        "tasks": ["train"], "filters": [{"path": f"{PRIVACY}PercentilePrivacy", "args": {}}]}]}),
    "filter-disabled": ("a privacy filter that is switched off", {"task_result_filters": [{
        "tasks": ["train"], "filters": [
            {"path": f"{PRIVACY}PercentilePrivacy", "args": {}, "disabled": True}]}]}),
    "filter-other-task": ("a filter with odd arguments, where nobody looked",
                          {"task_result_filters": [{"tasks": ["submit_model"], "filters": [
                              {"path": f"{PRIVACY}SVTPrivacy", "args": {"epsilon": 1e9}}]}]}),
    "filter-server": ("the server's class as a filter", {"task_result_filters": [{
        "tasks": ["train"], "filters": [{"path": FEDERATION, "args": ARGS}]}]}),
    "chain-empty": ("a chain without its filters", {"task_result_filters": [{}]}),
    "chain-first-empty": ("a rounding whose own task has an empty chain", {"task_result_filters": [
        {"tasks": ["train"], "filters": []},
        {"tasks": ["validate"], "filters": [
            {"path": "fl_client.flare.compact.CompactUpdate", "args": {"transfer": "int8"}}]}]}),
}  # fmt: skip

SERVERS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "unknown": ("an unknown key", {"extra": 1}),
    "executors": ("executors at the server", {"executors": []}),
    "setting": ("a setting of NVFlare's own", {"server/admin_storage": "/"}),
    "settings-list": ("settings as an array", {"server": [1]}),
    "heart-beat": ("a site that is dead at once", {"server/heart_beat_timeout": 1e-9}),
    "heart-beat-long": ("one that never is", {"server/heart_beat_timeout": 1e300}),
    "interval": ("sites that ask without end", {"server/task_request_interval": 0}),
    "site-component": ("a site's class at the server", {
        "components/-": {"id": "x", "path": "fl_client.flare.wake.WakeListener", "args": {}}}),
    "site-executor": ("the executor at the server", {"components/-": EXECUTOR}),
    "filter": ("a site's filter at the server", {"task_result_filters": [{
        "tasks": ["train"], "filters": [{"path": f"{PRIVACY}ExcludeVars",
                                         "args": {"exclude_vars": ["*"]}}]}]}),
    "workflow-component": ("a workflow as a component", {
        "components/-": {"id": "x", "path": FEDERATION, "args": ARGS}}),
    "component-workflow": ("a component as a workflow", {
        "workflows/-": {"id": "x", "path": "fl_client.flare.wake.WakeListener"}}),
    "federations-two": ("a second federation", {
        "workflows/-": {"id": "x", "path": FEDERATION, "args": ARGS}}),
    "federations-fifty": ("fifty federations", {"workflows": [
        {"id": f"w{n}", "path": FEDERATION, "args": ARGS} for n in range(50)]}),
    "federations-many": ("two hundred federations", {"workflows": [
        {"id": f"w{n}", "path": FEDERATION, "args": ARGS} for n in range(200)]}),
    "nvflare-training": ("NVFlare's own training after ours", {"workflows/-": {
        "id": "x", "path": "nvflare.app_common.workflows.scatter_and_gather.ScatterAndGather",
        "args": {"min_clients": 1, "num_rounds": 900}}}),
    "nvflare-validation": ("NVFlare's own cross-validation", {"workflows/-": {
        "id": "x",
        "path": "nvflare.app_common.workflows.cross_site_model_eval.CrossSiteModelEval",
        "args": {"cross_val_dir": "../../../x"}}}),
    "nvflare-persistor": ("a persistor of NVFlare's, which unpickles", {"components/-": {
        "id": "persistor", "path": "nvflare.app_opt.pt.file_model_persistor.PTFileModelPersistor",
        "args": {"source_ckpt_file_full_name": "MARKER"}}}),
    "old-training": ("a workflow of an earlier mmar-fl", {"workflows": [
        {"id": "w", "path": "fl_server.flare.wake.WakingScatterAndGather",
         "args": {"min_clients": 2, "num_rounds": 3}}]}),
    "old-components": ("components of an earlier mmar-fl", {"components": [
        {"id": "persistor", "path": "fl_server.flare.persistor.MmarModelPersistor"},
        {"id": "aggregator", "path": "fl_server.flare.aggregator.MmarAggregator",
         "args": {"min_sites": 2}}]}),
    "workflows-none": ("no workflow", {"workflows": []}),
    "workflows-object": ("an object of workflows", {"workflows": {"path": FEDERATION}}),
    "workflow-disabled": ("a workflow that is switched off", {"workflows/0/disabled": True}),
    "start-round": ("a round far ahead", {f"{A}start_round": 999}),
    "task-name": ("another task", {f"{A}train_task_name": "validate"}),
    "epochs": ("a site's argument at the server", {f"{A}local_epochs": 1}),
    "rounds-flag": ("a flag as rounds", {f"{A}num_rounds": True}),
    "rounds-many": ("rounds without end", {f"{A}num_rounds": 10**9}),
    "rounds-other-name": ("rounds by another name", {f"{A}rounds": 10**9}),
    "cross-val-dir": ("a folder elsewhere", {f"{A}cross_val_dir": "../../../x"}),
    "formatter": ("a formatter", {f"{A}formatter_id": "recorder"}),
    "timeout-long": ("a time-out without end", {f"{A}train_timeout": 10**15}),
    "timeout-negative": ("a time-out below none", {f"{A}score_timeout": -5}),
    "timeout-float": ("a time-out that is not whole", {f"{A}validation_timeout": 1.5}),
    "timeout-text": ("a text as a time-out", {f"{A}submit_timeout": "600"}),
    "offload": ("a text as a flag", {f"{A}enable_tensor_disk_offload": "/tmp/x"}),
    "wait-long": ("a wait without end", {f"{A}wait_for_others": 10**15}),
    "sites-huge": ("more sites than there are", {"min_clients": 10**9}),
    "sites-zero": ("a round of nobody", {f"{A}min_sites": 0}),
    "participants": ("a participant that is a path", {f"{A}participating_clients": ["../x"]}),
    "component-id": ("a component in place of the mean", {f"{A}aggregator_id": "persistor"}),
    "min-sites-missing": ("no least number of sites", {"workflows/0/args": {"num_rounds": 3}}),
    "args-list": ("arguments as an array", {"workflows/0/args": [2, 3]}),
    "shared-object": ("an object as names of tensors", {f"{A}shared_names": {"a": 1}}),
    "encrypted-wild": ("a name of stars", {f"{A}encrypt_layers": ["*a*a*a*a*a*a"]}),
    "optional-text": ("a text as names of tensors", {f"{A}optional_names": "*"}),
    "weights-negative": ("a factor below 0", {f"{A}aggregation_weights": {"site-1": -1}}),
    "weights-huge": ("a factor that outweighs all",
                     {f"{A}aggregation_weights": {"site-1": 1e300}}),
    "weights-markup": ("markup as a site", {f"{A}aggregation_weights": {"[red]": 1}}),
    "weights-true": ("true as a factor", {f"{A}aggregation_weights": {"site-1": True}}),
    "weights-rule": ("a rule of weights that is none", {f"{A}weigh_by": "metrics"}),
    "weights-rule-list": ("an array as a rule of weights", {f"{A}weigh_by": ["steps"]}),
    "limits-ratio": ("a bound that every claim passes", {f"{A}limits": {"weight_ratio": 1e300}}),
    "limits-unknown": ("a limit that is none", {f"{A}limits": {"max_sites": 1}}),
    "limits-steps": ("steps without a bound", {f"{A}limits": {"max_steps": 10**18}}),
    "limits-range": ("a metric of any size",
                     {f"{A}limits": {"metric_ranges": {"dice": [0, 1e300]}}}),
    "limits-name": ("a formula as a metric", {f"{A}limits": {"metric_ranges": {"=1+1": [0, 1]}}}),
    "transfer": ("a form that is none", {f"{A}transfer": "pickle"}),
    "own-is-ours": ("a class of ours as the job's own aggregator", {
        f"{A}aggregator": {"path": FEDERATION}}),
    "own-text": ("a text as the job's own aggregator", {f"{A}aggregator": "x"}),
    "models-path": ("models that are paths", {f"{A}models": ["../../startup/server"]}),
    "models-many": ("a thousand models", {f"{A}models": [f"m{n}" for n in range(1000)]}),
    "models-twice": ("a model twice", {f"{A}models": ["a", "a"]}),
}  # fmt: skip


def _cases(prefix: str, file: str, table: Mapping[str, tuple[str, Any]]) -> tuple[Case, ...]:
    return tuple(
        Case(
            id=f"{prefix}-{id_}", family="document", tries=tries, rules=RULES, base="job",
            edits={file: changes},
        )
        for id_, (tries, changes) in table.items()
    )  # fmt: skip


HOSTILE: tuple[Case, ...] = (
    *_cases(
        "resources",
        META,
        {id_: (tries, {"resource_spec": found}) for id_, (tries, found) in RESOURCES.items()},
    ),
    *_cases("meta", META, METAS),
    *_cases("client", CLIENT, CLIENTS),
    *_cases("server", SERVER, SERVERS),
)

# --- What has to go on working -------------------------------------------------------------------

CHAIN = {"tasks": ["train"], "filters": [
    {"path": f"{PRIVACY}ExcludeVars", "args": {"exclude_vars": ["*.running_*"]}},
    {"path": f"{PRIVACY}PercentilePrivacy", "args": {"percentile": 10, "gamma": 0.01}},
    {"path": f"{PRIVACY}SVTPrivacy", "args": {"noise_var": 0.1, "buffers": "send"}},
]}  # fmt: skip
COMPACT = {"path": "fl_client.flare.compact.CompactUpdate", "args": {"transfer": "int8"}}
ENCRYPT = {"path": "fl_client.flare.encryption.EncryptReply", "args": {"encrypt_layers": ["*"]}}
DECRYPT = {"path": "fl_client.flare.encryption.DecryptModel", "args": {}}
SHARED = ["!*.running_mean", "!*.running_var"]
VALIDATE_ONLY = {
    "workflows/0/args": {"min_sites": "{min_clients}", "validation_timeout": 86400,
                         "models": ["FL_global_model", "ours", "site-1"]},
}  # fmt: skip

JOBS: dict[str, tuple[str, Mapping[str, Mapping[str, Any]]]] = {
    "epochs": ("mmar job create --rounds --local-epochs --min-sites", {
        META: {"name": "a trial", "min_clients": 3},
        SERVER: {"num_rounds": 1000, "min_clients": 3}, CLIENT: {"local_epochs": 100}}),
    "steps": ("mmar job create --set steps", {CLIENT: {"steps_aggregation": 250}}),
    "weights": ("mmar job create --aggregation-weights", {
        SERVER: {f"{A}aggregation_weights": {"hospital-a": 2.5, "hospital-b": 1}}}),
    "exclude": ("mmar job create --exclude-vars", {
        SERVER: {f"{A}shared_names": SHARED},
        CLIENT: {"executors/0/executor/args/shared_names": SHARED}}),
    "optional": ("mmar job create --optional-names", {
        SERVER: {f"{A}optional_names": ["*.running_*", "head.bias"]}}),
    "filters": ("mmar job create --result-filter", {
        CLIENT: {"task_result_filters": [CHAIN,
                                         {"tasks": ["submit_model"],
                                          "filters": CHAIN["filters"][:1]}]},
        SERVER: {f"{A}optional_names": ["*.running_*"]}}),
    "transfer": ("mmar job create --transfer int8", {
        CLIENT: {"task_result_filters": [{"tasks": ["train"], "filters": [COMPACT]}]},
        SERVER: {f"{A}transfer": "int8"}}),
    "encrypted": ("mmar job create --he", {
        CLIENT: {"task_result_filters": [{"tasks": ["train", "submit_model"],
                                          "filters": [ENCRYPT]}],
                 "task_data_filters": [{"tasks": ["train", "score_model", "validate"],
                                        "filters": [DECRYPT]}]},
        SERVER: {f"{A}encrypt_layers": ["*"]}}),
    "validate-only": ("mmar job validate", {
        SERVER: VALIDATE_ONLY,
        CLIENT: {"executors/0/tasks": ["validate"], "executors/0/executor/args": {}}}),
    "imported": ("mmar job import, with time-outs of the old job", {
        SERVER: {f"{A}wait_for_others": 45, f"{A}train_timeout": 1_000_000,
                 f"{A}submit_timeout": 100, f"{A}validation_timeout": 900}}),
    "limits": ("bounds of the update guard", {
        SERVER: {f"{A}limits": {
            "max_norm": 50.5, "norm_ratio": 3, "weight_ratio": 10, "max_steps": 5000,
            "max_bytes": 10**9, "metric_ranges": {"val_mean_dice": [0, 1]}}}}),
    "resources": ("amounts of GPUs and memory", {META: {
        "resource_spec": {"site-1": {"num_of_gpus": 2, "mem_per_gpu_in_GiB": 15.5},
                          "@default": {"num_of_cpus": 4, "memory": "64Gi"}}}}),
    "mandatory": ("mandatory sites", {META: {
        "mandatory_clients": ["site-1"], "deploy_map": {"app": ["server", "site-1", "site-2"]}}}),
    "no-listener": ("a job whose sites ask by themselves", {CLIENT: {"components": []}}),
    "listener": ("a listener with its seconds", {
        CLIENT: {"components/0/args": {"max_wait": 5, "idle_wait": 0.1}}}),
    "every-task": ("an executor for every task", {CLIENT: {"executors/0/tasks": ["*"]}}),
    "variable": ("a number at the top that a workflow uses", {SERVER: {
        "train_timeout": 7200, f"{A}train_timeout": "{train_timeout}"}}),
    "large": ("contributions in files, for a large model", {
        SERVER: {f"{A}enable_tensor_disk_offload": True}}),
    "settings": ("NVFlare's own settings", {SERVER: {
        "server": {"heart_beat_timeout": 600, "task_request_interval": 0.5}}}),
}  # fmt: skip

OWN_CODE = "class Half: ...\n\n\nclass Median: ...\n"
BENIGN: tuple[Case, ...] = (
    *(
        Case(id=f"document-{id_}", family="benign", tries=tries, rules=(), base="job", edits=edits)
        for id_, (tries, edits) in JOBS.items()
    ),
    Case(
        id="document-own-code",
        family="benign",
        tries="an aggregator, a filter and a component of the job's own, where the site allows it",
        rules=(),
        base="job",
        edits={
            SERVER: {
                f"{A}aggregator": {"path": "own.Median", "args": {"keep": [1, 2]}},
                "components/-": {"id": "own", "path": "own.Half", "args": {"rate": 0.5}},
            },
            CLIENT: {
                "task_result_filters": [
                    {"tasks": ["train"], "filters": [{"path": "own.Half", "args": {}}]}
                ]
            },
        },
        files={"app/custom/own.py": OWN_CODE},
        policy={"policy_version": 1, "byoc": {"mode": "on"}},
    ),
)
