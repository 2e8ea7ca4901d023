"""Weights: pickles and TorchScript that come with a job, and classes that would open them."""

from __future__ import annotations

from typing import Any

from tests.security.case import INFERENCE, TRAIN, VALIDATION, Case, Link

RULES = ("path", "job-file", "archive", "torchscript", "weights", "code", "denied-argument",
         "unknown-argument", "model", "type", "unknown-key", "missing-argument", "limit",
         "unknown-component", "checkpoint", "expression", "hidden-component",
         "component")  # fmt: skip

LOADER = {"dont_load_ckpt_model": False}

CHANGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pickle-name": ("a pickle as weights", TRAIN,
                    {**LOADER, "train/handlers/0/args/load_path": "models/evil.pkl"}),
    "numpy-name": ("an array of objects as weights", TRAIN,
                   {**LOADER, "train/handlers/0/args/load_path": "models/evil.npy"}),
    "package-name": ("a package of code as weights", TRAIN,
                     {**LOADER, "train/handlers/0/args/load_path": "custom/evil.pt"}),
    "url": ("weights from elsewhere", TRAIN,
            {**LOADER, "train/handlers/0/args/load_path": "https://127.0.0.1/x.pt"}),
    "hub": ("weights of a hub", TRAIN,
            {**LOADER, "train/handlers/0/args/load_path": "hf://evil/x.pt"}),
    "other-run": ("weights of another run", TRAIN,
                  {**LOADER, "train/handlers/0/args/load_path": "../../other/app/models/model.pt"}),
    "weights-only": ("a pickle by an argument", TRAIN,
                     {**LOADER, "train/handlers/0/args/weights_only": False}),
    "map-location": ("a function for the devices", TRAIN,
                     {**LOADER, "train/handlers/0/args/map_location": "lambda s: open('MARKER')"}),
    "load-function": ("a function that loads", TRAIN,
                      {**LOADER, "train/handlers/0/args/load_func": "torch.load"}),
    "map-location-path": ("the same by a name", TRAIN,
                          {**LOADER, "train/handlers/0/args/pickle_module": "dill"}),
    "load-path-list": ("an array of paths", TRAIN,
                       {**LOADER, "train/handlers/0/args/load_path": ["/etc/passwd"]}),
    "load-path-null": ("no path", TRAIN, {**LOADER, "train/handlers/0/args/load_path": None}),
    "ts-absolute": ("TorchScript of the machine", VALIDATION,
                    {"model": {"ts_path": "/tmp/evil.ts"}}),
    "ts-up": ("TorchScript of another run", VALIDATION, {"model": {"ts_path": "../../evil.ts"}}),
    "ts-url": ("TorchScript from elsewhere", VALIDATION,
               {"model": {"ts_path": "http://127.0.0.1/evil.ts"}}),
    "ckpt-absolute": ("a checkpoint of the machine", VALIDATION,
                      {"model": {"ckpt_path": "SECRET"}}),
    "ckpt-proc": ("the process's memory as a checkpoint", VALIDATION,
                  {"model": {"ckpt_path": "/proc/self/mem"}}),
    "both": ("TorchScript beside a checkpoint in one entry", INFERENCE,
             {"model": {"ckpt_path": "{MMAR_CKPT}", "ts_path": "{MMAR_TORCHSCRIPT}"}}),
    "both-enabled": ("both models at once", VALIDATION,
                     {"dont_load_ts_model": False, "dont_load_ckpt_model": False}),
    "weights-in-component": ("a network with a file of its own", VALIDATION, {
        "model": {"name": "UNet", "ts_path": "{MMAR_TORCHSCRIPT}", "args": {}}}),
    "pretrained-file": ("a network that reads a file", TRAIN, {"train/model": {
        "path": "monai.networks.nets.resnet.ResNetFeatures",
        "args": {"model_name": "resnet10", "pretrained": True}}}),
    "load-dict-hidden": ("a class among what is loaded", TRAIN, {
        **LOADER, "train/handlers/0/args/load_dict": {"model": {"path": "os.system",
                                                                "args": {"command": "id"}}}}),
    "state-dict-url": ("a network with a URL", TRAIN, {
        "train/model/args/pretrained_url": "http://127.0.0.1/x"}),
}  # fmt: skip

FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "model-link": ("weights that are a link", {"app/models/model.pt": Link("SECRET")}),
    "model-pickle": ("a pickle by its name", {"app/models/model.pkl": b"cos\nsystem\n."}),
    "model-joblib": ("a pickle by another name", {"app/models/model.joblib": b"x"}),
    "model-h5": ("weights of another framework", {"app/models/model.h5": b"x"}),
    "model-code": ("code beside the weights", {"app/models/model.py": "open('MARKER', 'w')"}),
    "model-folder": ("weights in a folder of their own", {"app/models/a/b/model.pt": b"x"}),
    "model-capital": ("weights with another spelling", {"app/models/model.PT": b"x"}),
    "model-mar": ("an archive of code and weights", {"app/models/model.mar": b"PK"}),
    "model-elsewhere": ("weights outside of their folder", {"app/resources/model.pt": b"x"}),
}

HOSTILE: tuple[Case, ...] = (
    *(
        Case(id=id_, family="checkpoint", tries=tries, rules=RULES, edits={document: changes})
        for id_, (tries, document, changes) in CHANGES.items()
    ),
    *(
        Case(id=id_, family="checkpoint", tries=tries, rules=RULES, base="job", files=files)
        for id_, (tries, files) in FILES.items()
    ),
    Case(
        id="model-torchscript",
        family="checkpoint",
        tries="TorchScript that comes with the job and is evaluated",
        rules=RULES,
        base="job",
        files={"app/models/model.ts": b"PK\x03\x04"},
        edits={
            "app/config/config_validation.json": {
                "dont_load_ts_model": False,
                "dont_load_ckpt_model": True,
            }
        },
    ),
)
