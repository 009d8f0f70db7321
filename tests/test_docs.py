"""The examples run: those of every docstring, and the blocks of the pages that are marked as examples.

In a docstring torch counts as imported. A page marks a block that runs as it stands with ```python example, and later
such blocks of the page see what it defines. Other Python blocks are only compiled.
"""

import doctest
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import deal
import deal_kernels

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("deal/**/*.md"))]
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def modules_with_examples():
    """The names of the modules whose source has a prompt in it."""
    for package in (deal, deal_kernels):
        found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        for name in (package.__name__, *(module.name for module in found)):
            source = importlib.util.find_spec(name).origin
            if source.endswith(".py") and not name.endswith("__main__") and ">>> " in Path(source).read_text():
                yield name


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_docstrings(name):
    if "triton" in name:
        pytest.importorskip("triton")
    result = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch}, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for marks, block in BLOCK.findall(page.read_text()):
        code = compile(block, str(page), "exec")
        if "example" in marks.split():
            exec(code, names)
