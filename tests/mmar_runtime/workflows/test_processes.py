"""One run in several processes: the same weights and metrics in each, and one voice for all.

Most tests fork two processes from a server that has imported torch and MONAI once; each is told by
its environment who it is, as by torchrun. A few go through torchrun itself.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.distributed import TCPStore

import medl.apps.evaluate
import medl.apps.train
from mmar_runtime.cli.common import is_first_process
from mmar_runtime.components.builder import BuildContext, ComponentBuilder
from mmar_runtime.components.launch import ALONE, Processes, check_launch, launched_processes
from mmar_runtime.components.processes import own_part
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.config.location import Location
from mmar_runtime.config.sections import RuntimeSettings
from mmar_runtime.errors import ConfigError, LaunchError
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import digest, read_checkpoint
from mmar_runtime.workflows.session import choose_device
from tests.conftest import with_more_cases
from tests.mmar_runtime.components.metric_table import ROWS

MakeMmar = Callable[..., Path]
Edited = Callable[[Path, Callable[[Any], object]], Path]

PLACE = Location("config_train.json") / "train" / "dataset"
MULTI_GPU = ["--set", "multi_gpu=True", "NUM_THREADS=1"]
PATIENCE = 90
"""Seconds after which processes are given up; on a free machine they take two, torchrun ten."""


# --- Two processes -------------------------------------------------------------------------------

PRELUDE = """
import json, os, sys

os.environ.update(ENVIRONMENT)
for descriptor, name in ((1, "out"), (2, "err")):
    os.dup2(os.open(f"{FOLDER}/{name}", os.O_WRONLY | os.O_CREAT), descriptor)

def found(value):
    with open(f"{FOLDER}/found", "w") as file:
        json.dump(value, file)

"""


@dataclass(frozen=True)
class Ended:
    """How one of the processes ended: what it printed, and what its code called ``found``."""

    code: int | None
    out: str
    err: str
    found: Any


class Pair:
    """Runs Python code in two processes that are told what torchrun would tell them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs = 0
        self._context = multiprocessing.get_context("forkserver")
        commands = ["mmar_runtime.cli.train", "mmar_runtime.cli.evaluate"]
        workflows = ["mmar_runtime.workflows.training", "mmar_runtime.workflows.evaluation"]
        self._context.set_forkserver_preload([*commands, *workflows])

    def __call__(self, code: str, **values: Any) -> list[Ended]:
        """Run ``code`` with ``values`` as its globals in each process."""
        self._runs += 1
        folders = [self._folder / f"run-{self._runs}" / str(rank) for rank in (0, 1)]
        # As with torchrun, the store by which the processes find each other outlives their group.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        processes = []
        for rank, folder in enumerate(folders):
            folder.mkdir(parents=True)
            (folder / "script.py").write_text(PRELUDE + code)
            environment = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
            }
            given = {**values, "ENVIRONMENT": environment, "FOLDER": str(folder)}
            arguments = (str(folder / "script.py"), given, "__main__")
            process = self._context.Process(target=runpy.run_path, args=arguments)
            process.start()
            processes.append(process)
        for process in processes:
            process.join(PATIENCE)
            if process.exitcode is None:
                process.kill()
                process.join()
        return [
            Ended(process.exitcode, *(_text(folder / name) for name in ("out", "err", "found")))
            for process, folder in zip(processes, folders, strict=True)
        ]

    def found(self, code: str, **values: Any) -> list[Any]:
        """What the code calls ``found`` in each process; both have to end well."""
        ended = self(code, **values)
        assert [one.code for one in ended] == [0, 0], "\n".join(one.err for one in ended)
        return [json.loads(one.found) for one in ended]

    def app(self, name: str, *words: str) -> list[Ended]:
        """``python -m medl.apps.<name> <words>`` in each process."""
        code = f"import medl.apps.{name}\nsys.exit(medl.apps.{name}.main(WORDS))"
        return self(code, WORDS=list(words))


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def mmar(tiny_mmar: Path) -> Path:
    """The tiny MMAR with four cases to train on and three to validate on."""
    return with_more_cases(tiny_mmar)


def train_json(root: Path) -> Path:
    return root / "config/config_train.json"


def digests(root: Path) -> dict[str, str]:
    names = ("model.pt", "final_model.pt")
    return {name: digest(read_checkpoint(root / "models" / name).weights) for name in names}


WORKFLOW = """
from pathlib import Path
from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.errors import RunAborted
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import digest, weights_of
from mmar_runtime.workflows.evaluation import evaluate
from mmar_runtime.workflows.session import session
from mmar_runtime.workflows.training import TrainingWorkflow, train

RANK = int(ENVIRONMENT["RANK"])
VALUES = {"multi_gpu": True, "NUM_THREADS": 1}

def train_config(**values):
    return load_train_config(Mmar.open(Path(ROOT)), overrides={**VALUES, **values})

"""


# --- Who is who ----------------------------------------------------------------------------------


def test_a_process_that_nobody_launched_is_alone() -> None:
    assert launched_processes({}) == ALONE
    assert not ALONE.several
    assert ALONE.first


def test_torchrun_tells_each_process_who_it_is() -> None:
    told = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
    assert launched_processes(told) == Processes(rank=3, local_rank=1, count=4)
    assert not launched_processes(told).first


@pytest.mark.parametrize("told", [{}, {"RANK": ""}, {"RANK": "first"}])
def test_half_of_what_torchrun_tells_is_refused(told: Mapping[str, str]) -> None:
    with pytest.raises(LaunchError, match=r"WORLD_SIZE='2'.*RANK.*Start them with torchrun"):
        launched_processes({"WORLD_SIZE": "2", **told})


def test_a_broken_environment_does_not_hide_the_error_that_speaks_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert is_first_process()


def test_multi_gpu_needs_several_processes_and_they_need_it() -> None:
    check_launch(ALONE, multi_gpu=False)
    check_launch(Processes(count=2), multi_gpu=True)
    with pytest.raises(LaunchError, match=r"single process. Start several:\n *torchrun"):
        check_launch(ALONE, multi_gpu=True)
    with pytest.raises(LaunchError, match=r"2 processes were started.*Add --set multi_gpu=True"):
        check_launch(Processes(count=2), multi_gpu=False)


# --- Whose data ----------------------------------------------------------------------------------


def parts(items: int, count: int, *, training: bool) -> list[list[int]]:
    return [
        own_part(range(items), Processes(rank=rank, count=count), training=training, place=PLACE)
        for rank in range(count)
    ]


@pytest.mark.parametrize(("items", "count"), [(2, 2), (3, 2), (7, 3), (8, 3), (9, 3)])
def test_for_training_each_process_gets_equally_many_and_no_item_is_left_out(
    items: int, count: int
) -> None:
    shared = parts(items, count, training=True)
    assert {len(part) for part in shared} == {-(-items // count)}
    assert {item for part in shared for item in part} == set(range(items))


@pytest.mark.parametrize(("items", "count"), [(2, 2), (3, 2), (7, 3), (8, 3), (9, 3)])
def test_for_evaluation_the_parts_end_to_end_are_the_list(items: int, count: int) -> None:
    shared = parts(items, count, training=False)
    assert [item for part in shared for item in part] == list(range(items))
    assert max(map(len, shared)) - min(map(len, shared)) <= 1


def test_fewer_items_than_processes_are_refused() -> None:
    with pytest.raises(LaunchError, match=r"train\.dataset: 1 case cannot be shared by 2"):
        own_part(["a"], Processes(count=2), training=True, place=PLACE)
    assert own_part(["a"], ALONE, training=True, place=PLACE) == ["a"]


def test_a_run_gives_each_process_its_own_cases(mmar: Path, pair: Pair) -> None:
    seen = pair.found(
        WORKFLOW
        + """
from ignite.engine import Events

seen = {"trainer": [], "evaluator": []}
with session(train_config(epochs=1), allow_code=False) as context:
    workflow = TrainingWorkflow(train_config(epochs=1), context)
    for name, cases in seen.items():
        engine = getattr(workflow, name)
        for batch in engine.data_loader:
            cases += [Path(path).name[:6] for path in batch["image"].meta["filename_or_obj"]]
found(seen)
""",
        ROOT=str(mmar),
    )
    training = [set(one["trainer"]) for one in seen]
    assert [len(one["trainer"]) for one in seen] == [2, 2]
    assert training[0] | training[1] == {"case_1", "case_2", "case_4", "case_5"}
    assert [one["evaluator"] for one in seen] == [["case_3", "case_6"], ["case_7"]]


# --- What they agree on --------------------------------------------------------------------------


def test_gradients_are_averaged(pair: Pair) -> None:
    weights = pair.found(
        """
import torch
from mmar_runtime.components.launch import launched_processes
from mmar_runtime.components.processes import averaging_gradients, process_group

rank, cpu = int(ENVIRONMENT["RANK"]), torch.device("cpu")
torch.manual_seed(rank)  # the weights of the first process are everyone's
with process_group(launched_processes(), cpu):
    network = torch.nn.Linear(2, 1, bias=False)
    if rank == 0:
        torch.nn.init.constant_(network.weight, 1.0)
    parallel = averaging_gradients(network, cpu)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    image = torch.tensor([[1.0, 2.0]]) if rank == 0 else torch.tensor([[3.0, -2.0]])
    parallel(image).sum().backward()
    optimizer.step()
found(network.weight[0].tolist())
"""
    )
    # The gradient of w . x is x: [1, 2] in one process and [3, -2] in the other.
    assert weights == [[1 - 0.5 * (1 + 3) / 2, 1 - 0.5 * (2 - 2) / 2]] * 2


def test_a_step_of_two_processes_is_one_on_the_batch_of_both(
    mmar: Path, edited: Edited, pair: Pair
) -> None:
    """The mean of two gradients of one case each is the gradient of the mean loss over both."""

    def change(conf: Any) -> None:
        conf["train"]["optimizer"]["name"] = "SGD"
        # The whole volume, so that nothing is drawn.
        conf["train"]["pre_transforms"][3] = {
            "name": "CenterSpatialCropd",
            "args": {"keys": ["image", "label"], "roi_size": [8, 8, 8]},
        }

    def share(lists: Any) -> None:
        lists["training"] = lists["training"][:2]

    edited(train_json(mmar), change)
    edited(mmar / "data/dataset.json", share)
    ended = pair.app("train", "-m", str(mmar), *MULTI_GPU, "epochs=1")
    assert [one.code for one in ended] == [0, 0], ended[0].err
    both = read_checkpoint(mmar / "models/final_model.pt").weights

    def one_batch(conf: Any) -> None:
        conf["train"]["dataloader"]["args"].update(batch_size=2, shuffle=False)

    edited(train_json(mmar), one_batch)
    alone = ["-m", str(mmar), "--set", "NUM_THREADS=1", "epochs=1"]
    assert medl.apps.train.main(alone) == 0
    single = read_checkpoint(mmar / "models/final_model.pt").weights
    for name, weight in single.items():
        torch.testing.assert_close(both[name], weight, rtol=1e-5, atol=1e-6)


def test_every_process_has_the_same_weights_metrics_and_statistics_of_batch_norm(
    mmar: Path, edited: Edited, pair: Pair
) -> None:
    edited(train_json(mmar), lambda conf: conf["train"]["model"]["args"].update(norm="batch"))
    seen = pair.found(
        WORKFLOW
        + """
from ignite.engine import Events

config = train_config()
buffers, results = [], []
with session(config, allow_code=False) as context:
    workflow = TrainingWorkflow(config, context)

    def remember(engine):
        buffers.append(digest(dict(workflow.network.named_buffers())))

    workflow.trainer.add_event_handler(Events.ITERATION_COMPLETED, remember)
    workflow.evaluator.add_event_handler(Events.ITERATION_STARTED(once=1), remember)
    workflow.evaluator.add_event_handler(
        Events.COMPLETED, lambda engine: results.append(workflow.validated[1].as_dict())
    )
    workflow.run()
    parameters = digest(dict(workflow.network.named_parameters()))
found({"buffers": buffers, "results": results, "parameters": parameters})
""",
        ROOT=str(mmar),
    )
    first, second = seen
    assert first["parameters"] == second["parameters"]
    assert first["results"] == second["results"]
    assert [result["cases"] for result in first["results"]] == [3, 3]
    # Each process has its own statistics after a step, and the first one's when it validates.
    assert first["buffers"][1] != second["buffers"][1]
    assert first["buffers"][2] == second["buffers"][2]


def test_a_second_group_in_the_same_processes_finds_together_too(pair: Pair) -> None:
    """What the processes wrote down to find each other is still there, and is true no more."""
    agreed = pair.found(
        """
import time
import torch
from mmar_runtime.components.launch import launched_processes
from mmar_runtime.components.processes import agreed_number, process_group

processes, cpu, agreed = launched_processes(), torch.device("cpu"), []
for number in (1, 2):
    if processes.first:
        time.sleep(0.5)  # so that the other one does not find the new address
    with process_group(processes, cpu):
        agreed.append(agreed_number(10 * number + processes.rank, cpu))
found(agreed)
"""
    )
    assert agreed == [[10, 20], [10, 20]]


def test_a_group_inside_of_a_group_is_the_same_one(pair: Pair) -> None:
    """So that one group serves a training and an evaluation that both live on."""
    agreed = pair.found(
        """
import torch
from mmar_runtime.components.launch import launched_processes
from mmar_runtime.components.processes import agreed_number, process_group
from mmar_runtime.errors import LaunchError

processes, cpu, agreed = launched_processes(), torch.device("cpu"), []
with process_group(processes, cpu):
    with process_group(processes, cpu):
        agreed.append(agreed_number(10 + processes.rank, cpu))
    agreed.append(agreed_number(20 + processes.rank, cpu))
    try:
        with process_group(processes, torch.device("cuda", 0)):
            pass
    except LaunchError as error:
        agreed.append(str(error))
found(agreed)
"""
    )
    told = (
        "these processes are connected by gloo, and cuda needs nccl. Several processes need one "
        "use_gpu for all documents of a job"
    )
    assert agreed == [[10, 20, told]] * 2


def test_an_evaluation_is_stopped_in_all_processes_although_one_alone_is_asked(
    mmar: Path, pair: Pair
) -> None:
    assert medl.apps.train.main(["-m", str(mmar)]) == 0
    ended = pair.found(
        WORKFLOW
        + """
config = load_evaluation_config(Mmar.open(Path(ROOT)), overrides=VALUES)
try:
    evaluate(config, allow_code=False, should_stop=lambda: RANK == 1)
    found("not stopped")
except RunAborted:
    found("stopped")
""",
        ROOT=str(mmar),
    )
    assert ended == ["stopped"] * 2


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    third = Processes(rank=2, local_rank=2, count=3)

    with pytest.raises(LaunchError, match=r"process 2 .* there are 2\. Start as many .* GPUs"):
        choose_device(RuntimeSettings(use_gpu=True), third)
    assert choose_device(RuntimeSettings(use_gpu=False), third) == torch.device("cpu")


def test_all_stop_at_the_same_iteration_although_one_alone_is_asked(mmar: Path, pair: Pair) -> None:
    seen = pair.found(
        WORKFLOW
        + """
config = train_config(epochs=100)
asked = []

def should_stop():
    asked.append(1)
    return RANK == 1 and len(asked) > 4

with session(config, allow_code=False) as context:
    workflow = TrainingWorkflow(config, context, should_stop=should_stop)
    try:
        workflow.run()
    except RunAborted:
        found(workflow.iteration)
""",
        ROOT=str(mmar),
    )
    # Asked at the start of each epoch and after each of its two iterations.
    assert seen == [3, 3]


def test_each_metric_of_two_processes_is_that_of_one(pair: Pair) -> None:
    """Of three cases or five, so that the processes have unequally many."""
    one, other = pair.found(
        """
import warnings
import torch
from mmar_runtime.components.launch import launched_processes
from mmar_runtime.components.processes import process_group

sys.path.insert(0, ROOT)
from tests.mmar_runtime.components.metric_table import shared

warnings.simplefilter("ignore")
with process_group(launched_processes(), torch.device("cpu")):
    found(shared(int(ENVIRONMENT["RANK"])))
""",
        ROOT=str(Path(__file__).parents[3]),
    )
    assert one == other
    for name, row in ROWS.items():
        value, counted = row.expected(row.situations["all right"])
        assert one[name] == [pytest.approx(value, rel=1e-5), counted], name


# --- The same files ------------------------------------------------------------------------------


def test_a_training_gives_the_same_bits_twice_and_prints_once(mmar: Path, pair: Pair) -> None:
    found = []
    for _ in range(2):
        shutil.rmtree(mmar / "models")
        words = ["-m", str(mmar), "--json", "--write_train_stats", *MULTI_GPU]
        first, second = pair.app("train", *words)
        assert (first.code, second.code) == (0, 0)
        assert (second.out, second.err) == ("", "")
        result = json.loads(first.out)
        assert first.err.count("note: LoadImaged") == 1
        assert first.err.count("validated after epoch 1") == 1
        found.append((digests(mmar), result["best_metric"], result["epochs"]))
    assert found[0] == found[1]
    assert json.loads((mmar / "models/train_stats.json").read_text())["current_iteration"] == 4


def test_checkpoints_are_those_of_a_single_process(mmar: Path, pair: Pair) -> None:
    first, _ = pair.app("train", "-m", str(mmar), "--json", *MULTI_GPU)
    for path in (mmar / "models").glob("*model.pt"):
        content = torch.load(path, weights_only=True)
        assert all(name.startswith("model.") for name in content["model"])  # UNet's own name
        assert not any(name.startswith("module.") for name in content["model"])
    evaluated = pair.found(
        WORKFLOW
        + """
for name in ENVIRONMENT:
    del os.environ[name]
config = load_evaluation_config(Mmar.open(Path(ROOT)), overrides={"NUM_THREADS": 1})
found(evaluate(config, allow_code=False).metrics["val_mean_dice"].value)
""",
        ROOT=str(mmar),
    )
    assert evaluated == [json.loads(first.out)["best_metric"]] * 2


def test_two_processes_evaluate_exactly_as_one(
    mmar: Path, pair: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    """Three cases: two for the one, one for the other."""
    assert medl.apps.train.main(["-m", str(mmar)]) == 0
    capfd.readouterr()
    words = ["-m", str(mmar), "--json"]
    assert medl.apps.evaluate.main([*words, "--set", "NUM_THREADS=1"]) == 0
    alone = json.loads(capfd.readouterr().out)
    alone_files = {path.name: path.read_text() for path in (mmar / "eval").iterdir()}
    shutil.rmtree(mmar / "eval")

    first, second = pair.app("evaluate", *words, *MULTI_GPU)

    assert (first.code, second.code) == (0, 0), first.err
    assert json.loads(first.out) == alone
    assert alone["cases"] == 3
    assert {path.name: path.read_text() for path in (mmar / "eval").iterdir()} == alone_files
    raw = alone_files["val_mean_dice_raw.csv"].splitlines()
    assert [line.partition("_image")[0][-6:] for line in raw[1:]] == ["case_3", "case_6", "case_7"]
    assert (second.out, second.err) == ("", "")


def test_a_resumed_training_of_two_processes_reaches_the_same_weights(
    mmar: Path, pair: Pair
) -> None:
    ended = pair.app("train", "-m", str(mmar), *MULTI_GPU, "epochs=4")
    assert [one.code for one in ended] == [0, 0], ended[0].err
    uninterrupted = digests(mmar)
    shutil.rmtree(mmar / "models")

    seen = pair.found(
        WORKFLOW
        + """
config = train_config(epochs=4)
asked = []

def should_stop():
    asked.append(1)
    return len(asked) > 7

try:
    train(config, allow_code=False, should_stop=should_stop)
    found("not stopped")
except RunAborted:
    # A second process group in the same process.
    result = train(config, allow_code=False, resume=True)
    found([report.epoch for report in result.epochs])
""",
        ROOT=str(mmar),
    )
    # From the last point that was written, which is not always that of the epoch before.
    assert seen in ([[3, 4], [3, 4]], [[2, 3, 4], [2, 3, 4]])
    assert digests(mmar) == uninterrupted


def test_a_training_of_two_processes_is_not_gone_on_with_in_one(
    mmar: Path, pair: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    pair.app("train", "-m", str(mmar), *MULTI_GPU)
    code = medl.apps.train.main(["-m", str(mmar), "--resume", "--set", "epochs=3"])
    assert code == 2
    assert "belongs to another configuration; different: processes" in capfd.readouterr().err


def test_a_checkpoint_saver_is_the_first_processs_although_nothing_says_so(
    mmar: Path, edited: Edited
) -> None:
    def change(conf: Any) -> None:
        for handler in conf["train"]["handlers"]:
            handler.pop("rank", None)

    edited(train_json(mmar), change)
    config = load_train_config(Mmar.open(mmar))
    for rank, savers in ((0, 1), (1, 0)):
        processes = Processes(rank=rank, count=2)
        context = BuildContext(device=torch.device("cpu"), processes=processes)
        handlers = ComponentBuilder(config, context).get("train", "handlers")
        assert [type(one).__name__ for one in handlers].count("AtomicCheckpointSaver") == savers


# --- Refused -------------------------------------------------------------------------------------


def test_fewer_cases_than_processes_are_refused_in_each_with_one_message(
    tiny_mmar: Path, pair: Pair
) -> None:
    first, second = pair.app("train", "-m", str(tiny_mmar), "--json", *MULTI_GPU)
    told = (
        "config_train.json: validate.dataset: 1 case cannot be shared by 2 processes; start fewer"
    )
    assert (first.code, second.code) == (2, 2)
    assert json.loads(first.out)["error"] == told
    assert f"mmar: {told}\n" in first.err
    assert (second.out, second.err) == ("", "")


def test_several_processes_that_know_nothing_of_each_other_are_refused(
    mmar: Path, pair: Pair
) -> None:
    for name in ("train", "evaluate"):
        ended = pair.app(name, "-m", str(mmar))
        assert [one.code for one in ended] == [2, 2]
        if name == "train":  # evaluate has no weights yet, which is said first
            assert "multi_gpu is false" in ended[0].err
        assert ended[1].err == ""
    assert not list((mmar / "models").iterdir())


def test_multi_gpu_in_a_single_process_is_refused(
    mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert medl.apps.train.main(["-m", str(mmar), *MULTI_GPU]) == 2
    assert "torchrun --nproc_per_node=2 -m medl.apps.train" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("section", "name"),
    [("train", "LrScheduleHandler"), ("train", "ValidationHandler"), ("train", "CheckpointLoader")],
)
def test_a_handler_that_each_process_needs_may_not_be_kept_to_one(
    mmar: Path, edited: Edited, section: str, name: str
) -> None:
    """The processes would wait for each other for ever, or go on with different weights."""

    def change(conf: Any) -> None:
        (handler,) = [one for one in conf[section]["handlers"] if one["name"] == name]
        handler["rank"] = 0

    edited(train_json(mmar), change)
    values = {"dont_load_ckpt_model": False}
    load_train_config(Mmar.open(mmar), overrides=values)  # in a single process nothing is wrong
    with pytest.raises(ConfigError, match=rf"\.rank: of several processes, each needs the {name}"):
        load_train_config(Mmar.open(mmar), overrides={**values, "multi_gpu": True})


def test_what_one_process_alone_meets_it_tells_and_the_other_does_not_wait(
    mmar: Path, pair: Pair
) -> None:
    image = mmar / "data/case_7_image.nii.gz"  # the second one's; its header and length are sound
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2] + content[-4:])
    first, second = pair.app("train", "-m", str(mmar), "--json", *MULTI_GPU)
    assert second.code == 2
    assert "mmar, process 1: config_train.json: an image cannot be read" in second.err
    assert second.out == ""
    assert first.code not in (0, None, -signal.SIGKILL)


# --- Afterwards ----------------------------------------------------------------------------------


def test_the_threads_of_the_group_end_with_the_run(mmar: Path, pair: Pair) -> None:
    """A thread of gloo that outlives the interpreter aborts the process, now and then."""
    names = pair.found(
        """
import glob
import medl.apps.train
medl.apps.train.main(WORDS)
found([open(path).read().strip() for path in glob.glob("/proc/self/task/*/comm")])
""",
        WORDS=["-m", str(mmar), *MULTI_GPU, "epochs=1"],
    )
    assert not [name for process in names for name in process if "gloo" in name]


# --- torchrun ------------------------------------------------------------------------------------

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
OLD_LAUNCH = ["-m", "torch.distributed.launch", "--master_addr=127.0.0.1"]


def launched(launcher: list[str], *words: str) -> list[str]:
    return [*launcher, "--nproc_per_node=2", "-m", "medl.apps.train", *words]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchrun", "torch.distributed.launch"])
def test_both_forms_of_torchs_launcher_train(
    mmar: Path, free_port: int, form: str, warm_python: Path
) -> None:
    """The form of today with processes from scratch."""
    launcher = TORCHRUN
    if form == "torch.distributed.launch":
        launcher = [str(warm_python), *OLD_LAUNCH, f"--master_port={free_port}"]
    finished = subprocess.run(
        launched(launcher, "-m", str(mmar), "--json", *MULTI_GPU),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "WARM_PYTHON": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["iterations"] == 4
    assert finished.stderr.count("validated after epoch 2") == 1


@pytest.fixture
def torchrun(mmar: Path) -> Iterator[subprocess.Popen[str]]:
    """An endless training in two processes under torchrun, in its second epoch."""
    process = subprocess.Popen(
        launched(TORCHRUN, "-m", str(mmar), *MULTI_GPU, "epochs=1000000"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    read = []
    for line in process.stderr:
        read.append(line)
        if line.startswith("epoch 2/"):
            break
    else:
        pytest.fail("".join(read))
    workers = psutil.Process(process.pid).children(recursive=True)
    yield process
    for one in (*workers, process):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()


@pytest.mark.slow
def test_a_signal_to_torchrun_ends_all_processes_and_leaves_whole_files(
    mmar: Path, torchrun: subprocess.Popen[str]
) -> None:
    workers = psutil.Process(torchrun.pid).children(recursive=True)
    assert len(workers) >= 2
    started = time.monotonic()
    torchrun.terminate()
    out, err = torchrun.communicate(timeout=PATIENCE)
    assert time.monotonic() - started < 15
    assert torchrun.returncode == 1  # torchrun's own answer to a signal
    assert out == ""
    assert err.count("mmar: the training was stopped before it was complete") == 1
    assert not [one for one in workers if one.is_running()]
    assert list(mmar.rglob("*.tmp")) == []
    files = sorted(path.name for path in (mmar / "models").iterdir())
    assert files == ["model.pt", "resume.pt"]
    for name in files:
        torch.load(mmar / "models" / name, weights_only=True)
