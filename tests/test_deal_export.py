"""Networks as files for other runtimes: the command as a user runs it, and the operations of exported networks."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from deal import cli
from deal.inference import export
from deal.io.synthetic import thermal_scene
from deal.model import whole_images
from deal.model.network import DEAL
from deal.model.pretrained import load
from deal_kernels.consensus import consensus
from deal_kernels.consensus.op import plain
from deal_kernels.consensus.ranks import at_ranks

ROOT = Path(__file__).parents[1]
# Operators that TensorRT and OpenVINO list; TopK, Resize and NonZero are left out, as TensorRT limits them.
COMMON = {
    "Abs", "Add", "And", "AveragePool", "Cast", "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv",
    "DepthToSpace", "Div", "Equal", "Exp", "Expand", "Floor", "Gather", "GatherND", "Gemm", "Greater",
    "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Not", "Pad",
    "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Round",
    "Shape", "Sigmoid", "Slice", "Softmax", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose",
    "Unsqueeze", "Where", "ArgMax", "GatherElements", "ReduceProd",
}  # fmt: skip
SIZES = (1, 48, 56), (3, 129, 61), (1, 240, 320)
# Loads a program where this package cannot be imported.
ALONE = """
import sys
sys.modules["deal"] = sys.modules["deal_kernels"] = None
import numpy, torch
run = torch.export.load(sys.argv[1]).module()
given = numpy.load(sys.argv[2])
numpy.savez(sys.argv[3], **{name: run(torch.from_numpy(given[name])).numpy() for name in given})
"""


@pytest.fixture(scope="module", params=["cascade1", "deal-u-small"])
def weights(request, tmp_path_factory):
    """The argument -m, and the network. A cascade has statistics of its own and few channels."""
    if request.param == "deal-u-small":
        return request.param, load(request.param)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    torch.manual_seed(0)
    network = DEAL("cascade1", width=6)
    for k in range(3):
        network(scene((2, 48, 48), seed=k))
    network.save_pretrained(path)
    return path, load(path)


def scene(size, seed=0):
    count, height, width = size
    random = torch.Generator().manual_seed(seed)
    clean = torch.stack([thermal_scene(height, width, seed=seed + k) for k in range(count)])
    return (0.8 * clean + 0.05 * torch.randn(count, 1, 1, width, generator=random) + 0.1).clamp(0, 1)


def run_export(weights, path, *more):
    command = [sys.executable, "-m", "deal", "export", "-m", weights, "-o", path, *more]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1200)


def check_results(network, results):
    """All pixels, but for a few around a spike whose charge is within rounding of its threshold."""
    for size, found in zip(SIZES, results, strict=True):
        with torch.no_grad():
            away = (torch.as_tensor(found) - network(scene(size))).abs()
        assert away.median() < 1e-6 and (away > 1e-4).float().mean() < 0.02 and away.max() < 0.05


@pytest.mark.filterwarnings("ignore")
def test_onnx(weights, tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    name, network = weights
    path = tmp_path / "network.onnx"
    done = run_export(name, path, "--format", "onnx")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.count("largest difference from the network") == 3
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert [(each.domain, each.version) for each in model.opset_import if not each.domain] == [("", export.OPSET)]
    operators = {node.op_type for node in model.graph.node}
    assert operators <= COMMON, operators - COMMON
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert f"operators: {' '.join(sorted(operators))}" in done.stdout
    for tensor in (*model.graph.input, *model.graph.output):
        dims = tensor.type.tensor_type.shape.dim
        assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 1, "height", "width"]
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.DOUBLE not in kinds
    assert not any(a.i == onnx.TensorProto.DOUBLE for n in model.graph.node if n.op_type == "Cast" for a in n.attribute)
    notes = {each.key: each.value for each in model.metadata_props}
    assert notes["deal.weights"] == Path(name).name.removesuffix(".safetensors") and notes["deal.version"]
    assert "0 is black, 1 is white" in notes["deal.input"]
    assert str(ROOT).encode() not in path.read_bytes()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    check_results(network, (session.run(None, {"image": scene(size).numpy()})[0] for size in SIZES))


@pytest.mark.filterwarnings("ignore")
def test_program(weights, tmp_path):
    """It runs where neither deal nor deal_kernels can be imported."""
    name, network = weights
    path, given, found = tmp_path / "network.pt2", tmp_path / "given.npz", tmp_path / "found.npz"
    done = run_export(name, path, "--format", "torch")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("largest difference from the network") == 3
    assert str(ROOT).encode() not in path.read_bytes()
    numpy.savez(given, **{str(k): scene(size).numpy() for k, size in enumerate(SIZES)})
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", ALONE, path, given, found], check=True, env=environment, cwd=tmp_path)
    check_results(network, (numpy.load(found)[str(k)] for k in range(len(SIZES))))


@pytest.fixture
def tiny(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    DEAL([("scale", 3, 3)], width=4, channels=3).save_pretrained(path)
    return path


def test_a_failed_check_leaves_no_file(tiny, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript")
    runner = export.runner
    monkeypatch.setattr(export, "runner", lambda content: lambda image: runner(content)(image) + 2e-4)
    path = tmp_path / "wrong.onnx"
    assert cli.main(["export", "-m", str(tiny), "-o", str(path)]) == 1
    assert "differs from the network by 2.0e-04 at 1 x 32 x 24, more than 0.0001" in capsys.readouterr().err
    assert not list(tmp_path.glob("*wrong*"))


def test_missing_packages_are_named(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cli.main(["export", "-m", str(tiny), "-o", str(tmp_path / "x.onnx")]) == 1
    assert "pip install 'deal-kernels[onnx]'" in capsys.readouterr().err


def test_three_channels(tiny, tmp_path):
    written = export.export(load(tiny), tmp_path / "x.pt2", "torch", channels=3)
    assert max(written.differences.values()) < 1e-5
    assert torch.export.load(tmp_path / "x.pt2").module()(torch.rand(1, 3, 20, 70)).shape == (1, 3, 20, 70)


def test_results_that_depend_on_rounding_are_not_compared(tiny, monkeypatch):
    network = load(tiny)
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(ValueError, match="too sensitive to rounding"):
        export.compared(network, network, 3)


@pytest.mark.parametrize("size", [(16, 16), (45, 51), (64, 80), (128, 200), (255, 257), (480, 640)])
def test_operations_on_whole_images(size, monkeypatch):
    x, field = torch.rand(2, 1, *size), torch.rand(2, 1, 16, 20)
    calls = [
        lambda: whole_images.averaged(x, (64, 80)), lambda: whole_images.averaged_rows(x[:, 0], min(128, size[0])),
        lambda: whole_images.enlarged(field, size), lambda: whole_images.cropped(x, (size[0] - 5, 7)),
        lambda: whole_images.median(x.flatten(1)), lambda: whole_images.median(x.flatten(1)[:, 1:]),
        lambda: whole_images.ordered(x.flatten(1), [0, 3, 100, x[0].numel() - 1]),
    ]  # fmt: skip
    expected = [call() for call in calls]
    monkeypatch.setattr(whole_images, "exports", lambda: True)
    for call, wanted in zip(calls, expected, strict=True):
        torch.testing.assert_close(call(), wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("values", [
    torch.tensor([3.0, 3.0, 3.0, 3.0, 3.0]), torch.tensor([-1e4, 2.0, 1.0, 1.5, 1e4]), torch.arange(5.0),
    torch.tensor([0.0, 0.0, 1.0, 0.0, 1e-7]),
], ids=str)  # fmt: skip
def test_ranks(values):
    found = at_ranks(values, torch.arange(5.0), 0)[:, 0]
    assert torch.equal(found, values.sort().values)


@pytest.mark.parametrize("rows", [1, 2, 63, 128])
def test_consensus_without_sorting(rows):
    x, weights = torch.randn(2, rows, 40), torch.rand(2, rows, 40)
    tolerance = torch.tensor([0.1, 0.3])
    torch.testing.assert_close(plain(x, weights, tolerance, None), consensus(x, weights, tolerance, backend="torch"))
