"""Paths: every spelling of a file outside of what a job may read and write."""

from __future__ import annotations

from typing import Any

from tests.security.case import ENVIRONMENT, INFERENCE, TRAIN, Case, Fifo, Link

RULES = ("path", "json", "limit", "data-list", "missing-file", "variable", "unknown-variable",
         "type", "mmar", "denied-argument", "reference", "expression", "engine-key",
         "code")  # fmt: skip

READ = "train/handlers/0/args/load_path"
WRITE = "train/handlers/3/args/save_dir"

PLACES: dict[str, tuple[str, str]] = {
    "absolute": ("an absolute path", "/etc/passwd"),
    "secret": ("a file of the site", "SECRET"),
    "proc": ("the process's environment", "/proc/self/environ"),
    "proc-root": ("the root by another name", "/proc/self/root/etc/passwd"),
    "dev": ("a device", "/dev/zero"),
    "up": ("a folder above", "../../local/authorization.json"),
    "up-inside": ("up from inside", "models/../../startup"),
    "up-variable": ("up from a variable", "{MMAR_CKPT_DIR}/../../x"),
    "up-root": ("up from the root", "{MMAR_ROOT}/../x"),
    "dots-only": ("the folder above", ".."),
    "home": ("a home", "~/x"),
    "home-other": ("another's home", "~root/x"),
    "dollar": ("a variable of a shell", "$HOME/x"),
    "backslash": ("a path of Windows", "models\\..\\..\\x"),
    "drive": ("a drive of Windows", "C:\\Windows\\x"),
    "unc": ("another machine", "\\\\127.0.0.1\\x"),
    "file-scheme": ("a URL of a file", "file:///etc/passwd"),
    "http-scheme": ("a URL", "http://127.0.0.1:9/x"),
    "s3-scheme": ("a bucket", "s3://bucket/x"),
    "scheme-case": ("a URL in capitals", "FILE:///etc/passwd"),
    "double-slash": ("two slashes", "//etc/passwd"),
    "nul": ("a NUL", "models/x\0/etc"),
    "newline": ("a line break", "models/x\n../../y"),
    "control": ("a sign that moves the cursor", "models/\x1b[2Jx"),
    "data": ("the patients' folder", "{DATA_ROOT}/x"),
    "number": ("the descriptor of an open file", "/dev/fd/0"),
    "link": ("a link in the MMAR", "models/link/x"),
    "long": ("a path that no system takes", "a/" * 1900),
}

READS = ("absolute", "secret", "proc", "dev", "up", "home", "file-scheme", "http-scheme", "nul",
         "link")  # fmt: skip


def _changes(slot: str, path: str) -> dict[str, dict[str, Any]]:
    own = {slot: path} if slot == WRITE else {slot: path, "dont_load_ckpt_model": False}
    return {TRAIN: own}


SLOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tensorboard": ("TensorBoard's folder", {"train/handlers/5/args/log_dir": "/var/log"}),
    "tensorboard-up": ("TensorBoard's folder", {"train/handlers/5/args/log_dir": "../x"}),
    "saver-prefix": ("the name of a checkpoint", {"train/handlers/3/args/file_prefix": "../../x"}),
    "saver-final": ("the name of the last checkpoint",
                    {"train/handlers/3/args/final_filename": "../../../x.pt"}),
    "saver-key-metric": ("the name of the best checkpoint",
                         {"train/handlers/3/args/key_metric_filename": "/tmp/x.pt",
                          "train/handlers/3/args/save_key_metric": True}),
    "data-list": ("the list from a file of the site",
                  {"train/dataset/data_list_file_path": "SECRET"}),
    "data-list-proc": ("the list from the process's environment",
                       {"train/dataset/data_list_file_path": "/proc/self/environ"}),
    "data-list-zero": ("a list that never ends",
                       {"train/dataset/data_list_file_path": "/dev/zero"}),
    "data-list-stdin": ("a list that waits", {"train/dataset/data_list_file_path": "/dev/stdin"}),
    "data-list-tty": ("a list that waits", {"train/dataset/data_list_file_path": "/dev/tty"}),
    "data-base": ("another study's images", {"train/dataset/data_file_base_dir": "/data/other"}),
    "data-base-root": ("all images", {"train/dataset/data_file_base_dir": "/"}),
    "data-base-up": ("all images", {"train/dataset/data_file_base_dir": "{DATA_ROOT}/.."}),
    "cache-dir": ("a cache in a folder of the site",
                  {"train/dataset/name": "PersistentDataset",
                   "train/dataset/args": {"transform": "@pre_transforms", "cache_dir": "/tmp/x"}}),
    "metrics-saver": ("a report into a folder of the site",
                      {"train/handlers/-": {"name": "MetricsSaver", "args": {"save_dir": "/tmp"}}}),
    "logfile": ("a log into a folder of the site",
                {"train/handlers/-": {"name": "LogfileHandler", "args": {"output_dir": "/tmp"}}}),
    "data-list-engine-keys": (
        "keys of a file of the site as advice for a wrong name",
        {"train/dataset/data_list_file_path": "SECRET",
         "train/dataset/data_list_key": "training",
         "train/handlers/4/args/output_transform": "#from_engine(['canary_5f1c0b7e9'])"}),
}  # fmt: skip

SAVE_IMAGE: dict[str, tuple[str, dict[str, Any]]] = {
    "save-image-dir": ("images into a folder of the site", {"output_dir": "/var/www"}),
    "save-image-postfix": ("out through the name", {"output_postfix": "/../../../x"}),
    "save-image-ext": ("out through the extension", {"output_ext": ".nii/../../x"}),
    "save-image-root": ("out through the root of names", {"data_root_dir": "/"}),
}

HOSTILE: tuple[Case, ...] = (
    *(
        Case(id=f"write-{id_}", family="path", tries=tries, rules=RULES,
             edits=_changes(WRITE, path),
             files={"models/link": Link("/tmp")} if id_ == "link" else {})
        for id_, (tries, path) in PLACES.items()
    ),
    *(
        Case(id=f"read-{id_}", family="path", tries=PLACES[id_][0], rules=RULES,
             edits=_changes(READ, PLACES[id_][1]),
             files={"models/link": Link("/etc")} if id_ == "link" else {})
        for id_ in READS
    ),
    *(
        Case(id=id_, family="path", tries=tries, rules=RULES, edits={TRAIN: changes})
        for id_, (tries, changes) in SLOTS.items()
    ),
    *(
        Case(id=id_, family="path", tries=tries, rules=RULES,
             edits={INFERENCE: {"post_transforms/-": {
                 "name": "SaveImaged",
                 "args": {"keys": "pred", "output_dir": "{MMAR_EVAL_OUTPUT_PATH}", **arguments}}}})
        for id_, (tries, arguments) in SAVE_IMAGE.items()
    ),
    Case(id="config-link", family="path", tries="a config that is a link", rules=RULES,
         files={TRAIN: Link("SECRET")}),
    Case(id="environment-link", family="path", tries="an environment that is a link", rules=RULES,
         files={ENVIRONMENT: Link("SECRET")}),
    Case(id="config-fifo", family="path", tries="a config that a reader waits at", rules=RULES,
         files={"config/config_x.json": Fifo()}),
    Case(id="config-device", family="path", tries="a config that never ends", rules=RULES,
         files={"config/config_x.json": Link("/dev/zero")}),
    Case(id="config-proc", family="path", tries="the process's environment as a config",
         rules=RULES, files={"config/config_x.json": Link("/proc/self/environ")}),
    Case(id="config-folder-link", family="path", tries="a folder of configs that is a link",
         rules=RULES, base="nothing", files={"config": Link("/etc")}),
    Case(id="config-is-folder", family="path", tries="a folder in place of a config", rules=RULES,
         files={"config/config_y.json/x": "{}"}),
    Case(id="log-link", family="path", tries="a log.config that is a link", rules=RULES,
         files={"resources/log.config": Link("SECRET")}),
    Case(id="workflow-link", family="path", tries="one workflow that is a link", rules=RULES,
         files={"config/config_train.json": Link("SECRET")}, target=TRAIN),
)  # fmt: skip
