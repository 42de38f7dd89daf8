"""Small folders in the layouts of the paper's benchmarks, CVPPP and Cityscapes, which may not be passed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# ---------------------------------------------------------------------------------------------------- CVPPP


def write_plants(folder: Path, numbers: range, shape: tuple[int, int] = (80, 72)) -> Path:
    """Write plantXXX_rgb.png (with an alpha channel), plantXXX_label.png (palette) and plantXXX_fg.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        image, labels = plant(shape, leaves=4 + number % 3, seed=number)
        name = f"plant{number:03}"
        alpha = np.full((*shape, 1), 255, np.uint8)
        Image.fromarray(np.concatenate([image, alpha], axis=-1)).save(folder / f"{name}_rgb.png")
        palette_image(labels).save(folder / f"{name}_label.png")
        Image.fromarray((labels > 0).astype(np.uint8) * 255).save(folder / f"{name}_fg.png")
    return folder


def plant(shape: tuple[int, int], leaves: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A rosette: RGB image (Y, X, 3), and its leaves 1..N, which touch in the middle."""
    random = np.random.default_rng(seed)
    y, x = np.indices(shape) - (np.array(shape) / 2).reshape(2, 1, 1)
    labels = np.zeros(shape, np.uint8)
    for leaf, angle in enumerate(np.linspace(0, 2 * np.pi, leaves, endpoint=False) + random.uniform(0, 6), start=1):
        along, across = y * np.sin(angle) + x * np.cos(angle), y * np.cos(angle) - x * np.sin(angle)
        labels[((along - 16) / 15) ** 2 + (across / 8) ** 2 < 1] = leaf
    brightness = random.uniform(0.7, 1.0, leaves + 1)[labels][..., None]
    colour = np.where(labels[..., None] > 0, [60, 160, 50], [90, 70, 60]) * brightness
    return np.clip(colour + random.normal(0, 8, (*shape, 3)), 0, 255).astype(np.uint8), labels


def palette_image(indices: NDArray[np.uint8]) -> Image.Image:
    """A PNG whose pixels are places in a list of colours; no colour is as large as its place."""
    image = Image.fromarray(indices, mode="L")
    image.putpalette([255 - place // 3 for place in range(768)])
    return image


# ----------------------------------------------------------------------------------------------- Cityscapes

PERSON, CAR, BUILDING = 24, 26, 11


def write_cities(folder: Path, split: str, cities: dict[str, int], shape: tuple[int, int] = (64, 128)) -> Path:
    """Write leftImg8bit/SPLIT/CITY/*.png and gtFine/SPLIT/CITY/*.png with so many frames a city."""
    for city, frames in cities.items():
        for name in ("leftImg8bit", "gtFine"):
            (folder / name / split / city).mkdir(parents=True, exist_ok=True)
        for frame in range(frames):
            image, ids = street(shape, seed=len(city) * 100 + frame)
            name = f"{city}_000000_{frame:06}"
            truth = folder / "gtFine" / split / city / f"{name}_gtFine"
            Image.fromarray(image).save(folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
            Image.fromarray(ids).save(f"{truth}_instanceIds.png")
            classes = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
            Image.fromarray(classes).save(f"{truth}_labelIds.png")
            palette_image(classes).save(f"{truth}_color.png")
            Path(f"{truth}_polygons.json").write_text("{}", encoding="utf-8")
    return folder


def street(shape: tuple[int, int], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """RGB image (Y, X, 3) and instance ids: two cars that touch, two persons, and a crowd of persons."""
    random = np.random.default_rng(seed)
    ids = np.full(shape, BUILDING, np.uint16)
    boxes = {26000: (20, 10, 18, 22), 26001: (20, 32, 18, 24), 24000: (8, 70, 30, 10), 24001: (12, 84, 28, 10)}
    for id_, (top, left, height, width) in {**boxes, PERSON: (10, 100, 20, 24)}.items():
        top, left = top + random.integers(0, 8), left + 2 * (seed % 2)
        ids[top : top + height, left : left + width] = id_
    colours = {BUILDING: (70, 70, 70), PERSON: (200, 60, 60), 24000: (220, 50, 60), 24001: (150, 80, 40)}
    colours |= {26000: (40, 60, 200), 26001: (60, 140, 220)}
    image = np.zeros((*shape, 3))
    for id_, colour in colours.items():
        image[ids == id_] = colour
    return np.clip(image + random.normal(0, 10, image.shape), 0, 255).astype(np.uint8), ids
