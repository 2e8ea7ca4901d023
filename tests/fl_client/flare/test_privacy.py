"""The privacy filters: what becomes of each tensor, whose noise it is, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.workspace import Workspace

from fl_client.flare.exchange import metrics_reply
from fl_client.flare.privacy import (
    TRAINED,
    ExcludeVars,
    ModelFilter,
    PercentilePrivacy,
    SVTPrivacy,
    unforeseeable_noise,
)
from fl_client.flare.result_gate import reply_faults
from fl_client.privacy.ledger import PrivacyLedger
from fl_client.privacy.settings import TrainedTensors
from mmar_runtime.errors import ConfigError, MmarError
from mmar_runtime.flare.wire import REPORT, STATUS
from mmar_runtime.results import EvaluationResult
from tests.conftest import metric, plain_metric

BUFFERS = frozenset({"norm.running_var", "norm.num_batches_tracked"})
STEPS = 2


def update(**more: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Ten changes of 0.2, 0.4, ... 2.0 after two steps: 0.1 to 1.0 a step; and two buffers."""
    return {
        "conv.weight": np.arange(1, 11, dtype=np.float32).reshape(2, 5) * np.float32(0.2),
        "norm.running_var": np.array([0.5, 0.25], dtype=np.float32),
        "norm.num_batches_tracked": np.array(7, dtype=np.int64),
        **more,
    }


def reply_of(arrays: Any, kind: str = DataKind.WEIGHT_DIFF) -> Shareable:
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: STEPS, REPORT: {"seconds": 1.0}}
    return DXO(kind, data=arrays, meta=meta).to_shareable()


@pytest.fixture
def told(fl_ctx: FLContext) -> FLContext:
    """A context as the executor leaves it behind a training."""
    trained = TrainedTensors(buffers=BUFFERS, round_number=1, data="0123456789ab")
    fl_ctx.set_prop(TRAINED, trained, private=True, sticky=False)
    return fl_ctx


def filtered(by: ModelFilter, fl_ctx: FLContext, **more: Any) -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, np.ndarray[Any, Any]] = from_shareable(
        by.process(reply_of(update(**more)), fl_ctx)
    ).data
    return found


def is_declined(reply: Shareable) -> bool:
    return str(reply.get_header(STATUS)).startswith("policy-declined (reference ")


def svt(**more: Any) -> SVTPrivacy:
    """All values, each cut at 1 a step, with a noise of about 2 * 10 / 1000 = 0.02 a step."""
    return SVTPrivacy(
        **{"epsilon_release": 1000.0, "fraction": 1.0, "gamma": 1.0, "tau": 0.0, **more}
    )


# --- the largest percentile


def test_percentile_keeps_the_largest_changes_and_cuts_them(told: FLContext) -> None:
    """Half of 0.1 ... 1.0 lies below 0.55, and at most 0.8 is sent: times two steps."""
    found = filtered(PercentilePrivacy(percentile=50, gamma=0.8), told)

    expected = [0, 0, 0, 0, 0, 1.2, 1.4, 1.6, 1.6, 1.6]
    assert found["conv.weight"].ravel() == pytest.approx(expected)
    assert found["conv.weight"].shape == (2, 5)
    assert found["conv.weight"].dtype == np.float32


def test_buffers_stay_at_the_site_unless_it_says_otherwise(told: FLContext) -> None:
    assert filtered(PercentilePrivacy(), told).keys() == {"conv.weight"}

    sent = filtered(PercentilePrivacy(gamma=0.001, buffers="send"), told)

    assert list(sent) == list(update())
    for name in BUFFERS:
        assert np.array_equal(sent[name], update()[name])
        assert sent[name].dtype == update()[name].dtype
    assert np.abs(sent["conv.weight"]).max() == pytest.approx(0.001 * STEPS)


def test_a_large_buffer_does_not_move_the_percentile(told: FLContext) -> None:
    by = PercentilePrivacy(percentile=50, gamma=0.8, buffers="send")

    huge = filtered(by, told, **{"norm.running_var": np.full(50, 1e6, dtype=np.float32)})

    assert np.array_equal(huge["conv.weight"], filtered(by, told)["conv.weight"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_single_number_is_filtered_like_any_other(told: FLContext, dtype: Any) -> None:
    """NVFlare's filters pass over values without dimensions."""
    found = filtered(PercentilePrivacy(gamma=0.8), told, scale=np.array(100, dtype=dtype))

    assert found["scale"].shape == ()
    assert found["scale"].dtype == dtype
    assert found["scale"] == pytest.approx(1.6, rel=1e-3)


# --- the sparse vector technique


def test_svt_sends_values_with_noise_in_their_own_dtypes(told: FLContext) -> None:
    found = filtered(svt(buffers="send", replace=False), told, scale=np.array(0.5, np.float32))

    change = found["conv.weight"] - update()["conv.weight"]
    assert found["conv.weight"].dtype == np.float32
    assert 0 < np.abs(change).max() < 2  # 50 times the scale of the noise
    assert found["scale"].shape == ()
    assert found["scale"] != np.float32(0.5)
    assert np.array_equal(found["norm.running_var"], update()["norm.running_var"])


def test_the_seed_of_a_job_decides_nothing_about_the_noise(told: FLContext) -> None:
    found = []
    for _ in range(2):
        np.random.seed(7)
        found.append(filtered(svt(), told)["conv.weight"])

    assert not np.array_equal(*found)


def test_the_training_draws_on_as_if_nothing_had_been(told: FLContext) -> None:
    np.random.seed(7)
    expected = np.random.rand(3)
    np.random.seed(7)
    filtered(svt(), told)

    assert np.array_equal(np.random.rand(3), expected)


def test_the_generator_is_put_back_even_after_an_error() -> None:
    before = np.random.get_state()[1].copy()

    with pytest.raises(ValueError, match="within"), unforeseeable_noise():
        raise ValueError("within")

    assert np.array_equal(np.random.get_state()[1], before)


# --- what leaves has the form that the gate and the server ask for


@pytest.mark.parametrize("by", [PercentilePrivacy(buffers="send"), svt(buffers="send")])
def test_the_gate_lets_it_pass(told: FLContext, by: ModelFilter) -> None:
    """No key of NVFlare's accountant, no float64 where there were whole numbers."""
    reply = by.process(reply_of(update()), told)

    assert list(reply_faults(reply, update())) == []
    history = from_shareable(reply).meta[MetaKey.FILTER_HISTORY]
    assert history == [type(by).__name__]


def test_excluded_tensors_are_not_there(told: FLContext) -> None:
    assert filtered(ExcludeVars(["norm.*"]), told).keys() == {"conv.weight"}


def test_metrics_and_failures_pass(told: FLContext) -> None:
    metrics = metrics_reply(
        EvaluationResult(metrics={"dice": metric(0.5)}, key_metric="dice", cases=3)
    )
    failed = Shareable()
    failed.set_return_code("EXECUTION_EXCEPTION")

    assert from_shareable(PercentilePrivacy().process(metrics, told)).data == {
        "dice": plain_metric(0.5)
    }
    assert PercentilePrivacy().process(failed, told) is failed


@pytest.mark.parametrize("by", [PercentilePrivacy(), svt(), ExcludeVars(["norm.*"])])
def test_a_whole_model_is_held_back(
    told: FLContext, by: ModelFilter, run_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Why stays at the site, as with every other error of a task."""
    reply = by.process(reply_of(update(), DataKind.WEIGHTS), told)

    assert "DXO" not in reply
    assert is_declined(reply)
    assert list(reply_faults(reply)) == []
    [file] = run_folder.glob("error-*.txt")
    assert f"(reference {file.stem.removeprefix('error-')})" in reply.get_header(STATUS)
    assert "a whole model is not sent" in file.read_text()
    assert "a whole model" not in caplog.text


def test_without_a_word_of_the_executor_nothing_leaves(fl_ctx: FLContext) -> None:
    """NVFlare makes a filter error of it, and sends no data."""
    with pytest.raises(MmarError, match="does not tell what it has trained"):
        PercentilePrivacy().process(reply_of(update()), fl_ctx)


# --- the budget


def budget(workspace: Workspace, epsilon: float) -> PrivacyLedger:
    policy = Path(workspace.get_site_config_dir()) / "mmar_site_policy.json"
    policy.write_text(json.dumps({"policy_version": 1, "privacy": {"epsilon_max": epsilon}}))
    policy.chmod(0o600)
    return PrivacyLedger(Path(workspace.get_root_dir()))


def test_each_contribution_is_written_down_until_the_budget_is_spent(
    workspace: Workspace, told: FLContext
) -> None:
    """0.1 for the choice and 0.4 for the noise: two rounds of the 1.2 that the site allows."""
    ledger = budget(workspace, 1.2)
    by = svt(epsilon=0.1, epsilon_release=0.4)

    replies = [by.process(reply_of(update()), told) for _ in range(3)]

    assert [is_declined(one) for one in replies] == [False, False, True]
    assert [one.epsilon for one in ledger.account().spendings] == [0.5, 0.5]
    assert ledger.account().spent == 1.0
    assert {one.job for one in ledger.account().spendings} == {"job-1"}


def test_a_ledger_that_was_changed_lets_nothing_leave(
    workspace: Workspace, told: FLContext
) -> None:
    ledger = budget(workspace, 100)
    by = svt(epsilon=0.1, epsilon_release=0.4)
    by.process(reply_of(update()), told)
    ledger.path.write_text(ledger.path.read_text().replace('"epsilon":0.5', '"epsilon":0.0'))

    assert is_declined(by.process(reply_of(update()), told))


# --- arguments


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: PercentilePrivacy(percentile=101), "percentile: has to be a number from 0 to 100"),
        (lambda: PercentilePrivacy(gamma=0), "gamma: has to be a number above 0"),
        (lambda: PercentilePrivacy(buffers="drop"), "has to be one of keep, send"),
        (lambda: SVTPrivacy(), "takes one of epsilon_release and noise_var"),
        (lambda: SVTPrivacy(epsilon_release=1, noise_var=1), "takes one of epsilon_release"),
        (lambda: svt(epsilon=11), "has to be a number above 0 and at most 10"),
        (lambda: svt(tau=2.0), "tau: has to be a number from 0 to 1"),
        (lambda: svt(epsilon_release=float("nan")), "epsilon_release: has to be a number above 0"),
        (lambda: ExcludeVars("^norm"), "has to list names of tensors"),
        (lambda: ExcludeVars(["*a*b*c*d*e"]), "has more than 4 '*'"),
    ],
)
def test_a_setting_that_would_protect_nothing_is_an_error(make: Any, fault: str) -> None:
    """NVFlare's own filters send everything as it is where an argument is out of its range."""
    with pytest.raises(ConfigError, match=fault.replace("*", r"\*")):
        make()
