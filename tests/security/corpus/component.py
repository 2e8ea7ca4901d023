"""Components: classes and functions that are more than they look, and places to hide them."""

from __future__ import annotations

from typing import Any

from tests.security.case import Case, train

RULES = (
    "code", "unknown-component", "component-kind", "component", "denied-argument", "path", "name",
    "unknown-argument", "unknown-key", "hidden-component", "arguments", "type", "ref", "model",
    "gone-component", "egress", "metric", "disabled", "missing-argument", "limit", "section",
    "expression",
    "reference", "json", "rank",
)  # fmt: skip

LOSS = "train/loss"
HANDLER = "train/handlers/-"
TRANSFORM = "train/pre_transforms/-"

PATHS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "popen": (LOSS, "subprocess.Popen", {"args": ["touch", "MARKER"]}),
    "os-system": (LOSS, "os.system", {"command": "touch MARKER"}),
    "posix-system": (LOSS, "posix.system", {"command": "touch MARKER"}),
    "logging-os": (LOSS, "logging.os.system", {"command": "touch MARKER"}),
    "run-cmd": (HANDLER, "monai.utils.misc.run_cmd", {"cmd_list": ["touch", "MARKER"]}),
    "collect-env": (HANDLER, "torch.utils.collect_env.run", {"command": "touch MARKER"}),
    "bundle-run": (HANDLER, "monai.bundle.run", {"config_file": "MARKER"}),
    "bundle-load": (LOSS, "monai.bundle.load", {"name": "x", "bundle_dir": "MARKER"}),
    "config-parser": (LOSS, "monai.bundle.ConfigParser", {"config": {"a": "$open('MARKER','w')"}}),
    "monai-instantiate": (LOSS, "monai.utils.module.instantiate", {"__path": "os.system"}),
    "optional-import": (LOSS, "monai.utils.optional_import", {"module": "antigravity"}),
    "hub-load": ("train/model", "torch.hub.load", {"repo_or_dir": "evil/x", "model": "y"}),
    "hub-download": (HANDLER, "torch.hub.download_url_to_file", {"url": "http://127.0.0.1"}),
    "jit-load": ("train/model", "torch.jit.load", {"f": "MARKER.ts"}),
    "torch-load": ("train/model", "torch.load", {"f": "SECRET", "weights_only": False}),
    "package-importer": ("train/model", "torch.package.PackageImporter", {"file_or_buffer": "x"}),
    "cpp-extension": (LOSS, "torch.utils.cpp_extension.load", {"name": "x", "sources": ["MARKER"]}),
    "shell-out": (LOSS, "torch.distributed.run.main", {"args": ["MARKER"]}),
    "checkpoint-class": (LOSS, "torch.nn.modules.module.Module", {}),
    "apps-download": (LOSS, "monai.apps.download_and_extract", {"url": "http://127.0.0.1"}),
    "decathlon": ("train/dataset", "monai.apps.DecathlonDataset", {"root_dir": "MARKER"}),
    "auto3dseg": (LOSS, "monai.auto3dseg.algo_from_pickle", {"pkl_filename": "MARKER"}),
    "monai-fl": (HANDLER, "monai.fl.client.MonaiAlgo", {"bundle_root": "MARKER"}),
    "nvflare-class": (HANDLER, "nvflare.app_opt.pt.file_model_persistor.PTFileModelPersistor", {}),
    "own-class": (HANDLER, "fl_client.flare.executor.MmarExecutor", {}),
    "own-runtime": (HANDLER, "mmar_runtime.files.write_atomically", {"path": "MARKER"}),
    "pickle-load": (LOSS, "pickle.Unpickler", {"file": "MARKER"}),
    "shutil": (LOSS, "shutil.rmtree", {"path": "MARKER"}),
    "pathlib": (LOSS, "pathlib.Path", {}),
    "http": (HANDLER, "urllib.request.urlopen", {"url": "http://127.0.0.1"}),
    "ctypes": (LOSS, "ctypes.CDLL", {"name": "MARKER.so"}),
    "code-interact": (LOSS, "code.interact", {}),
    "antigravity": (LOSS, "antigravity.geohash", {}),
    "numpy-testing": (LOSS, "numpy.testing.rundocs", {"filename": "MARKER"}),
    "builtins-eval": (LOSS, "builtins.eval", {"source": "open('MARKER','w')"}),
    "builtins-open": (LOSS, "builtins.open", {"file": "MARKER", "mode": "w"}),
    "runpy": (LOSS, "runpy.run_path", {"path_name": "MARKER"}),
    "private-class": (LOSS, "monai.losses.dice._DiceLoss", {}),
    "private-module": (LOSS, "torch._C._jit_set_profiling_mode", {}),
    "function": (LOSS, "torch.nn.functional.cross_entropy", {}),
    "monai-function": (TRANSFORM, "monai.transforms.utils.allow_missing_keys_mode", {}),
    "class-attribute": (LOSS, "monai.losses.DiceLoss.forward", {}),
    "class-dunder": (LOSS, "monai.losses.DiceLoss.__init__", {}),
    "module-alias": (LOSS, "monai.losses.dice.torch.hub.load", {}),
    "defining-alias": (LOSS, "monai.losses.dice.warnings.warn", {"message": "x"}),
    "trailing-newline": (LOSS, "monai.losses.DiceLoss\n", {}),
    "leading-blank": (LOSS, " os.system", {}),
    "double-dot": (LOSS, "os..system", {}),
    "relative": (LOSS, ".os.system", {}),
    "trailing-dot": (LOSS, "os.system.", {}),
    "homoglyph": (LOSS, "m\u043enai.losses.DiceLoss", {}),
    "nfkc": (LOSS, "\uff4fs.system", {}),
    "upper-case": (LOSS, "MONAI.losses.DiceLoss", {}),
    "colon": (LOSS, "os:system", {}),
    "file": (LOSS, "SECRET", {}),
    "wrong-slot": (LOSS, "monai.networks.nets.UNet", {}),
    "persistent-path": ("train/dataset", "monai.data.LMDBDataset", {"cache_dir": "MARKER"}),
    "gds": ("train/dataset", "monai.data.GDSDataset", {"cache_dir": "MARKER", "device": 0}),
    "lambda-class": (TRANSFORM, "monai.transforms.Lambda", {"func": "os.system"}),
    "torchvision-path": (TRANSFORM, "monai.transforms.TorchVisiond", {"keys": "image"}),
    "ignite-egress": (HANDLER, "ignite.handlers.WandBLogger", {}),
    "disk-saver": (HANDLER, "ignite.handlers.DiskSaver", {"dirname": "MARKER"}),
    "metrics-lambda": ("train/key_metric", "ignite.metrics.MetricsLambda", {"f": "os.system"}),
}

CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "name-is-path": ("a path given as a name", {LOSS: {"name": "subprocess.Popen"}}),
    "name-os": ("a module given as a name", {LOSS: {"name": "os.system", "args": {}}}),
    "name-and-path": (
        "a harmless name before a hostile path",
        {LOSS: {"name": "DiceLoss", "path": "subprocess.Popen", "args": {"args": ["id"]}}},
    ),
    "name-empty-path": ("an empty path", {LOSS: {"name": "DiceLoss", "path": ""}}),
    "path-null": ("null as a path", {LOSS: {"name": "DiceLoss", "path": None}}),
    "path-list": ("an array as a path", {LOSS: {"path": ["os.system"]}}),
    "path-object": ("an object as a path", {LOSS: {"path": {"name": "os.system"}}}),
    "name-number": ("a number as a name", {LOSS: {"name": 1}}),
    "name-long": ("a name of 4000 letters", {LOSS: {"name": "A" * 4000}}),
    "name-dunder": ("a dunder as a name", {LOSS: {"name": "__class__"}}),
    "name-case": ("another case", {LOSS: {"name": "diceLOSS"}}),
    "name-newline": ("a line break behind the name", {LOSS: {"name": "DiceLoss\n"}}),
    "name-nul": ("a NUL behind the name", {LOSS: {"name": "DiceLoss\0"}}),
    "class-path-key": ("the key of another library", {LOSS: {"class_path": "os.system"}}),
    "target-key": ("the key of another library", {LOSS: {"_target_": "os.system"}}),
    "target-beside": (
        "the key of another library beside a name",
        {LOSS + "/_target_": "monai.bundle.run"},
    ),
    "requires-key": ("MONAI's imports of a component", {LOSS + "/_requires_": "import os"}),
    "mode-key": ("MONAI's debugging mode", {LOSS + "/_mode_": "debug"}),
    "args-list": ("arguments in an array", {LOSS + "/args": ["a", "b"]}),
    "args-null": ("no arguments by null", {LOSS + "/args": None}),
    "args-dunder": ("a dunder as an argument", {LOSS + "/args/__class__": "x"}),
    "args-self": ("self as an argument", {LOSS + "/args/self": "x"}),
    "args-empty": ("an empty argument name", {LOSS + "/args/": "x"}),
    "hidden-component": (
        "a component inside an argument",
        {LOSS + "/args/weight": {"path": "subprocess.Popen", "args": {"args": ["id"]}}},
    ),
    "hidden-named": (
        "the same by name",
        {"train/trainer/args/inferer": {"name": "SimpleInferer", "args": {}}},
    ),
    "hidden-target": (
        "MONAI's key inside an argument",
        {"train/model/args/act": ["relu", {"_target_": "os.system", "args": ["id"]}]},
    ),
    "hidden-path-alone": (
        "a path alone inside an argument",
        {"train/model/args/norm": ["batch", {"path": "os.system"}]},
    ),
    "hidden-in-save-dict": (
        "inside a CheckpointSaver",
        {"train/handlers/3/args/save_dict/x": {"path": "os.system", "args": {}}},
    ),
    "hidden-in-compose": (
        "inside the one argument that takes components",
        {
            TRANSFORM: {
                "name": "Compose",
                "args": {"transforms": [{"path": "subprocess.Popen", "args": {"args": ["id"]}}]},
            }
        },
    ),
    "hidden-in-compose-kind": (
        "a class of another kind inside a Compose",
        {TRANSFORM: {"name": "Compose", "args": {"transforms": [{"name": "UNet", "args": {}}]}}},
    ),
    "compose-in-compose": (
        "a hostile class three Composes deep",
        {
            TRANSFORM: {
                "name": "Compose",
                "args": {
                    "transforms": [
                        {
                            "name": "Compose",
                            "args": {"transforms": [{"path": "os.system", "args": {}}]},
                        }
                    ]
                },
            }
        },
    ),
    "lambda-name": ("a transform that takes a function", {TRANSFORM: {"name": "Lambda"}}),
    "lambdad": (
        "a part of an image by a lambda for a transform",
        {TRANSFORM: {"name": "Lambdad", "args": {"keys": "image", "func": "lambda x: x[0]"}}},
    ),
    "rand-lambdad": ("the same at random", {TRANSFORM: {"name": "RandLambdad", "args": {}}}),
    "torchvisiond": (
        "a class of another package by name",
        {TRANSFORM: {"name": "TorchVisiond", "args": {"keys": "image", "name": "ColorJitter"}}},
    ),
    "torchiod": ("the same", {TRANSFORM: {"name": "TorchIOd", "args": {"keys": "image"}}}),
    "class-to-dist": (
        "a reader by a dotted path",
        {"train/pre_transforms/0/args/reader": "subprocess.Popen"},
    ),
    "reader-list": ("the same in an array", {"train/pre_transforms/0/args/reader": ["os.system"]}),
    "reader-object": (
        "the same as an object",
        {"train/pre_transforms/0/args/reader": {"name": "os.system"}},
    ),
    "reader-lambda": (
        "a lambda as a reader",
        {"train/pre_transforms/0/args/reader": "lambda x: x"},
    ),
    "allow-pickle": (
        "pickles in arrays",
        {"train/pre_transforms/0/args": {"keys": ["image"], "allow_pickle": True}},
    ),
    "writer": (
        "a writer by a dotted path",
        {
            "train/post_transforms/-": {
                "name": "SaveImaged",
                "args": {"keys": "pred", "writer": "subprocess.Popen"},
            }
        },
    ),
    "output-name-formatter": (
        "a function that names files",
        {
            "train/post_transforms/-": {
                "name": "SaveImaged",
                "args": {"keys": "pred", "output_name_formatter": "lambda x: x"},
            }
        },
    ),
    "collate-fn": ("a function", {"train/dataloader/args/collate_fn": "lambda x: x"}),
    "worker-init": ("a function", {"train/dataloader/args/worker_init_fn": "lambda x: x"}),
    "sampler": ("an object", {"train/dataloader/args/sampler": "@dataset"}),
    "multiprocessing": (
        "another way to start processes",
        {"train/dataloader/args/multiprocessing_context": "spawn"},
    ),
    "pretrained": (
        "weights from the internet",
        {
            "train/model": {
                "name": "DenseNet121",
                "args": {
                    "spatial_dims": 2,
                    "in_channels": 1,
                    "out_channels": 2,
                    "pretrained": True,
                },
            }
        },
    ),
    "pretrained-number": (
        "the same by a number",
        {
            "train/model": {
                "name": "DenseNet121",
                "args": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "pretrained": 1},
            }
        },
    ),
    "pretrained-variable": (
        "the same by a variable",
        {
            "yes": True,
            "train/model": {
                "name": "DenseNet121",
                "args": {
                    "spatial_dims": 2,
                    "in_channels": 1,
                    "out_channels": 2,
                    "pretrained": "{yes}",
                },
            },
        },
    ),
    "perceptual": ("a loss that downloads", {LOSS: {"name": "PerceptualLoss", "args": {}}}),
    "lambda-lr": (
        "a schedule that takes a function",
        {"train/lr_scheduler": {"name": "LambdaLR", "args": {"lr_lambda": "lambda x: x"}}},
    ),
    "fid": ("a metric that downloads", {"train/key_metric": {"name": "FIDMetric", "args": {}}}),
    "persistent-hash": (
        "a function for a cache",
        {
            "train/dataset/name": "PersistentDataset",
            "train/dataset/args": {
                "transform": "@pre_transforms",
                "cache_dir": "{MMAR_ROOT}/cache",
                "hash_func": "lambda x: x",
            },
        },
    ),
    "persistent-pickle": (
        "another pickle for a cache",
        {
            "train/dataset/name": "PersistentDataset",
            "train/dataset/args": {
                "transform": "@pre_transforms",
                "cache_dir": "{MMAR_ROOT}/cache",
                "pickle_module": "dill",
            },
        },
    ),
    "persistent-weights-only": (
        "a cache that is unpickled",
        {
            "train/dataset/name": "PersistentDataset",
            "train/dataset/args": {
                "transform": "@pre_transforms",
                "cache_dir": "{MMAR_ROOT}/cache",
                "weights_only": False,
            },
        },
    ),
    "lmdb": ("a data set of pickles", {"train/dataset/name": "LMDBDataset"}),
    "csv-dataset": ("a data set of any table", {"train/dataset/name": "CSVDataset"}),
    "mlflow": (
        "metrics and models to another machine",
        {HANDLER: {"name": "MLFlowHandler", "args": {"tracking_uri": "http://127.0.0.1:1"}}},
    ),
    "clearml": (
        "images to another machine",
        {HANDLER: {"name": "ClearMLImageHandler", "args": {"project_name": "x"}}},
    ),
    "nvtx": ("a profiler", {HANDLER: {"name": "RangePushHandler", "args": {}}}),
    "delete-key-regex": (
        "a regular expression that never ends",
        {
            TRANSFORM: {
                "name": "DeleteItemsd",
                "args": {"keys": "(a+)+$", "use_re": True},
            }
        },
    ),
    "copy-key-format": (
        "a walk inside format",
        {
            TRANSFORM: {
                "name": "LoadImaged",
                "args": {
                    "keys": "image",
                    "meta_key_postfix": "x",
                    "key_var_format": "{0.__class__}",
                },
            }
        },
    ),
    "disabled-number": (
        "a number that somebody may take for true",
        {LOSS + "/disabled": 0},
    ),
    "disabled-text": ("a word that somebody may take for true", {LOSS + "/disabled": "false"}),
    "rank-negative": ("a process that is none", {"train/handlers/3/rank": -1}),
    "ref-outside": ("a ref where none may stand", {LOSS: {"ref": "LoadImaged"}}),
    "ref-and-name": (
        "a ref and a name",
        {TRANSFORM: {"ref": "load", "name": "Lambdad"}},
    ),
    "weights-as-model": (
        "TorchScript as a network",
        {"train/model": {"ts_path": "{MMAR_TORCHSCRIPT}"}},
    ),
    "unknown-section": ("a section of its own", {"initialize": [{"path": "os.system"}]}),
    "monai-imports": ("MONAI's imports", {"imports": ["$import os"]}),
    "monai-run": ("MONAI's own program", {"run": ["$open('MARKER', 'w')"]}),
    "extra-entry": ("an entry of its own", {"train/evil": {"path": "os.system", "args": {}}}),
    "search": ("AutoML, which ran programs", {"search": [{"path": "os.system"}]}),
    "iteration": ("an iteration of one's own", {"train/iteration": {"path": "os.system"}}),
    "prepare-batch": ("the same", {"train/prepare_batch": {"path": "os.system", "args": {}}}),
    "trainer-path": ("an engine of one's own", {"train/trainer": {"path": "subprocess.Popen"}}),
    "trainer-kind": ("an engine of the wrong kind", {"train/trainer/name": "SupervisedEvaluator"}),
    "loader-extra": ("an argument of DataLoader", {"train/dataloader/args/batch_sampler": "@loss"}),
    "metric-saver": (
        "a name that is a function",
        {HANDLER: {"name": "MetricsSaver", "args": {"save_dir": "{MMAR_CKPT_DIR}", "x": "y"}}},
    ),
}

HUGE = 10**9

LIMITS: dict[str, tuple[str, dict[str, Any]]] = {
    "workers": ("a hundred thousand processes", {"train/dataloader/args/num_workers": 100_000}),
    "workers-expression": ("the same by an expression",
                           {"train/dataloader/args/num_workers": "#1000 * 1000"}),
    "workers-cache": ("as many threads for a cache", {"train/dataset/args/num_workers": 100_000}),
    "workers-default": ("as many by no number", {"validate/dataloader/args/num_workers": 10**6}),
    "prefetch": ("a billion batches ahead", {
        "train/dataloader/args/num_workers": 2, "train/dataloader/args/prefetch_factor": HUGE}),
    "channels": ("a network of a billion channels", {"train/model/args/channels": [4, HUGE, 16]}),
    "channels-out": ("a network of a billion classes", {"train/model/args/out_channels": HUGE}),
    "channels-variable": ("the same by a variable", {
        "wide": HUGE, "train/model/args/in_channels": "{wide}"}),
    "levels": ("a network of a thousand levels", {
        "train/model/args/channels": [4] * 700, "train/model/args/strides": [2] * 699}),
    "units": ("a million units in each level", {"train/model/args/num_res_units": 10**6}),
    "kernel": ("a kernel of a million voxels", {"train/model/args/kernel_size": 10**6 + 1}),
    "batch": ("a batch of a billion", {"train/dataloader/args/batch_size": HUGE}),
    "windows": ("a billion windows at once", {"validate/inferer/args/sw_batch_size": HUGE}),
    "window": ("a window of a billion voxels a side", {
        "validate/inferer/args/roi_size": [HUGE, HUGE, HUGE]}),
    "crop": ("a billion crops of one image", {"train/pre_transforms/6/args/num_samples": HUGE}),
    "crop-size": ("a crop of a billion voxels a side", {
        "train/pre_transforms/6/args/spatial_size": [HUGE, HUGE, HUGE]}),
    "resize": ("an image of a billion voxels a side", {TRANSFORM: {
        "name": "Resized", "args": {"keys": "image", "spatial_size": [HUGE, HUGE, HUGE]}}}),
    "pad": ("the same by its border", {TRANSFORM: {
        "name": "BorderPadd", "args": {"keys": "image", "spatial_border": HUGE}}}),
    "spacing": ("an image of a nanometre a voxel", {
        "train/pre_transforms/3/args/pixdim": [1e-9, 1e-9, 1e-9]}),
    "zoom": ("an image a billion times larger", {TRANSFORM: {
        "name": "Zoomd", "args": {"keys": "image", "zoom": 1e9}}}),
    "repeat": ("an image a billion times", {TRANSFORM: {
        "name": "RepeatChanneld", "args": {"keys": "image", "repeats": HUGE}}}),
    "one-hot": ("a channel for each of a billion classes", {
        "train/post_transforms/1/args/to_onehot": HUGE}),
    "summary": ("an input of a billion voxels a side for the summary", {
        "network_summary/input_size": [1, 1, HUGE, HUGE, HUGE]}),
}  # fmt: skip

HOSTILE: tuple[Case, ...] = (
    *(
        train(f"path-{id_}", "component", path, RULES, {slot: {"path": path, "args": args}})
        for id_, (slot, path, args) in PATHS.items()
    ),
    *(train(id_, "component", tries, RULES, changes) for id_, (tries, changes) in CHANGES.items()),
    *(
        train(f"limit-{id_}", "component", tries, RULES, changes)
        for id_, (tries, changes) in LIMITS.items()
    ),
)
