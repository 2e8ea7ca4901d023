"""ignite's supervised engines on several devices, as MONAI used to offer them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.metrics import MeanSquaredError

from mmar_runtime.components.multi_gpu import (
    create_multigpu_supervised_evaluator,
    create_multigpu_supervised_trainer,
)

Batch = tuple[torch.Tensor, torch.Tensor]


def network() -> torch.nn.Linear:
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(net.weight, 2.0)
    return net


def one_batch() -> list[Batch]:
    return [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]


def trainer_of(net: torch.nn.Module, **options: Any) -> Any:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    options = {"devices": [], **options}
    return create_multigpu_supervised_trainer(
        net, optimizer, torch.nn.functional.mse_loss, **options
    )


def test_a_trainer_steps_and_reports_the_loss() -> None:
    net = network()
    trainer = trainer_of(net)
    trainer.run(one_batch(), max_epochs=1)
    # Predictions 2 and 6, targets 0: the loss is (4 + 36) / 2, its slope 2 * w * (1 + 9) / 2.
    assert trainer.state.output == pytest.approx((2.0**2 + 6.0**2) / 2)
    assert net.weight.item() == pytest.approx(2.0 - 0.05 * 2 * 2.0 * (1 + 9) / 2)


def test_an_evaluator_leaves_the_network_and_computes_metrics() -> None:
    net = network()
    metrics = {"error": MeanSquaredError()}
    evaluator = create_multigpu_supervised_evaluator(net, metrics=metrics, devices=["cpu"])
    evaluator.run(one_batch())
    assert evaluator.state.metrics["error"] == pytest.approx((2.0**2 + 6.0**2) / 2)
    pred, target = evaluator.state.output
    assert pred.tolist() == [[2.0], [6.0]]
    assert target.tolist() == [[0.0], [0.0]]
    assert net.weight.item() == 2.0


def test_batches_may_be_dictionaries_or_prepared_by_a_function() -> None:
    image, label = one_batch()[0]
    by_key = create_multigpu_supervised_evaluator(network(), devices=[])
    by_key.run([{"image": image, "label": label}])
    assert by_key.state.output[0].tolist() == [[2.0], [6.0]]

    def halved(batch: Batch, device: torch.device, non_blocking: bool) -> Batch:
        assert (device, non_blocking) == (torch.device("cpu"), True)
        return batch[0] / 2, batch[1]

    prepared = create_multigpu_supervised_evaluator(
        network(), devices=[], non_blocking=True, prepare_batch=halved
    )
    prepared.run(one_batch())
    assert prepared.state.output[0].tolist() == [[1.0], [3.0]]


def test_the_output_is_what_its_transform_returns() -> None:
    trainer = trainer_of(network(), output_transform=lambda x, y, y_pred, loss: y_pred.sum().item())
    trainer.run(one_batch(), max_epochs=1)
    assert trainer.state.output == 8.0
    evaluator = create_multigpu_supervised_evaluator(
        network(), devices=[], output_transform=lambda x, y, y_pred: x.sum().item()
    )
    evaluator.run(one_batch())
    assert evaluator.state.output == 4.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_every_gpu_of_none_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="No GPU devices available"):
        trainer_of(network(), devices=None)


@pytest.mark.gpu
def test_every_gpu() -> None:
    net = network()
    trainer = trainer_of(net, devices=None)
    trainer.run(one_batch(), max_epochs=1)
    assert net.weight.is_cuda
    assert trainer.state.output == pytest.approx(20.0)


def test_a_distributed_process_has_one_device() -> None:
    with pytest.raises(ValueError, match="each process has one device, found 2: cpu, meta"):
        trainer_of(network(), devices=["cpu", "meta"], distributed=True)


# --- Two processes -------------------------------------------------------------------------------

SCRIPT = """
import json, sys
import torch, torch.distributed as dist
from ignite.metrics import MeanSquaredError
from mmar_runtime.components.multi_gpu import (
    create_multigpu_supervised_evaluator, create_multigpu_supervised_trainer)

dist.init_process_group("gloo")
rank = dist.get_rank()
net = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.constant_(net.weight, 2.0 if rank == 0 else 7.0)  # the first process's counts
image, label = torch.tensor([[1.0], [3.0]])[rank : rank + 1], torch.zeros(1, 1)
trainer = create_multigpu_supervised_trainer(
    net, torch.optim.SGD(net.parameters(), lr=0.05), torch.nn.functional.mse_loss,
    devices=["cpu"], distributed=True)
trainer.run([(image, label)], max_epochs=1)
evaluator = create_multigpu_supervised_evaluator(
    net, metrics={"error": MeanSquaredError()}, devices=[], distributed=True)
evaluator.run([(image, label)])
found = {"loss": trainer.state.output, "weight": net.weight.item(), **evaluator.state.metrics}
with open(f"{sys.argv[1]}/{rank}.json", "w") as stream:
    json.dump(found, stream)
dist.barrier()  # nobody hangs up while the other one is still listening
dist.destroy_process_group()
"""


def torchrun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run(
        [*command, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_step_as_one_does_with_both_their_cases(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    run = torchrun(tmp_path, "script.py", str(tmp_path))
    assert run.returncode == 0, run.stderr
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["loss"] for one in found] == pytest.approx([2.0**2, 6.0**2])
    weight = 2.0 - 0.05 * 2 * 2.0 * (1 + 9) / 2
    assert [one["weight"] for one in found] == pytest.approx([weight, weight])
    # The metric is over both processes' cases.
    error = weight**2 * (1 + 9) / 2
    assert [one["error"] for one in found] == pytest.approx([error, error], rel=1e-5)


WATCH = """
from pathlib import Path
from ignite.engine import Events

class Watch:
    def __init__(self, folder):
        self.folder = Path(folder)

    def attach(self, engine):
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine):
        weights = [float(one.sum()) for one in engine.network.parameters()]
        text = f"{type(engine.network).__name__} {engine.state.steps} {weights}"
        (self.folder / f"rank_{engine.state.rank}").write_text(text)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_a_trainer_of_the_mmars_own_averages_gradients_too(
    example: Any, bring: Any, edited: Any
) -> None:
    root = example("own_trainer")
    bring("own_watch.py", WATCH)
    watch = {"path": "own_watch.Watch", "args": {"folder": "{MMAR_CKPT_DIR}"}}

    def change(conf: Any) -> None:
        conf["train"]["handlers"].append(watch)
        conf["train"]["handlers"] = [
            one for one in conf["train"]["handlers"] if one.get("name") != "ValidationHandler"
        ]
        del conf["validate"]

    edited(root / "config/config_train.json", change)
    words = ("-m", "medl.apps.train", "-m", str(root), "--set", "epochs=1", "multi_gpu=True")
    run = torchrun(root, *words)
    assert run.returncode == 0, run.stderr
    first, second = ((root / f"models/rank_{rank}").read_text() for rank in (0, 1))
    assert first.startswith("DistributedDataParallel 1 ")  # one of the two cases each
    assert first == second
