"""Any model's weights are evaluated on the site's data, by the cross-validation workflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_client.local_evaluation import CrossSiteEvaluator
from fl_client.site import Site
from mmar_runtime.components.network import build_network
from mmar_runtime.config.loader import CROSS_VALIDATION_FILE, load_evaluation_config
from mmar_runtime.config.nodes import ComponentSpec
from mmar_runtime.errors import ComponentError, ConfigError, RunAborted, WeightsError
from mmar_runtime.weights import Weights, digest, write_checkpoint
from mmar_runtime.workflows.evaluation import evaluate
from mmar_runtime.workflows.session import session

Edited = Callable[[Path, Callable[[Any], object]], Path]


def changed(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: -tensor for name, tensor in weights.items()}


def evaluator_of(
    site: Site, sessions: ExitStack, counts: Counter[str], **arguments: Any
) -> CrossSiteEvaluator:
    config = site.cross_validation_config()
    context = sessions.enter_context(session(config, allow_code=False))
    return CrossSiteEvaluator(config, context, counts=counts, **arguments)


def test_it_gives_the_numbers_of_mmar_evaluate(
    site: Site, received: Weights, evaluator: CrossSiteEvaluator
) -> None:
    """The same code serves the federation and the site's own command line."""
    write_checkpoint(site.mmar.root / "models/model.pt", received, {})
    config = load_evaluation_config(site.mmar, file=CROSS_VALIDATION_FILE, site=site.values)

    alone = evaluate(config, allow_code=False)

    assert evaluator.evaluate(received, owner="SRV_FL_global_model") == alone
    assert alone.key_metric == "val_mean_dice"
    assert alone.cases == 1


def test_after_an_evaluation_that_failed_the_next_gives_its_own_metrics(
    received: Weights, evaluator: CrossSiteEvaluator
) -> None:
    first = evaluator.evaluate(received, owner="site-1")
    hook = evaluator.network.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ComponentError, match="division by zero"):
        evaluator.evaluate(changed(received), owner="site-2")
    hook.remove()

    second = evaluator.evaluate(changed(received), owner="site-2")

    assert second != first
    assert evaluator.evaluate(received, owner="site-1") == first


def test_each_model_gets_its_own_metrics_whatever_was_evaluated_before(
    received: Weights, evaluator: CrossSiteEvaluator
) -> None:
    first = evaluator.evaluate(received, owner="site-1")
    second = evaluator.evaluate(changed(received), owner="site-2")

    assert first != second
    assert evaluator.evaluate(received, owner="site-1") == first


@pytest.mark.parametrize("told", [{}, {"tf32": True, "cudnn_benchmark": True}])
def test_cudnn_and_tf32_are_as_its_own_document_has_them_whatever_ran_before(
    site: Site, received: Weights, open_sessions: ExitStack, edited: Edited, told: dict[str, bool]
) -> None:
    """A training in the same process leaves its settings; a number must not depend on them."""
    seen = []

    def look() -> bool:
        seen.append(flags())
        return False

    document = site.mmar.root / "config/config_cross_validation.json"
    edited(document, lambda content: content.update(told))
    evaluator = evaluator_of(site, open_sessions, Counter(), should_stop=look)
    with of_a_training():
        before = flags()
        evaluator.evaluate(received, owner="site-1")
        assert flags() == before

    of_pytorch = (False, False, False, True)
    assert seen[0] == ((True, False, True, True) if told else of_pytorch) != before


def flags() -> tuple[bool, ...]:
    return (
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )


@contextmanager
def of_a_training() -> Iterator[None]:
    """``"determinism": {...}, "tf32": false``, as many trainings have it."""
    before = flags()
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before[:2]
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[2:]


def test_network_and_data_are_built_once_for_all_models(
    site: Site, received: Weights, open_sessions: ExitStack
) -> None:
    counts: Counter[str] = Counter()
    evaluator = evaluator_of(site, open_sessions, counts)
    for owner in ("site-1", "site-2", "site-3"):
        evaluator.evaluate(received, owner=owner)

    assert counts["model"] == counts["dataset"] == counts["evaluator"] == 1
    assert set(counts.values()) == {1}


def test_the_weights_are_left_as_they_are(received: Weights, evaluator: CrossSiteEvaluator) -> None:
    before = digest(received)

    evaluator.evaluate(received, owner="site-1")

    assert digest(received) == before


def test_weights_that_do_not_fit_are_refused_by_name(
    received: Weights, evaluator: CrossSiteEvaluator
) -> None:
    name = next(iter(received))
    with pytest.raises(WeightsError) as caught:
        evaluator.evaluate({**received, name: torch.zeros(1)}, owner="site-2")

    assert f"{name}: shape" in str(caught.value)
    assert "the weights from site-2 do not fit" in str(caught.value)


def test_a_stop_between_iterations_gives_no_metrics(
    site: Site, received: Weights, open_sessions: ExitStack
) -> None:
    evaluator = evaluator_of(site, open_sessions, Counter(), should_stop=lambda: True)

    with pytest.raises(RunAborted):
        evaluator.evaluate(received, owner="site-1")


def test_a_file_of_weights_in_place_of_the_network_is_refused(
    site: Site, edited: Edited, open_sessions: ExitStack
) -> None:
    """``config_validation.json`` names files; the weights of a federation come over the wire."""

    def name_a_file(document: Any) -> None:
        document["model"] = [{"ckpt_path": "{MMAR_CKPT}"}]

    edited(site.mmar.root / "config/config_cross_validation.json", name_a_file)

    with pytest.raises(ConfigError, match="needs the network itself, not a file of weights"):
        evaluator_of(site, open_sessions, Counter())


def test_the_network_is_the_one_of_the_training(site: Site) -> None:
    training, validation = site.train_config(), site.cross_validation_config()
    (trained,) = training.train.specs("model")
    evaluated = validation.model
    assert isinstance(evaluated, ComponentSpec)

    shapes = []
    for spec, config in ((trained, training), (evaluated, validation)):
        with session(config, allow_code=False) as context:
            network = build_network(spec, config, context)
        shapes.append({name: value.shape for name, value in network.state_dict().items()})
    assert shapes[0] == shapes[1]
