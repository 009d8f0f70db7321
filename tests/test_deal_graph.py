"""Steps and images that are repeated from a CUDA graph. On a CPU a tape of operations stands in for the graph."""

import itertools
import warnings

import pytest
import torch
from graph_tape import BrokenRecorder, TapeRecorder

from deal.inference.enhancer import Enhancer
from deal.model import cuda_graph
from deal.model.averaging import tensors_of
from deal.model.separation import DealU
from deal.training.adversarial import AdversarialTraining
from deal.training.distributed import ProcessGroup
from deal.training.settings import Settings

CHANGING = {
    "strategy": "policy", "adversary_start": 4, "settle_steps": 8, "ema_decay": 0.9, "schedule": "cosine",
    "warmup_steps": 2, "gradient_clip": 1.0, "steps": 12, "learning_rate": 1e-3,
}  # fmt: skip


class NoGraph:
    """Calls the function each time, with the learning rates where a graph has them."""

    def warm_up(self, call):
        return call()

    def capture(self, call):
        return call


def training_with(make_recorder, device, monkeypatch, **changes):
    """A training, and the recorder that it uses; None is that of a GPU."""
    made = []

    def recorder_for(graph, device):
        made.append(make_recorder(lambda: tensors_that_change(training)))
        return made[-1]

    if make_recorder is not None:
        monkeypatch.setattr(cuda_graph, "recorder_for", recorder_for)
    training = AdversarialTraining(Settings(**CHANGING | changes), ProcessGroup(torch.device(device)))
    monkeypatch.undo()
    return training, made[0] if made else None


def tensors_that_change(training):
    modules = training.network, training.generator, training.averaged
    optimisers = training.network_optimiser, training.generator_optimiser
    states = [state for optimiser in optimisers for state in optimiser.state.values()]
    values = [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
    return [*itertools.chain(*map(tensors_of, modules)), *values]


def trained(training):
    """The figures of all steps, and the weights after them."""
    settings, device = training.settings, training.group.device
    figures = []
    for step in range(settings.steps):
        random = torch.Generator().manual_seed(step)
        x = torch.rand(2, 1, 32, 48, generator=random).to(device)
        thumbnails = None
        if isinstance(training.network, DealU) and not settings.has_settled(step):
            thumbnails = torch.rand(2, 1, 96, 120, generator=random).to(device)
        figures.append(training.step(x, step, step >= settings.adversary_start, thumbnails))
    return figures, [tensor.clone() for tensor in tensors_that_change(training)]


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": "deal-u-small", "update": "simultaneous"},
        {"blocks": "deal-u-small", "update": "alternating", "precision": "bf16"},
        {"blocks": [["scale", 5, 3], ["spike", 5, 3, 2]], "strategy": "das", "loss": "l1_ssim", "norm": "tdbn"},
    ],
    ids=str,
)
def test_steps_from_a_graph_have_the_same_bits(changes, each_device, monkeypatch):
    """While the adversary joins, the learning rates change, and shading and tone settle."""
    make = TapeRecorder if each_device == "cpu" else None
    training, recorder = training_with(make, each_device, monkeypatch, **changes)
    figures, weights = trained(training)
    plain, _ = training_with(lambda kept: NoGraph(), each_device, monkeypatch, **changes)
    expected, expected_weights = trained(plain)
    assert figures == expected
    assert all(map(torch.equal, weights, expected_weights))
    assert len(training.update.graphs) == (3 if changes["blocks"] == "deal-u-small" else 2)
    if recorder is not None:
        assert recorder.replays == 12 - cuda_graph.WARM_UP * recorder.captures


def test_a_step_that_cannot_be_captured_runs_without(monkeypatch):
    training, _ = training_with(BrokenRecorder, "cpu", monkeypatch, blocks="cascade1", steps=6)
    with pytest.warns(UserWarning, match="without a CUDA graph.*: operation not permitted") as caught:
        figures, weights = trained(training)
    assert len(caught) == 1
    plain, _ = training_with(lambda kept: NoGraph(), "cpu", monkeypatch, blocks="cascade1", steps=6)
    expected, expected_weights = trained(plain)
    assert figures == expected
    assert all(map(torch.equal, weights, expected_weights))


def test_a_training_goes_on_with_and_without_a_graph(monkeypatch):
    """The learning rates and options of the optimisers are those of the machine, not those that were saved."""
    graphed, _ = training_with(TapeRecorder, "cpu", monkeypatch, blocks="cascade1", steps=6)
    plain = AdversarialTraining(graphed.settings, ProcessGroup(torch.device("cpu")))
    trained(graphed)
    plain.load(graphed.state())
    figures = trained(plain)[0]
    graphed.load(plain.state())
    assert all(isinstance(group["lr"], float) for group in plain.network_optimiser.param_groups)
    assert all(isinstance(group["lr"], torch.Tensor) for group in graphed.network_optimiser.param_groups)
    assert len(figures) == 6


def test_no_graph_where_none_is_wanted_or_none_exists():
    for graph, device in (("off", "cuda"), ("auto", "cpu"), ("auto", "meta")):
        assert cuda_graph.recorder_for(graph, torch.device(device)) is None
    assert isinstance(cuda_graph.recorder_for("auto", torch.device("cuda")), cuda_graph.CudaRecorder)


def test_the_last_kinds_of_arguments_are_kept():
    recorder = TapeRecorder(list)
    double = cuda_graph.Graphed(lambda x, factor: {"result": factor * x}, recorder)
    for size in range(1, cuda_graph.KEPT + 2):
        for _ in range(cuda_graph.WARM_UP + 2):
            x = torch.rand(size)
            assert torch.equal(double(x, 2)["result"], 2 * x)
    assert recorder.captures == cuda_graph.KEPT + 1
    assert recorder.replays == 2 * recorder.captures
    assert len(double.graphs) == cuda_graph.KEPT
    x = torch.rand(1)
    assert torch.equal(double(x, 2)["result"], 2 * x)
    assert torch.equal(double(x, 3)["result"], 3 * x)
    assert recorder.captures == cuda_graph.KEPT + 1


def test_results_stay_after_the_next_call():
    double = cuda_graph.Graphed(lambda x: 2 * x, TapeRecorder(list))
    results = [double(torch.full([1], float(k))).item() for k in range(6)]
    kept = [double(torch.full([1], float(k))) for k in range(6)]
    assert results == [each.item() for each in kept] == [0, 2, 4, 6, 8, 10]


@pytest.fixture
def enhancer(each_device, monkeypatch):
    recorder = TapeRecorder(list) if each_device == "cpu" else cuda_graph.CudaRecorder()
    monkeypatch.setattr(cuda_graph, "recorder_for", lambda graph, device: None if graph == "off" else recorder)
    return Enhancer(DealU("deal-u-small"), tile=64, device=each_device)


def frames(count, height=48, width=60):
    return torch.rand(count, 1, 1, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bf16", [False, True])
def test_images_from_a_graph_have_the_same_bits(bf16, enhancer, each_device):
    plain = Enhancer(enhancer._network, tile=64, device=each_device, graph="off")
    for frame in frames(5):
        assert torch.equal(enhancer.enhance_tensor(frame, bf16=bf16), plain.enhance_tensor(frame, bf16=bf16))
    assert len(enhancer._graphed.graphs) == 1


def test_images_of_several_tiles_take_no_graph(enhancer):
    for frame in frames(4, 48, 100):
        enhancer.enhance_tensor(frame)
    assert not enhancer._graphed.calls


def test_an_image_that_cannot_be_captured_is_computed(enhancer, monkeypatch):
    monkeypatch.setattr(enhancer._graphed, "recorder", BrokenRecorder(list))
    with pytest.warns(UserWarning, match="without a CUDA graph"):
        results = [enhancer.enhance_tensor(frame) for frame in frames(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(results[0], enhancer.enhance_tensor(frames(4)[0]))


def test_graph_is_checked():
    with pytest.raises(ValueError, match="graph must be .*got 'on'"):
        Enhancer(DealU("deal-u-small"), graph="on")
    with pytest.raises(ValueError, match="graph must be .*got 'on'"):
        Settings(graph="on")
