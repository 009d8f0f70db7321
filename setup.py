"""Compiles csrc/ into deal_kernels._C with g++ or clang++, and nvcc where there is one. Knows no torch."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "csrc"
# No contraction and no fast-math: every instruction set and every device computes the same bits. The kernels write
# their vectors out: -O2 would compile them for half as long again, to no quicker code.
CXX_FLAGS = "-std=c++17 -O1 -g0 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -ffp-contract=off -Wall"
NVCC_FLAGS = "-std=c++17 -O3 --fmad=false -Xcompiler=-fPIC,-fvisibility=hidden"
# Code for sm_80 also runs on sm_86 and sm_89, and that for sm_120 on what has the same first digits.
CUDA_ARCHITECTURES = ("75", "80", "90", "100", "120")


def instruction_sets() -> dict[str, str]:
    """Name and flags of each set the CPU kernels are compiled for."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return {"baseline": ""}
    # GCC clears the upper halves of registers (vzeroupper) only with this flag, or from -O2 on. Without that, code of
    # other libraries that has no AVX runs slowly after a kernel.
    clear = "-fexpensive-optimizations"
    return {
        "baseline": "", "avx2": f"-march=x86-64-v3 {clear}",
        "avx512": f"-march=x86-64-v4 -mprefer-vector-width=512 {clear}",
    }  # fmt: skip


def find_compiler() -> str:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(shlex.split(name)[0]):
            return name
    raise CompileError("no C++ compiler found (set CXX, or install g++ or clang++): the torch backend serves alone")


def find_nvcc() -> str | None:
    if os.environ.get("DEAL_KERNELS_CUDA", "auto") == "0":
        return None
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin"))


def cuda_architectures(nvcc: str) -> list[str]:
    """Those of DEAL_KERNELS_CUDA_ARCHS ("80;90"), else those of this machine's GPUs, else the usual ones."""
    named = os.environ.get("DEAL_KERNELS_CUDA_ARCHS")
    if named:
        return re.split(r"[;, ]+", named.strip())
    known = re.findall(r"sm_(\w+)", subprocess.check_output([nvcc, "--list-gpu-code"], text=True))
    for architectures in (present_architectures(), CUDA_ARCHITECTURES):
        if found := [arch for arch in architectures if arch in known]:
            return found
    return known[-1:]


def present_architectures() -> list[str]:
    """Those of the GPUs of this machine, such as ["90"]."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return sorted({cap.replace(".", "") for cap in re.findall(r"^\d+\.\d+$", answer, re.MULTILINE)}, key=int)


def generated_code(archs: list[str], ptx: str) -> list[str]:
    """nvcc's flags. Architectures of one generation share its oldest one's PTX: making it takes half of the time."""
    generations: dict[str, list[str]] = {}
    for arch in sorted(archs, key=number_of):
        generations.setdefault(arch[:-1] if arch.isdigit() else arch, []).append(arch)
    codes = {members[0]: [f"sm_{arch}" for arch in members] for members in generations.values()}
    codes.setdefault(ptx, []).append(f"compute_{ptx}")
    return [f"-gencode 'arch=compute_{arch},code=[{','.join(code)}]'" for arch, code in codes.items()]


def number_of(arch: str) -> int:
    return int(re.sub(r"\D", "", arch))


class Recipe:
    """The lines of a build.ninja."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines: list[str] = []
        self.objects: list[str] = []

    def compile(self, source: Path, command: str, variant: str = "") -> None:
        name = ".".join(filter(None, (*source.relative_to(SOURCES).parts, variant, "o")))
        rule = f"rule_{len(self.objects)}"
        self.lines += [
            f"rule {rule}",
            f"  command = {command} -MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            f"  description = {source.relative_to(ROOT)} {variant}",
            f"build {name}: {rule} {escaped(source)}",
        ]
        self.objects.append(name)

    def link(self, target: str, command: str) -> None:
        self.lines += ["rule link", f"  command = {command}", f"build {target}: link {' '.join(self.objects)}"]

    def run(self) -> None:
        import ninja

        (self.folder / "build.ninja").write_text("\n".join([*self.lines, ""]))
        subprocess.run([Path(ninja.BIN_DIR) / "ninja", "-C", str(self.folder)], check=True)


def escaped(path: Path) -> str:
    return re.sub(r"([$: ])", r"$\1", str(path))


def linked_headers(folder: Path) -> str:
    """pybind11's headers under a path that stays the same from one isolated build to the next."""
    import pybind11

    link = folder / "pybind11"
    if link.is_symlink() or link.exists():
        link.unlink()
    link.symlink_to(pybind11.get_include(), target_is_directory=True)
    return f"-isystem pybind11 -DDEAL_PYBIND11_VERSION={pybind11.__version__.replace('.', '_')}"


def write_recipe(folder: Path, target: str, nvcc: str | None) -> Recipe:
    recipe = Recipe(folder)
    compiler = find_compiler()
    mac = sys.platform == "darwin"
    openmp = "" if mac else "-fopenmp"
    flags = f"{CXX_FLAGS} {openmp} {os.environ.get('CXXFLAGS', '')}"
    cuda = ""
    if nvcc:
        archs = cuda_architectures(nvcc)
        # PTX of the newest runs on every later GPU; PTX newer than the machine code would leave a gap between them.
        ptx = max(archs, key=number_of)
        command = f"{nvcc} {NVCC_FLAGS} {' '.join(generated_code(archs, ptx))} --threads 2"
        for source in sorted(SOURCES.glob("cuda/*/*.cu")):
            recipe.compile(source, command)
        cuda = f"-DDEAL_CUDA='\"{' '.join(f'sm_{a}' for a in archs)} compute_{ptx}\"'"
    python = f"{linked_headers(folder)} -isystem {sysconfig.get_paths()['include']}"
    recipe.compile(SOURCES / "bindings" / "module.cpp", f"{compiler} {flags} {python} {cuda}")
    for source in sorted(SOURCES.glob("cpu/*/*.cpp")):
        if source.parent.name == "common":
            recipe.compile(source, f"{compiler} {flags}")
            continue
        for name, architecture in instruction_sets().items():
            # The warnings are of GCC's own headers and of vectors that never cross a library.
            recipe.compile(source, f"{compiler} {flags} -Wno-psabi -Wno-maybe-uninitialized {architecture}", name)
    if nvcc:
        recipe.link(target, f"{nvcc} -shared -cudart static -ccbin '{compiler}' -Xcompiler={openmp} $in -o $out")
    else:
        recipe.link(target, f"{compiler} -shared {'-undefined dynamic_lookup' if mac else openmp} $in -o $out")
    return recipe


class NinjaBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        result = Path(self.get_ext_fullpath(ext.name)).resolve()
        folder = ROOT / "build" / f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        folder.mkdir(parents=True, exist_ok=True)
        nvcc = find_nvcc()
        if nvcc is None:
            print("deal-kernels: no nvcc found, the CUDA kernels are left out", file=sys.stderr)
        try:
            write_recipe(folder, result.name, nvcc).run()
        except subprocess.CalledProcessError as error:
            if nvcc is None:
                raise CompileError("deal-kernels: csrc/ did not compile: the torch backend serves alone") from error
            print("deal-kernels: nvcc failed, the CUDA kernels are left out", file=sys.stderr)
            try:
                write_recipe(folder, result.name, None).run()
            except subprocess.CalledProcessError as again:
                raise CompileError("deal-kernels: csrc/ did not compile: the torch backend serves alone") from again
        result.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / result.name, result)


setup(
    ext_modules=[Extension("deal_kernels._C", sources=[], optional=True)],
    cmdclass={"build_ext": NinjaBuild},
)
