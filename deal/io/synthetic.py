"""Synthetic thermal scenes, for training, tests and demonstrations without recorded images."""

from __future__ import annotations

import math

import numpy
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor

from deal_kernels._common.checks import check_integer

Grid = tuple[ndarray, ndarray]  # row and column coordinates of the pixels, in units of the image height


def thermal_scene(height: int = 256, width: int = 256, *, seed: int = 0, noise: float = 0.005) -> Tensor:
    """A scene [1, H, W] in [0, 1] with sky, ground, buildings, poles, people and vehicles; warm objects are bright.

    Args:
        height, width: in pixels.
        seed: the same seed gives the same scene.
        noise: standard deviation of the sensor noise.

    >>> thermal_scene(120, 160).shape
    torch.Size([1, 120, 160])
    """
    for name, value in (("height", height), ("width", width)):
        check_integer(name, value, 1)
    random = numpy.random.default_rng(seed)
    rows, columns = numpy.arange(height) / height, numpy.arange(width) / height
    grid, breadth = (rows[:, None], columns), width / height
    horizon = random.uniform(0.25, 0.5)
    scene = _background(grid, horizon, random)
    for _ in range(random.integers(2, 6)):
        _add_building(scene, grid, horizon, breadth, random)
    for _ in range(random.integers(1, 5)):
        _add_pole(scene, grid, breadth, random)
    for depth in sorted(random.uniform(0.05, 0.5, random.integers(4, 10))):  # near objects are painted over far ones
        add = _add_vehicle if random.random() < 0.4 else _add_person
        add(scene, grid, horizon + depth, depth, random.uniform(0, breadth), random)
    image = _blurred(scene, random.uniform(0.5, 0.8)) + noise * random.standard_normal(scene.shape)
    return torch.from_numpy(image.clip(0, 1).astype(numpy.float32))[None]


class SyntheticScenes:
    """A fixed number of scenes, created on first use and then cached: a source of training images."""

    def __init__(self, count: int, height: int = 256, width: int = 256, *, channels: int = 1, seed: int = 0) -> None:
        self.count, self.height, self.width, self.channels, self.seed = count, height, width, channels, seed
        self._cache: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < self.count:
            raise IndexError(f"index must be from 0 to {self.count - 1}; got {index}")
        if index not in self._cache:
            self._cache[index] = thermal_scene(self.height, self.width, seed=self.seed + index)
        return self._cache[index].expand(self.channels, -1, -1)


def _background(grid: Grid, horizon: float, random: numpy.random.Generator) -> ndarray:
    """A cold sky that gets warmer towards the horizon, and a ground with patches of all sizes."""
    rows, columns = grid
    shape = len(rows), len(columns)
    sky = random.uniform(0.05, 0.2) + random.uniform(0.05, 0.15) * (rows / horizon).clip(0, 1) ** 2
    ground = random.uniform(0.25, 0.45) + random.uniform(-0.1, 0.1) * (rows - horizon) / (1 - horizon)
    clouds = 0.02 * _field(shape, 4, random)
    patches = 0.1 * sum(_field(shape, cells, random) / math.sqrt(cells) for cells in (3, 8, 24, 72))
    tree_line = horizon + 0.03 * _field(shape, 12, random)[0]
    return numpy.where(rows < tree_line, sky + clouds, ground + patches)


def _field(shape: tuple[int, int], cells: int, random: numpy.random.Generator) -> ndarray:
    """Smooth random values; `cells` is the number of independent values along the height."""
    height, width = shape
    coarse = random.standard_normal((cells, max(2, round(cells * width / height)))).astype(numpy.float32)
    return numpy.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _paint(scene: ndarray, where: ndarray, warmth: float | ndarray) -> None:
    numpy.copyto(scene, warmth, where=where)


def _box(grid: Grid, top: float, bottom: float, left: float, right: float) -> ndarray:
    rows, columns = grid
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def _ellipse(grid: Grid, row: float, column: float, half_height: float, half_width: float) -> ndarray:
    rows, columns = grid
    return ((rows - row) / half_height) ** 2 + ((columns - column) / half_width) ** 2 < 1


def _add_building(scene: ndarray, grid: Grid, horizon: float, breadth: float, random: numpy.random.Generator) -> None:
    rows, columns = grid
    left, wide, tall = random.uniform(-0.2, breadth), random.uniform(0.15, 0.6), random.uniform(0.1, 0.35)
    wall = _box(grid, horizon - tall, horizon + random.uniform(0.02, 0.1), left, left + wide)
    _paint(scene, wall, random.uniform(0.25, 0.5) + 0.1 * (rows - horizon))
    pitch, share, warmth = random.uniform(0.03, 0.08), random.uniform(0.3, 0.6), random.uniform(0.15, 0.75)
    panes = ((columns - left) % pitch < share * pitch) & ((rows - horizon) % pitch < share * pitch)
    _paint(scene, wall & panes, warmth)


def _add_pole(scene: ndarray, grid: Grid, breadth: float, random: numpy.random.Generator) -> None:
    left, foot, tall = random.uniform(0, breadth), random.uniform(0.5, 0.8), random.uniform(0.2, 0.5)
    thick = random.uniform(0.006, 0.015)
    _paint(scene, _box(grid, foot - tall, foot, left, left + thick), random.uniform(0.2, 0.6))
    if random.random() < 0.5:
        _paint(scene, _ellipse(grid, foot - tall, left, 0.012, 0.02), random.uniform(0.7, 1.0))


def _add_person(
    scene: ndarray, grid: Grid, foot: float, depth: float, column: float, random: numpy.random.Generator
) -> None:
    tall, warmth = 0.1 + 0.5 * depth, random.uniform(0.6, 0.85)
    for side in (-1, 1):
        leg = column + side * tall * random.uniform(0.03, 0.1)
        _paint(scene, _ellipse(grid, foot - 0.25 * tall, leg, 0.26 * tall, 0.05 * tall), warmth - 0.1)
    _paint(scene, _ellipse(grid, foot - 0.63 * tall, column, 0.22 * tall, 0.12 * tall), warmth - 0.05)
    _paint(scene, _ellipse(grid, foot - 0.92 * tall, column, 0.08 * tall, 0.06 * tall), warmth + 0.12)


def _add_vehicle(
    scene: ndarray, grid: Grid, foot: float, depth: float, column: float, random: numpy.random.Generator
) -> None:
    tall = 0.06 + 0.35 * depth
    wide, body = tall * random.uniform(1.6, 2.4), random.uniform(0.3, 0.6)
    left, right = column - wide / 2, column + wide / 2
    _paint(scene, _box(grid, foot - 0.6 * tall, foot - 0.1 * tall, left, right), body)
    _paint(scene, _ellipse(grid, foot - 0.6 * tall, column, 0.4 * tall, 0.35 * wide), body - 0.05)
    _paint(scene, _box(grid, foot - 0.85 * tall, foot - 0.62 * tall, column - 0.22 * wide, column + 0.22 * wide), 0.2)
    engine = left if random.random() < 0.5 else right - 0.3 * wide
    _paint(scene, _box(grid, foot - 0.5 * tall, foot - 0.15 * tall, engine, engine + 0.3 * wide), body + 0.3)
    for side in (-0.3, 0.3):
        _paint(scene, _ellipse(grid, foot - 0.12 * tall, column + side * wide, 0.14 * tall, 0.14 * tall), 0.8)


def _blurred(scene: ndarray, deviation: float) -> ndarray:
    """The scene blurred by a Gaussian, as by a lens."""
    taps = numpy.exp(-(numpy.arange(-3, 4) ** 2) / (2 * deviation**2))
    taps /= taps.sum()
    for axis in (0, 1):
        edges = [(3, 3) if each == axis else (0, 0) for each in (0, 1)]
        windows = numpy.lib.stride_tricks.sliding_window_view(numpy.pad(scene, edges, mode="edge"), 7, axis=axis)
        scene = windows @ taps
    return scene
