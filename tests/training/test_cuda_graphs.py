"""Recordings of what a GPU does. Here a stand-in for them writes into the same memory again and again, as they do."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from scripts.training import cuda_graphs
from scripts.training.cuda_graphs import Recorded, can_be_recorded, recorded


class Scaled(nn.Module):
    """Counts how often it is run by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.runs = 0

    def forward(self, inputs: Tensor, power: int = 1) -> Tensor:
        self.runs += 1
        return (self.weight * inputs) ** power


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes that were recorded, by something that behaves like `torch.cuda.make_graphed_callables`."""
    shapes = []

    def record(module: nn.Module, samples: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor]:
        shapes.append(tuple(samples[0].shape))
        run, (weight,), gradient = module.forward, module.parameters(), torch.zeros(())

        class Replay(torch.autograd.Function):
            @staticmethod
            def forward(ctx, inputs, _):
                ctx.save_for_backward(inputs)
                return run(inputs)

            @staticmethod
            def backward(ctx, upstream):
                gradient.copy_((upstream * ctx.saved_tensors[0]).sum())  # written in place, as by a graph
                return None, gradient.detach()

        return lambda inputs: Replay.apply(inputs, weight)

    monkeypatch.setattr(cuda_graphs, "can_be_recorded", lambda _: True)
    monkeypatch.setattr(cuda_graphs, "_record", record)
    return shapes


def test_on_a_cpu_a_module_runs_as_it_is() -> None:
    module = Scaled()
    assert Recorded(module)(torch.ones(1, 1, 3), power=2).tolist() == [[[4, 4, 4]]]
    assert module.runs == 1


def test_without_recordings_there_is_only_the_module() -> None:
    module = Scaled()
    assert recorded(module, enabled=False) is module


def test_each_kind_of_inputs_is_recorded_once(records: list[tuple[int, ...]]) -> None:
    run = Recorded(Scaled())
    for length in (3, 4, 3):
        run(torch.ones(1, 1, length))
    assert records == [(1, 1, 3), (1, 1, 4)]
    run(torch.ones(1, 1, 3), power=2)
    run(torch.ones(1, 1, 3).double())
    assert records[2:] == [(1, 1, 3), (1, 1, 3)]


def test_there_are_not_more_recordings_than_memory(records: list[tuple[int, ...]]) -> None:
    run = Recorded(Scaled())
    for length in range(1, 20):
        assert run(torch.ones(1, 1, length)).sum() == 2 * length
    assert len(records) == cuda_graphs.MOST_RECORDINGS


def test_what_is_too_large_beside_what_was_recorded_runs_as_it_is(records: list[tuple[int, ...]]) -> None:
    run = Recorded(Scaled(), most_voxels=20)
    for shape in ((1, 5, 3, 4), (2, 1, 5), (1, 1, 8), (1, 1, 9)):  # 12 voxels, 10, 8 and 9
        assert run(torch.ones(shape)).shape == shape
    assert records == [(1, 5, 3, 4), (1, 1, 8)]


def test_gradients_add_up_although_they_are_written_to_one_place(records: list[tuple[int, ...]]) -> None:
    run = Recorded(Scaled())
    for _ in range(3):
        run(torch.ones(1, 1, 3)).sum().backward()
    assert run.module.weight.grad == 9


def test_gradients_that_are_zeroed_in_place_do_not_count_twice(records: list[tuple[int, ...]]) -> None:
    run = Recorded(Scaled())
    optimizer = torch.optim.SGD(run.parameters())
    for _ in range(3):
        optimizer.zero_grad(set_to_none=False)
        run(torch.ones(1, 1, 3)).sum().backward()
    assert run.module.weight.grad == 3


def test_what_cannot_be_recorded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    monkeypatch.setattr(torch.random, "fork_rng", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    with pytest.raises(ValueError, match=r"^cuda_graphs: found True, but .* \(operation not permitted .*\), expected"):
        cuda_graphs._record(Scaled(), (torch.ones(1, 1, 3),))
    assert gc.isenabled()


def test_trying_it_out_leaves_statistics_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.BatchNorm1d(2)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda module, samples: module(*samples))
    monkeypatch.setattr(torch.random, "fork_rng", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    cuda_graphs._record(module, (torch.ones(3, 2),))
    assert module.running_mean.tolist() == [0, 0]
    assert module.num_batches_tracked == 0


def test_no_garbage_is_collected_while_something_is_recorded() -> None:
    with cuda_graphs.no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with cuda_graphs.no_garbage_collection():
            pass
        assert not gc.isenabled()  # as it was
    finally:
        gc.enable()


def test_it_has_the_parameters_of_the_module() -> None:
    module = Scaled()
    assert [parameter is module.weight for parameter in Recorded(module).parameters()] == [True]


def test_nothing_is_recorded_without_a_gpu() -> None:
    assert not can_be_recorded([torch.ones(1, 1, 3)])
