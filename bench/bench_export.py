"""Networks against what `deal export` makes of them, on the CPU: in onnxruntime, and as a program of torch."""

from __future__ import annotations

import io

import pytest
import torch
from figures import milliseconds

from deal.inference import export
from deal.io.synthetic import thermal_scene
from deal.model.network import DEAL
from deal.model.pretrained import Network, load

SIZES = ((256, 320), (480, 640))
SMOKE = (40, 48)


def network_of(name: str, timed: bool) -> Network:
    """The bundled networks, and the paper's with random weights."""
    if name.startswith("deal-u"):
        return load(name)
    torch.manual_seed(0)
    return DEAL(name, width=32 if timed else 4).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["cascade2", "deal-u-small", "deal-u"])
def bench_exported(name, race, timed, report):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    if not timed and name != "cascade2":
        pytest.skip("exporting it takes a minute")
    network = network_of(name, timed).prepared(1).requires_grad_(False)
    program = export.program_of(network, 1)
    onnx = export.runner(export.onnx_model(program, {}).SerializeToString())
    torch_program = torch.export.load(io.BytesIO(export.saved(program, {}))).module()
    for size in SIZES if timed else (SMOKE,):
        x = thermal_scene(*size)[None]
        runs = {"ours": network, "onnxruntime": onnx, "torch.export": torch_program}
        calls = {each: torch.no_grad()(lambda run=run, x=x: run(x)) for each, run in runs.items()}
        expected = calls["ours"]()
        for each, call in calls.items():
            # A neuron whose charge is within rounding of a threshold fires otherwise, and moves the pixels around it.
            assert (call() - expected).abs().mean() < 1e-4, each
        result = race(calls, 40.0)
        if result is not None:
            figures = {each: milliseconds(result.seconds(each)) for each in calls}
            ratios = {f"{each} / ours": f"{result.ratio(each, 'ours'):.1f}x" for each in list(calls)[1:]}
            report.add(
                "Exported networks, one image (ms)", case=f"{name}, {size[1]}x{size[0]}", **figures, **ratios
            )  # fmt: skip
