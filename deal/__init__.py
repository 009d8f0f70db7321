"""DEAL restores infrared images: it removes patterns, noise, blur, glow and low contrast. It builds on `deal_kernels`.

Enhance images. The result has the kind, dtype and range of the input, which is a numpy array, a PIL image or a tensor.
For a path, it is an array:

>>> import deal, numpy
>>> enhancer = deal.Enhancer("deal-u-small")
>>> image = numpy.random.default_rng(0).integers(7000, 9000, (48, 64), numpy.uint16)
>>> enhanced = enhancer(image)
>>> enhanced.dtype, enhanced.shape
(dtype('uint16'), (48, 64))

What was taken out, in the units of the image:

>>> enhancer.parts(image).columns.shape
(48, 64)

Train a network on clean images. Without `images`, it is trained on synthetic thermal scenes:

>>> import tempfile
>>> settings = deal.Settings(
...     blocks="deal-u-small", steps=1, crop=32, output=tempfile.mkdtemp(), progress=False
... )
>>> network = deal.train(settings).network
>>> network.config == deal.load(settings.output + "/best.safetensors").config
True

The networks and the generator of degradations are modules of torch:

>>> network = deal.DealU("deal-u-small")
>>> network_of_the_paper = deal.DEAL("cascade2", channels=3)
>>> generator = deal.Generator("camera")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deal.inference.enhancer import Enhancer, enhance
    from deal.model.generator import Generator
    from deal.model.network import DEAL
    from deal.model.pretrained import load
    from deal.model.separation import DealU
    from deal.training.loop import train
    from deal.training.settings import Settings

__all__ = ["DEAL", "DealU", "Enhancer", "Generator", "Settings", "enhance", "load", "train"]

_MODULES = {
    "DEAL": "deal.model.network", "DealU": "deal.model.separation", "Enhancer": "deal.inference.enhancer",
    "Generator": "deal.model.generator", "Settings": "deal.training.settings", "enhance": "deal.inference.enhancer",
    "load": "deal.model.pretrained", "train": "deal.training.loop",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports an exported name on first use, so that `import deal` imports neither torch nor pillow."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
