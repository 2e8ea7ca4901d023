"""Networks that take turns in one memory."""

from __future__ import annotations

import torch
from monai.engines import SupervisedTrainer

from fl_client.shared_storage import SharedStorage, clears_gradients


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def test_two_networks_have_the_same_numbers_and_nothing_else_in_common() -> None:
    storage, one, other = SharedStorage(), network(), network()
    storage.lend_weights(one)
    storage.lend_weights(other)

    other.load_state_dict({name: tensor + 1 for name, tensor in one.state_dict().items()})
    other.eval()

    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert one.training
    assert {id(one) for one in one.parameters()}.isdisjoint(id(one) for one in other.parameters())


def test_a_tensor_of_another_layout_or_type_lies_elsewhere() -> None:
    """Layout decides which kernels run, and those the last bits."""
    storage, one = SharedStorage(), torch.nn.Conv2d(2, 2, 3)
    other = torch.nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last)
    storage.lend_weights(one)
    storage.lend_weights(other)

    assert one.weight.data_ptr() != other.weight.data_ptr()
    assert one.bias is not None
    assert other.bias is not None
    assert one.bias.data_ptr() == other.bias.data_ptr()


def trainer_of(net: torch.nn.Module, **arguments: object) -> SupervisedTrainer:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    loss = torch.nn.MSELoss()
    return SupervisedTrainer("cpu", 1, [], net, optimizer, loss, **arguments)  # type: ignore[arg-type]


def test_gradients_that_the_next_step_clears_share_memory_too() -> None:
    storage, networks = SharedStorage(), [network(), network()]
    for net in networks:
        net(torch.ones(4, 3)).sum().backward()
        storage.lend_gradients(net, trainer_of(net))

    (first, second) = (next(net.parameters()).grad for net in networks)
    assert first is second


def test_those_of_a_trainer_that_may_not_clear_them_stay_its_own() -> None:
    storage, net = SharedStorage(), network()
    net(torch.ones(4, 3)).sum().backward()
    before = next(net.parameters()).grad

    accumulating = trainer_of(net, iteration_update=lambda engine, batch: {})
    assert not clears_gradients(accumulating)
    storage.lend_gradients(net, accumulating)
    other = network()
    other(torch.ones(4, 3)).sum().backward()
    storage.lend_gradients(other, trainer_of(other))

    assert next(net.parameters()).grad is before
    assert next(other.parameters()).grad is not before
