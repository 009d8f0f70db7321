"""Networks in ONNX, by both exporters of torch, as onnxruntime computes them."""

import io

import pytest
import torch
from torch import nn
from torch.export import Dim

from deal_kernels.conv import Conv2d
from deal_kernels.lif import LIF, Learned, lif
from deal_kernels.pad import pad2d
from deal_kernels.tdbn import TDBNLIF, SpikingConv, TDBatchNorm2d

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = [pytest.mark.filterwarnings("ignore")]  # of the exporters, about themselves

NEURONS = (
    LIF(), LIF(v_reset=-0.1, tau=3.0, decay_input=False, fire="gt"), LIF(rate=0.3, reduce="mean", v_reset=None),
    LIF(levels=4, v_reset=None, scale=0.25), LIF(pack=True), LIF(reset="next_hard", output="h"),
    LIF(beta=0.9, reset="next_soft", v_reset=None, output="v"), LIF(reset="twice_soft", v_reset=None, reset_by=0.4),
    LIF(tau=Learned(2.0, 3)), LIF(surrogate=lambda u: 1 / (1 + u.square()), v_threshold=torch.tensor(0.7)),
)  # fmt: skip


class Neurons(nn.Module):
    """Results that have the same bits everywhere."""

    def __init__(self):
        super().__init__()
        self.neurons, self.norms = nn.ModuleList(NEURONS), nn.ModuleList([TDBNLIF(3, alpha=0.7), TDBatchNorm2d(3)])
        self.normed = nn.Sequential(TDBatchNorm2d(3), LIF(v_reset=None))
        self.state = LIF(return_state=True)

    def forward(self, x, v0):
        shortcut = self.norms[0](x, shortcut=x, v0=v0)
        held = lif(x[0], steps=3, v_reset=None)
        return (
            *(layer(x) for layer in (*self.neurons, *self.norms)), self.normed(x), *self.state(x, v0), shortcut, held,
            pad2d(v0, (2, 1, 0, 3)), pad2d(v0, 1, "replicate"), pad2d(v0, 1, "zeros"),
        )  # fmt: skip


class Convolutions(nn.Module):
    """Results that depend on the order in which products are added."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([SpikingConv(3, 4, 3, padding=1), SpikingConv(3, 4, 3, reduce="mean", levels=4)])
        self.conv = Conv2d(3, 8, 7, padding=3, padding_mode="reflect", activation="relu")

    def forward(self, x, v0):
        return *(block(x) for block in self.blocks), self.conv(v0)


def built(module, device):
    torch.manual_seed(0)
    model = module().eval().to(device)
    for layer in model.modules():
        if isinstance(layer, TDBatchNorm2d):
            layer.running_mean.normal_(), layer.running_var.uniform_(0.5, 2)
    return model


def inputs(batch, height, width, device):
    return torch.randn(4, batch, 3, height, width, device=device), torch.rand(batch, 3, height, width, device=device)


def exported(model, given, dynamo):
    """A session of onnxruntime: any batch and size of images."""
    free = {"x": {1: "batch", 3: "height", 4: "width"}, "v0": {0: "batch", 2: "height", 3: "width"}}
    sizes = {"dynamic_shapes": {name: dict.fromkeys(axes, Dim.DYNAMIC) for name, axes in free.items()}}
    file = io.BytesIO()
    torch.onnx.export(
        model, given, file, dynamo=dynamo, input_names=["x", "v0"], verbose=False,
        **sizes if dynamo else {"dynamic_axes": free},
    )  # fmt: skip
    return onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "TorchScript"])
def test_onnx(dynamo, each_device):
    for module, rtol, atol in ((Neurons, 0, 0), (Convolutions, 1e-5, 1e-6)):
        model = built(module, each_device)
        session = exported(model, inputs(2, 9, 8, each_device), dynamo)
        for given in (inputs(2, 9, 8, each_device), inputs(3, 10, 12, each_device)):
            with torch.no_grad():
                expected = model(*given)
            found = session.run(None, {name: x.numpy(force=True) for name, x in zip(("x", "v0"), given, strict=True)})
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(torch.from_numpy(one), other.cpu(), rtol=rtol, atol=atol)


def test_a_program_that_was_exported_before(each_device):
    model, given = TDBNLIF(3, tau=3.0, v_reset=None).eval().to(each_device), inputs(2, 5, 4, each_device)[:1]
    program = torch.export.export(model, given)
    assert "deal_kernels.tdbn_lif.default" in str(program.graph)
    file = io.BytesIO()
    torch.onnx.export(program, (), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": given[0].numpy(force=True)})
    assert torch.equal(torch.from_numpy(found), model(*given).cpu())


def test_the_number_of_steps_has_to_be_fixed():
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as raised:
        torch.onnx.export(LIF(), (torch.randn(4, 2, 3),), dynamo=True, dynamic_shapes=({0: Dim.DYNAMIC},))
    error = raised.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert "export with a static time axis" in str(error)
