"""Show the contents of a weights file, and the backends."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options

COMMON = ("model",)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", type=str | None, nargs="?", default=None, help="a weights file; the default is the bundled one"
    )


def version() -> str:
    from importlib import metadata

    try:
        return f"deal {metadata.version('deal-kernels')}"
    except metadata.PackageNotFoundError:
        return "deal, from a source folder"


def run(parsed: Namespace) -> int:
    from deal.model.pretrained import bundled_weights, load
    from deal.model.weight_files import load_tensors
    from deal_kernels.__main__ import print_info

    print(version())
    print_info()
    path = parsed.model or bundled_weights()
    if path is None:
        print("\nthis package has no bundled weights")
        return 0
    network = load(path)
    print(f"\n{path}")
    print(f"  parameters  {sum(parameter.numel() for parameter in network.parameters()):,}")
    print(f"  operations  {network.macs:,} multiply-accumulates per pixel")
    print(f"  reach       {network.reach} pixels to each side")
    for name, value in network.config.items():
        print(f"  {name:10}  {options.printable(value)}")
    for name, note in load_tensors(path)[1].items():
        if name not in ("format", network.METADATA):
            print(f"  {options.printable(name):10}  {options.printable(note)}")
    return 0
