"""What goes over the wire from a site, and what is taken from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.decomposers import common_decomposers
from nvflare.fuel.utils import fobs

from fl_client.flare.exchange import metrics_reply, received_weights, update_reply, weights_reply
from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.arrays import pack, unpack
from mmar_runtime.exchange.messages import SiteReport, Update
from mmar_runtime.flare.wire import CASES, REPORT
from mmar_runtime.results import EpochReport, EvaluationResult
from tests.conftest import metric, plain_metric

WEIGHTS = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}


def over_the_wire(shareable: Shareable) -> Shareable:
    """What arrives after NVFlare has written and read the message."""
    # Both, as in NVFlare's processes: what is missing here is made up, and stays so in this one.
    flare_decomposers.register()
    common_decomposers.register()
    arrived = fobs.loads(fobs.dumps(shareable))
    assert isinstance(arrived, Shareable)
    return arrived


def task(kind: str, data: dict[str, object]) -> Shareable:
    return DXO(kind, data=data).to_shareable()


# --- received


def test_received_weights_are_tensors_with_shapes_and_dtypes_of_the_arrays() -> None:
    arrays = {"w": np.array([1.5, -2.0], dtype=np.float32), "n": np.array(3)}

    found = received_weights(task(DataKind.WEIGHTS, arrays))

    assert found["w"].tolist() == [1.5, -2.0]
    assert found["w"].dtype == torch.float32
    assert (found["n"].item(), found["n"].shape, found["n"].dtype) == (3, (), torch.int64)


def test_received_weights_are_the_messages_own_memory() -> None:
    """Each site has a process of its own, and whoever trains from them leaves them as they are."""
    array = np.array([1.0], dtype=np.float32)

    found = received_weights(task(DataKind.WEIGHTS, {"w": array}))["w"]

    assert found.data_ptr() == array.ctypes.data


@pytest.mark.parametrize("change", [pack, unpack])
def test_what_carries_no_model_passes_as_it_is(change: Callable[[object], None]) -> None:
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)

    change(reply)
    change(None)

    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION


def test_a_model_travels_as_tensors_and_is_arrays_again_behind_the_wire() -> None:
    array = np.array([1.0, 2.0], dtype=np.float32)
    message = task(DataKind.WEIGHTS, {"w": array})

    pack(message)
    assert type(message["DXO"]["data"]["w"]) is torch.Tensor
    unpack(message)

    assert message["DXO"]["data"]["w"].tolist() == [1.0, 2.0]
    assert received_weights(message)["w"].tolist() == [1.0, 2.0]


def test_weights_that_cannot_be_written_to_are_copied() -> None:
    array = np.array([1.0], dtype=np.float32)
    array.flags.writeable = False

    assert received_weights(task(DataKind.WEIGHTS, {"w": array}))["w"].add_(1).item() == 2


@pytest.mark.parametrize(
    "shareable",
    [
        Shareable(),
        task(DataKind.WEIGHT_DIFF, {"w": np.zeros(1)}),
        task(DataKind.WEIGHTS, {}),
    ],
    ids=["nothing", "a difference", "no tensor"],
)
def test_a_task_without_weights_is_refused(shareable: Shareable) -> None:
    with pytest.raises(WeightsError, match="the task carries"):
        received_weights(shareable)


# --- sent


def update() -> Update:
    return Update(
        round_number=2,
        difference=WEIGHTS,
        steps=12,
        report=SiteReport(
            received_metrics={"dice": metric(0.25, 4)},
            local_metrics={"dice": metric(0.5, 4)},
            epochs=(EpochReport(epoch=1, loss=0.75),),
            seconds=1.5,
            built={"train.trainer": 1},
            process="p",
        ),
    )


def test_an_update_is_a_difference_with_steps() -> None:
    dxo = from_shareable(over_the_wire(update_reply(update())))

    assert dxo.data_kind == DataKind.WEIGHT_DIFF
    assert dxo.data["w"].tolist() == [1.0, 2.0]
    assert dxo.data["n"].shape == ()
    assert dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 12
    assert dxo.get_meta_prop(MetaKey.INITIAL_METRICS) is None  # the report has them


def test_the_report_on_the_round_travels_with_the_update() -> None:
    dxo = from_shareable(over_the_wire(update_reply(update())))

    assert dxo.get_meta_prop(REPORT) == {
        "received_metrics": {"dice": plain_metric(0.25, 4)},
        "local_metrics": {"dice": plain_metric(0.5, 4)},
        "epochs": [{"epoch": 1, "loss": 0.75, "metrics": {}}],
        "seconds": 1.5,
        "built": {"train.trainer": 1},
        "process": "p",
    }


def test_a_model_travels_whole_with_what_is_said_of_it() -> None:
    reply = weights_reply(WEIGHTS, meta={"round": 3, "metrics": {"dice": plain_metric(0.5)}})

    dxo = from_shareable(over_the_wire(reply))

    assert dxo.data_kind == DataKind.WEIGHTS
    assert {name: value.tolist() for name, value in dxo.data.items()} == {"w": [1.0, 2.0], "n": 3}
    assert dxo.get_meta_prop("round") == 3


def test_of_an_evaluation_only_means_and_the_number_of_cases_leave_the_site() -> None:
    result = EvaluationResult(key_metric="dice", metrics={"dice": metric(0.5, 4)}, cases=4)

    dxo = from_shareable(over_the_wire(metrics_reply(result)))

    assert (dxo.data_kind, dxo.data) == (DataKind.METRICS, {"dice": plain_metric(0.5, 4)})
    assert dxo.get_meta_prop(CASES) == 4
