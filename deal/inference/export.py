"""Networks as files for other runtimes: ONNX, and programs of torch.export that load without this package.

An exported network takes images [B, C, H, W] in [0, 1], black 0 and white 1, of any number, height and width, and gives
the restored images. It is what the network computes on a whole image: windows, bit depths, tiles and temperatures are
`Enhancer`'s. Before it is written, its results are compared with those of the network.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.export import Dim, ExportedProgram

from deal.io.atomic import atomic_write
from deal.io.synthetic import thermal_scene
from deal.model.pretrained import Network
from deal.model.separation import DealU
from deal_kernels.consensus.ranks import AT_RANKS
from deal_kernels.version import __version__

if TYPE_CHECKING:
    from onnx import ModelProto

Format = Literal["onnx", "torch"]
Sizes = tuple[tuple[int, int, int], ...]

OPSET = 18
TOLERANCE = 1e-4  # of values in [0, 1]
EXAMPLE = 45, 51  # pixels; an even size might count as the rule
# Images, height and width. What happens to large images differs in `DealU` only; a cascade sees a pixel's surroundings.
CHECKED: dict[bool, Sizes] = {
    True: ((2, 61, 45), (1, 270, 42), (1, 50, 301)),
    False: ((1, 24, 32), (2, 33, 27), (1, 40, 48)),
}
ROUNDS = 28  # of bisection
FLOAT = 1  # ONNX's number of float32
FREE = {0: "batch", 2: "height", 3: "width"}  # axes of images
TRIES = 200  # images for one whose result no rounding changes
NOISE, PERTURBATIONS = 3e-7, 4  # deviation of noise as large as rounding, and how often it is added


class Exported(NamedTuple):
    """A file that was written."""

    differences: dict[str, float]  # the largest difference from the network, by size
    operators: tuple[str, ...]  # of ONNX; empty for a program


def export(
    network: Network, path: str | os.PathLike[str], format: Format = "onnx", *, channels: int = 1, name: str = ""
) -> Exported:  # fmt: skip
    """Writes a network in another format, checked.

    Args:
        network: it stays as it is.
        path: the file; an existing one is replaced.
        format: "onnx", which needs the packages of the extra onnx; or "torch", a program that `torch.export.load`
            reads.
        channels: of the images, 1 or 3.
        name: of the weights, for the file's metadata.
    """
    if format == "onnx":
        _check_packages()
    prepared = network.prepared(channels).requires_grad_(False)
    program = program_of(prepared, channels)
    notes = {"deal.version": __version__, "deal.weights": name, **described(channels)}
    operators: tuple[str, ...] = ()
    if format == "torch":
        content = saved(program, notes)
        differences = compared(torch.export.load(io.BytesIO(content)).module(), prepared, channels)
    else:
        model = onnx_model(program, notes)
        content, operators = model.SerializeToString(), tuple(sorted({node.op_type for node in model.graph.node}))
        differences = compared(runner(content), prepared, channels)
    with atomic_write(path) as file:
        file.write(content)
    return Exported(differences, operators)


def described(channels: int) -> dict[str, str]:
    """What the tensors mean."""
    images = f"float32 [batch, {channels}, height, width]"
    return {
        "deal.input": f"image: {images}, values in [0, 1]: 0 is black, 1 is white",
        "deal.output": f"restored: {images}, values may leave [0, 1]: clamp them for display",
    }


def program_of(network: Network, channels: int) -> ExportedProgram:
    """A prepared network as a program for images of any number and size."""
    free = dict.fromkeys(FREE, Dim.DYNAMIC)
    with torch.no_grad():
        program = torch.export.export(network, (torch.rand(2, channels, *EXAMPLE),), dynamic_shapes=(free,))
    # What torch notes about sizes holds for all of them, but it is checked again when the program is decomposed, by
    # Python's min, which would tie the program to sizes like the example's.
    program._guards_code = []
    return program


def saved(program: ExportedProgram, notes: Mapping[str, str]) -> bytes:
    """The program in operations of torch alone."""
    ours = {each: plain for each, plain in decomposition_table.items() if str(each).startswith("deal_kernels")}
    program = program.run_decompositions(ours)  # type: ignore[arg-type]
    graphs = (each for each in program.graph_module.modules() if isinstance(each, torch.fx.GraphModule))
    for node in (node for graph in graphs for node in graph.graph.nodes):
        node.meta.pop("stack_trace", None)  # paths of this machine
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=dict(notes))
    return file.getvalue()


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"export to ONNX needs {error.name}: pip install 'deal-kernels[onnx]'", name=error.name
        ) from error


def onnx_model(program: ExportedProgram, notes: Mapping[str, str]) -> ModelProto:
    """The program in ONNX, of standard operators."""
    from onnxscript import optimizer

    with _quiet():
        made = torch.onnx.export(
            program, (), dynamo=True, opset_version=OPSET, input_names=["image"], output_names=["restored"],
            verbose=False, custom_translation_table={AT_RANKS.overload: bisected}, optimize=False,
        )  # fmt: skip
        assert made is not None
        # The exporter's own optimisation compares all operators with each other, which takes minutes.
        for simplify in (optimizer.inline, optimizer.fold_constants, optimizer.remove_unused_nodes):
            simplify(made.model)
    model: ModelProto = made.model_proto
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if foreign or model.functions:
        raise RuntimeError(f"the exporter of torch {torch.__version__} left operators of {', '.join(sorted(foreign))}")
    for node in model.graph.node:
        del node.metadata_props[:]  # paths of this machine, and most of the file
    del model.graph.value_info[:], model.metadata_props[:]
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    for tensor in (*model.graph.input, *model.graph.output):
        del tensor.metadata_props[:]
        for axis, name in FREE.items():
            tensor.type.tensor_type.shape.dim[axis].dim_param = name
    return model


def bisected(x: Any, ranks: Any, dim: int) -> Any:
    """`deal_kernels::at_ranks` in operators of ONNX that runtimes have for any number of values.

    At most as many values as the rank are below `low`. Values that differ by less than 2^-28 of the range may stand for
    each other.
    """
    import onnxscript

    op: Any = onnxscript.opset18
    axis, half = op.Constant(value_ints=[dim]), op.Constant(value_float=0.5)
    low, high = op.ReduceMin(x, axis, keepdims=1), op.ReduceMax(x, axis, keepdims=1)
    for _ in range(ROUNDS):
        middle = op.Mul(op.Add(low, high), half)
        below = op.ReduceSum(op.Cast(op.Less(x, middle), to=FLOAT), axis, keepdims=1)
        few = op.LessOrEqual(below, ranks)
        low, high = op.Where(few, middle, low), op.Where(few, high, middle)
    infinite = op.Constant(value_float=math.inf)
    return op.ReduceMin(op.Where(op.GreaterOrEqual(x, low), x, infinite), axis, keepdims=1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def runner(content: bytes) -> Callable[[Tensor], Tensor]:
    """Runs an ONNX file by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


@torch.no_grad()
def compared(run: Callable[[Tensor], Tensor], network: Network, channels: int) -> dict[str, float]:
    """The largest difference between an exported network and the network, by size. Raises beyond the tolerance."""
    exact, found = copy.deepcopy(network).double(), {}
    for count, height, width in CHECKED[isinstance(network, DealU)]:
        image, expected = _determined(network, exact, (count, channels, height, width))
        size = f"{count} x {width} x {height}"
        found[size] = (run(image) - expected).abs().max().item()
        if not found[size] <= TOLERANCE:
            raise ValueError(
                f"the exported network differs from the network by {found[size]:.1e} at {size}, more than "
                f"{TOLERANCE:g}: nothing was written"
            )
    return found


def _determined(network: Network, exact: Network, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """An image whose result is that of float64, and the result.

    A spike whose charge is within rounding of its threshold falls one way in one runtime and the other way in another,
    and moves the pixels around it. Images with such a spike say nothing about an exported network.
    """
    noise = torch.Generator().manual_seed(0)
    for seed in range(TRIES):
        image = _degraded_scene(shape, seed)
        result = network(image)
        others = [exact(image.double())]
        for _ in range(PERTURBATIONS):
            others.append(network(image + NOISE * torch.randn(shape, generator=noise)))
        if all((result - other).abs().max() < TOLERANCE / 2 for other in others):
            return image, result
    raise ValueError(f"the network is too sensitive to rounding to be compared: none of {TRIES} images is determined")


def _degraded_scene(shape: tuple[int, ...], seed: int) -> Tensor:
    count, channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    scenes = torch.stack([thermal_scene(height, width, seed=count * seed + k) for k in range(count)])
    striped = scenes + 0.05 * torch.randn(count, channels, 1, width, generator=generator)
    return (0.2 + 0.6 * striped + 0.02 * torch.randn(shape, generator=generator)).clamp(0, 1)
