"""Which module may import which, read from the source; what an import brings in; names that C++ and Python share."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPERATIONS = ("lif", "multistate", "psn", "tdbn", "degradation", "ssim", "conv", "consensus", "pad")
# The norm and the neuron in one kernel; a convolution in torch, in front of which images are padded.
FUSED = {("tdbn", "lif"), ("conv", "pad")}
FILES = ("__init__", "functional", "reference", "op")
LONGEST = 420  # lines of a file

# What the packages of deal may import of each other, beside themselves.
COMMON = {"detection", "fusion", "model", "io"}
ALLOWED = {
    "cli": {"ablation", "training", "evaluate", "inference", "zoo", "serve"} | COMMON,
    "serve": {"inference"} | COMMON,
    "ablation": {"training", "evaluate"} | COMMON,
    "evaluate": {"inference", "zoo"} | COMMON,
    "training": COMMON,
    "inference": {"zoo"} | COMMON,
    "detection": {"model", "io"},
    "fusion": {"model", "io"},
    "zoo": {"model", "io"},
    "model": {"io"},
    "io": set(),
}


def modules(root, package):
    """The modules of a package by name, with their source."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(node):
    """All of them but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            children = child.orelse
        else:
            yield child
            children = [child]
        for each in children:
            yield from statements(each)


def imports(name, path, known):
    """The modules of `known` that a module imports, at its top or in a function."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    found = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            inside = {f"{source}.{alias.name}" for alias in node.names}
            # `from package import module` needs the module; other names need the package's own file.
            found.update(inside & known or {source})
            if not inside <= known:
                found.add(source)
    return {module for module in found if module in known and module != name}


def graph(root, package):
    found = modules(root, package)
    known = {*found, f"{package}._C"}
    return {f"{package}._C": set()} | {name: imports(name, path, known) for name, path in found.items()}


@functools.cache
def repository(package):
    return graph(ROOT, package)


def circles(arrows):
    """Sets of modules that import each other, directly or not (Tarjan's strongly connected components)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows[node]:
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            members = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(members) > 1:
                found.append(sorted(members))

    for node in arrows:
        if node not in index:
            visit(node)
    return found


def room(module):
    """The second part of a module's name: the operation, or the package of deal."""
    return [*module.split("."), ""][1]


def intrusions(arrows):
    """Imports of one operation's modules by another's."""
    return [
        f"{module} imports {other}"
        for module, others in arrows.items()
        for other in sorted(others)
        if {room(module), room(other)} <= set(OPERATIONS)
        and room(module) != room(other)
        and (room(module), room(other)) not in FUSED
    ]


def upward(arrows):
    """Imports between packages of deal against the direction."""
    return [
        f"{module} imports {other}"
        for module, others in arrows.items()
        for other in sorted(others)
        if room(module) in ALLOWED and room(other) != room(module) and room(other) not in ALLOWED[room(module)]
        if room(other)
    ]


def test_no_operation_imports_another():
    assert intrusions(repository("deal_kernels")) == []


@pytest.mark.parametrize("package", ["deal_kernels", "deal"])
def test_no_circle(package):
    assert circles(repository(package)) == []


def test_the_kernels_import_nothing_of_deal():
    for name, path in modules(ROOT, "deal_kernels").items():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [each for each in names if each.split(".")[0] == "deal"], name


def test_imports_of_deal_go_one_way():
    assert upward(repository("deal")) == []


def test_every_module_of_deal_is_in_a_package():
    alone = {name for name in repository("deal") if room(name) and room(name) not in ALLOWED}
    assert alone <= {"deal.__main__", "deal._C"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_has_the_same_files(operation):
    folder = ROOT / "deal_kernels" / operation
    missing = [name for name in FILES if not (folder / f"{name}.py").exists()]
    assert missing == []


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_exports_and_does_nothing_else(operation):
    """Its __init__ has a docstring, imports and __all__."""
    tree = ast.parse((ROOT / "deal_kernels" / operation / "__init__.py").read_text())
    others = [
        ast.unparse(node).splitlines()[0]
        for node in tree.body
        if not isinstance(node, (ast.Import, ast.ImportFrom))
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        and not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
    ]
    assert others == [] and ast.get_docstring(tree)


def test_files_stay_small():
    sources = {path for folder in ("deal", "deal_kernels") for path in modules(ROOT, folder).values()}
    sources |= {path for ending in ("h", "cpp", "cu") for path in (ROOT / "csrc").rglob(f"*.{ending}")}
    sources |= set((ROOT / "tests").rglob("*.py"))
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            f"import deal_kernels, {', '.join(f'deal_kernels.{operation}' for operation in OPERATIONS)}",
            ("PIL", "jsonargparse", "safetensors"),
        ),
        ("import deal", ("torch", "PIL", "jsonargparse", "safetensors")),
    ],
)
def test_what_an_import_brings_in(statement, absent):
    code = f"{statement}; import sys; print(*(name for name in {absent} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# The names by which Python looks members of the enums up, wherever it keeps them.
ENUMS = {
    "DType": "float32 float16 bfloat16 float64",
    "Output": "spikes mean packed states membranes",
    "Charge": "decay_input decay beta",
    "Fire": "ge gt levels",
    "Reset": "hard soft none next_hard next_soft twice_soft",
    "Surrogate": "sigmoid atan triangle rectangle fast_sigmoid erf exponential sides window given",
    "Model": "cuba alif lsnn clif",
    "Degradation": "identity contrast saturation sharpness gaussian_blur max_pool_resize average_pool_resize "
    "bicubic_resize posterize stripe row_stripe gain noise wide_blur row_gain tone dead pattern quantise clip",
    "Padding": "zeros reflect replicate",
}


@pytest.mark.parametrize("name", ENUMS)
def test_enums_have_the_names_that_python_uses(name):
    extension = pytest.importorskip("deal_kernels._C", reason="the extension is not built")
    enum = getattr(extension, name, None)
    assert enum is not None, f"the extension has no enum {name}"
    assert set(enum.__members__) == set(ENUMS[name].split())


PLANTED = {
    "deal_kernels/ssim/op.py": ("from deal_kernels.lif import reference", intrusions, "deal_kernels"),
    "deal_kernels/lif/op.py": ("def f():\n    from .triton import run", circles, "deal_kernels"),
    "deal/io/images.py": ("import deal.training.loop", upward, "deal"),
}


@pytest.mark.parametrize("file", PLANTED)
def test_violations_are_seen(file, tmp_path):
    """In a small repository that has one."""
    text, check, package = PLANTED[file]
    clean = {
        "deal_kernels/lif/op.py": "", "deal_kernels/lif/reference.py": "", "deal_kernels/ssim/op.py": "",
        "deal_kernels/lif/triton.py": "from deal_kernels.lif import op", "deal/io/images.py": "",
        "deal/training/loop.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import deal.cli.main\n",
        "deal/cli/main.py": "import deal.training.loop",
    }  # fmt: skip
    for name, source in clean.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    assert check(graph(tmp_path, package)) == []
    (tmp_path / file).write_text(text)
    assert check(graph(tmp_path, package)) != []
