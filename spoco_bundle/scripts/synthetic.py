"""Synthetic microscopy with complete truth: touching nuclei and membrane-bounded cells, in 3D and 2D.

Everything is drawn in physical space, whose unit is one (y, x) voxel; a z step is `anisotropy` units long.
The labels are made first and the image is rendered from them, so that the two can never disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import watershed

FloatArray = NDArray[np.float32]
LabelArray = NDArray[np.int32]
CountArray = NDArray[np.uint16]
Generator = np.random.Generator


@dataclass(frozen=True)
class Optics:
    """How a microscope turns a clean scene, whose bright objects are about 1, into camera counts.

    Args:
        blur: standard deviation of the point-spread function along y and x, in voxels.
        axial_blur: the same along z, in voxels; unused in 2D.
        haze: share of the light, 0 to 1, that arrives out of focus as a wide glow.
        background: brightness of empty space, in units of a bright object.
        unevenness: how much illumination and background vary over the field of view, 0 to 1.
        attenuation: share of the light, 0 to 0.99, that the deepest slice loses; unused in 2D.
        slice_jitter: standard deviation of the relative brightness of one z slice; unused in 2D.
        photons: expected number of photons from one voxel of brightness 1; fewer is noisier.
        read_noise: standard deviation of the camera's Gaussian noise, in photons.
        sectioning: only each n-th slice is recorded and those between are interpolated; unused in 2D.
        noise_blur: standard deviation, in voxels, of a smoothing after the noise, as resampling leaves it.

    Raises:
        ValueError: a setting is outside its range.
    """

    blur: float = 0.8
    axial_blur: float = 1.6
    haze: float = 0.15
    background: float = 0.06
    unevenness: float = 0.3
    attenuation: float = 0.2
    slice_jitter: float = 0.0
    photons: float = 60.0
    read_noise: float = 1.0
    sectioning: int = 1
    noise_blur: float = 0.0

    def __post_init__(self) -> None:
        positive = ("blur", "axial_blur", "background", "slice_jitter", "read_noise", "noise_blur")
        _check_ranges(vars(self), dict.fromkeys(positive, (0, np.inf)))
        _check_ranges(vars(self), {"haze": (0, 1), "unevenness": (0, 1), "attenuation": (0, 0.99)})
        _check_ranges(vars(self), {"photons": (0.01, 1e6), "sectioning": (1, np.inf)})


@dataclass(frozen=True)
class Form:
    """What objects of either kind look like.

    Args:
        size_variation: standard deviation of the logarithm of the diameter.
        elongation: up to this ratio of longest to shortest axis, at least 1.
        aligned: all objects are long in the same direction.
        irregularity: how far outlines are displaced, in radii; above 0.4 shapes become torn.
        texture: standard deviation of the logarithm of the brightness inside an object.
        texture_scale: size of a grain of this texture, in object diameters.

    Raises:
        ValueError: a setting is outside its range.
    """

    size_variation: float = 0.15
    elongation: float = 1.5
    aligned: bool = False
    irregularity: float = 0.15
    texture: float = 0.25
    texture_scale: float = 0.1

    def __post_init__(self) -> None:
        _check_ranges(vars(self), {"size_variation": (0, 1), "elongation": (1, 10), "irregularity": (0, 1)})


@dataclass(frozen=True)
class NucleusStyle(Form):
    """What nuclei look like, beside their form.

    Args:
        clumping: share of the nuclei, 0 to 1, that lie right beside another one.
        separation: width, in voxels, of what is shaved off each nucleus, so that neighbours stay apart.
        brightness_range: ratio of the brightest nucleus to the dimmest, at least 1.
        nucleoli: how dark nucleoli are, 0 (none) to 1 (black).
        rim: extra brightness of a nucleus' border; negative is a soft border.
        cytoplasm: brightness of the tissue between nuclei.
        debris: brightness of unlabelled streaks, sheets and specks.

    Raises:
        ValueError: a setting is outside its range.
    """

    clumping: float = 0.3
    separation: float = 0.0
    brightness_range: float = 4.0
    nucleoli: float = 0.3
    rim: float = 0.0
    cytoplasm: float = 0.05
    debris: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ranges(vars(self), {"clumping": (0, 1), "nucleoli": (0, 1), "brightness_range": (1, np.inf)})
        _check_ranges(vars(self), dict.fromkeys(("separation", "cytoplasm", "debris"), (0, np.inf)))
        _check_ranges(vars(self), {"rim": (-1, np.inf)})


@dataclass(frozen=True)
class TissueStyle(Form):
    """What membrane-bounded cells look like, beside their form.

    Args:
        dark_membranes: dark membranes around bright cells (electron microscopy), else bright membranes.
        gaps: share of the volume, 0 to 0.9, without cells.
        membrane_width: half width of a membrane, in voxels.
        membrane_unevenness: standard deviation of the logarithm of a membrane's brightness along it.
        interior: brightness of cells between bright membranes.
        interior_range: ratio of the brightest cell interior to the dimmest, at least 1.
        organelles: change of brightness in blobs inside cells, -1 (black) to 2 (three times as bright).

    Raises:
        ValueError: a setting is outside its range.
    """

    dark_membranes: bool = False
    gaps: float = 0.0
    membrane_width: float = 1.0
    membrane_unevenness: float = 0.3
    interior: float = 0.15
    interior_range: float = 2.0
    organelles: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ranges(vars(self), {"gaps": (0, 0.9), "interior_range": (1, np.inf), "organelles": (-1, 2)})
        _check_ranges(vars(self), {"membrane_width": (0.1, np.inf), "interior": (0, np.inf)})


def synthetic_nuclei(
    shape: tuple[int, ...],
    object_diameter: float = 16.0,
    anisotropy: float = 1.0,
    density: float = 0.5,
    seed: int = 0,
    style: NucleusStyle | None = None,
    optics: Optics | None = None,
) -> tuple[CountArray, LabelArray]:
    """Draw nuclei that touch along faces but never overlap.

    Args:
        shape: (Z, Y, X) or (Y, X), in voxels.
        object_diameter: average diameter along y and x, in voxels, at least 4.
        anisotropy: z voxel size divided by (y, x) voxel size; objects are flatter in z voxels by it.
        density: 0 (few, apart) to 1 (crowded, nearly all touch).
        seed: the same seed draws the same image.
        style: what nuclei look like.
        optics: what the microscope does to them.

    Returns:
        image: camera counts, offset 100, about 1000 more for the brightest nuclei.
        labels: 0 is background; 1..N are nuclei, each one connected component.

    Raises:
        ValueError: shape, diameter, anisotropy or density is outside its range.
    """
    _check_scene(shape, object_diameter, anisotropy)
    _check_ranges({"density": density}, {"density": (0, 1)})
    style, optics = style or NucleusStyle(), optics or Optics()
    rng = np.random.default_rng(seed)
    spacing = max(0.65, 1.2 - 0.5 * density - 0.25 * style.clumping)  # below 1, neighbours touch
    coverage = 0.04 + 0.7 * density
    owner = _place(
        rng, shape, object_diameter, anisotropy, style, spacing, coverage, reach=1.0, clumping=style.clumping
    )
    smallest = _smallest(len(shape), object_diameter, anisotropy)
    if style.separation > 0:
        owner[_depth(owner, anisotropy) <= style.separation] = 0
    labels = _largest_pieces(owner, smallest)
    scene = _paint_nuclei(rng, labels, object_diameter, anisotropy, style)
    return _observe(rng, scene, optics, object_diameter, anisotropy), labels


def synthetic_membranes(
    shape: tuple[int, ...],
    cell_diameter: float = 16.0,
    anisotropy: float = 1.0,
    seed: int = 0,
    style: TissueStyle | None = None,
    optics: Optics | None = None,
) -> tuple[CountArray, LabelArray]:
    """Draw dense tissue: cells that share bright or dark membranes.

    Args:
        shape: (Z, Y, X) or (Y, X), in voxels.
        cell_diameter: average diameter along y and x, in voxels, at least 4.
        anisotropy: z voxel size divided by (y, x) voxel size; cells are flatter in z voxels by it.
        seed: the same seed draws the same image.
        style: what cells look like.
        optics: what the microscope does to them.

    Returns:
        image: camera counts, offset 100, about 1000 more for the brightest structures.
        labels: 1..N are cells up to the middle of their membranes, each one connected component; 0 is in gaps
            of the tissue only.

    Raises:
        ValueError: shape, diameter or anisotropy is outside its range.
    """
    _check_scene(shape, cell_diameter, anisotropy)
    style, optics = style or TissueStyle(), optics or Optics()
    rng = np.random.default_rng(seed)
    owner = _place(rng, shape, cell_diameter, anisotropy, style, spacing=0.75, coverage=1.2, reach=1.8)
    tissue = _cells_outside_gaps(rng, owner, cell_diameter, anisotropy, style.gaps)
    pieces = _largest_pieces(np.where(tissue, owner, 0), _smallest(len(shape), cell_diameter, anisotropy))
    # Flooding, unlike the nearest label, hands chips to neighbours without ever cutting a cell in two.
    labels = watershed(np.zeros(shape, np.uint8), pieces, mask=tissue).astype(np.int32)
    scene = _paint_tissue(rng, labels, cell_diameter, anisotropy, style)
    return _observe(rng, scene, optics, cell_diameter, anisotropy), labels


def random_sample(shape: tuple[int, ...], seed: int) -> tuple[FloatArray, LabelArray]:
    """Draw nuclei (60 %) or cells (40 %) with settings over wide ranges, to pre-train a network.

    Args:
        shape: (Z, Y, X) or (Y, X), in voxels. Mean diameters are 10 to 28 voxels along y
            and x, and along z 0.65 to 1.5 times less.
        seed: the same seed draws the same sample.

    Returns:
        image: the range from the 1st to the 99.8th percentile is 0 to 1; clipped at 1.5.
        labels: as those of `synthetic_nuclei` and `synthetic_membranes`, with at least one object, unless
            ten draws found none because `shape` is too small.

    Raises:
        ValueError: shape is not (Z, Y, X) or (Y, X) with positive sizes.
    """
    _check_scene(shape, 10.0, 1.0)
    rng = np.random.default_rng(seed)
    for _ in range(10):  # a small patch of a sparse scene can miss all its objects
        image, labels = _random_scene(rng, shape)
        if labels.any():
            break
    return image, labels


def _random_scene(rng: Generator, shape: tuple[int, ...]) -> tuple[FloatArray, LabelArray]:
    diameter = _log_uniform(rng, 10, 28)
    anisotropy = _log_uniform(rng, 0.65, 1.5) if len(shape) == 3 else 1.0
    scene_seed = int(rng.integers(2**31))
    if rng.random() < 0.6:
        optics = _random_optics(rng, diameter, anisotropy, fewest_photons=8)
        style = _random_nuclei(rng, diameter)
        density = rng.uniform(0.15, 1)
        image, labels = synthetic_nuclei(shape, diameter, anisotropy, density, scene_seed, style, optics)
        gamma, inverted = _log_uniform(rng, 0.6, 1.6), bool(rng.random() < 0.05)
    else:
        tissue = _random_tissue(rng)
        optics = _random_optics(rng, diameter, anisotropy, fewest_photons=30)
        if tissue.dark_membranes and rng.random() < 0.8:  # electron microscopy: sharp, nothing out of focus
            optics = replace(optics, haze=0.0, attenuation=0.0, blur=rng.uniform(0.3, 1.0), sectioning=1)
            optics = replace(optics, axial_blur=optics.blur * rng.uniform(0.8, 2.0), background=0.05)
        image, labels = synthetic_membranes(shape, diameter, anisotropy, scene_seed, tissue, optics)
        gamma, inverted = _log_uniform(rng, 0.5, 1.2 if tissue.dark_membranes else 1.6), False
    return _develop(image, gamma, inverted), labels


def _random_form(rng: Generator) -> dict[str, Any]:
    return {
        "size_variation": rng.uniform(0.05, 0.35),
        "irregularity": rng.uniform(0.03, 0.25),
        "texture": rng.uniform(0.0, 0.5),
        "texture_scale": rng.uniform(0.03, 0.2),
        "aligned": bool(rng.random() < 0.3),
    }


def _random_nuclei(rng: Generator, diameter: float) -> NucleusStyle:
    brightness_range = rng.uniform(1.2, 5.0)
    return NucleusStyle(
        **_random_form(rng),
        elongation=rng.uniform(1.0, 2.2),
        clumping=rng.uniform(0, 1),
        separation=diameter * max(0.0, rng.uniform(-0.08, 0.06)),
        brightness_range=brightness_range,
        nucleoli=max(0.0, rng.uniform(-0.8, 0.9)),
        rim=max(-0.5, rng.uniform(-1.5, 0.8)),
        cytoplasm=max(0.0, rng.uniform(-0.5, 0.7)) / brightness_range**0.8,  # dim nuclei must not drown in it
        debris=max(0.0, rng.uniform(-2.0, 2.0)),
    )


def _random_tissue(rng: Generator) -> TissueStyle:
    form = _random_form(rng)
    dark = bool(rng.random() < 0.5)
    if rng.random() < 0.5:  # neurites: thin beside thick, bent, long
        form["size_variation"], form["irregularity"] = rng.uniform(0.3, 0.45), rng.uniform(0.15, 0.4)
    return TissueStyle(
        **form,
        elongation=rng.uniform(1.0, 3.5),
        dark_membranes=dark,
        gaps=max(0.0, rng.uniform(-0.8, 0.5)),
        membrane_width=rng.uniform(0.7, 2.0),
        membrane_unevenness=rng.uniform(0, 0.6),
        interior=rng.uniform(0.0, 0.4),
        interior_range=rng.uniform(1.1, 2.5 if dark else 5.0),
        organelles=max(-0.9, rng.uniform(-1.5, 0.3)) if dark else max(0.0, rng.uniform(-1.0, 1.5)),
    )


def _random_optics(rng: Generator, diameter: float, anisotropy: float, fewest_photons: float) -> Optics:
    """Draw a microscope that is poor, but not so poor for objects of this size that nobody could see them."""
    photons = _log_uniform(rng, fewest_photons * max(1.0, 20 / diameter) ** 1.5, 400)
    return Optics(
        blur=rng.uniform(0.3, 0.08 * diameter),
        axial_blur=_log_uniform(rng, 0.4, 0.2 * diameter / anisotropy),
        haze=rng.uniform(0, 0.4),
        background=_log_uniform(rng, 0.01, 0.3),
        unevenness=rng.uniform(0, 0.6),
        attenuation=rng.uniform(0, 0.6),
        slice_jitter=max(0.0, rng.uniform(-0.1, 0.06)),
        photons=photons,
        read_noise=rng.uniform(0, 0.4) * np.sqrt(photons),
        sectioning=int(rng.choice([1, 1, 1, 1, 2, 2, 3])),
        noise_blur=max(0.0, rng.uniform(-0.8, 0.8)),
    )


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _develop(image: CountArray, gamma: float, inverted: bool) -> FloatArray:
    """Scale the range from the 1st to the 99.8th percentile to 0..1 and apply the gamma curve."""
    low, high = np.percentile(image, [1.0, 99.8])
    scaled = np.clip((image.astype(np.float32) - low) / max(high - low, 1.0), 0, 1.5) ** gamma
    return (1 - scaled if inverted else scaled).astype(np.float32)


def _check_scene(shape: tuple[int, ...], diameter: float, anisotropy: float) -> None:
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"shape must be (Z, Y, X) or (Y, X) with positive sizes, got {shape}.")
    _check_ranges({"diameter": diameter, "anisotropy": anisotropy}, {"diameter": (4, 1e4)})
    _check_ranges({"anisotropy": anisotropy}, {"anisotropy": (0.05, 50)})


def _check_ranges(values: dict[str, Any], ranges: dict[str, tuple[float, float]]) -> None:
    for name, (low, high) in ranges.items():
        if not low <= values[name] <= high:
            raise ValueError(f"{name} must be between {low} and {high}, got {values[name]}.")


def _steps(ndim: int, anisotropy: float) -> FloatArray:
    """Return the physical size of a voxel along each axis."""
    return np.array([anisotropy, 1.0, 1.0][-ndim:], np.float32)


def _smallest(ndim: int, diameter: float, anisotropy: float) -> int:
    """Return the fewest voxels an object may keep: 6 % of an average one; less is a chip, not an object."""
    volume = (np.pi / 4 if ndim == 2 else np.pi / 6 / anisotropy) * diameter**ndim
    return max(8, round(0.06 * volume))


def _separable(field: FloatArray, matrices: list[FloatArray]) -> FloatArray:
    """Multiply each axis by its matrix; a full matrix per axis is faster here than a sliding filter."""
    for matrix in matrices:
        field = np.tensordot(field, matrix, axes=(0, 1))  # takes the first axis away, appends it last
    return field


def _kernel(positions: NDArray[Any], knots: NDArray[Any], sigma: float) -> FloatArray:
    weights = np.exp(-0.5 * ((positions[:, None] - knots[None, :]) / sigma) ** 2)
    weights[weights < 1e-6] = 0  # denormal numbers would slow the product down several times
    return weights.astype(np.float32)


def _noise(rng: Generator, shape: tuple[int, ...], scale: float, anisotropy: float = 1.0) -> FloatArray:
    """Draw smooth noise of mean 0 and variance 1 that varies over `scale` physical units."""
    matrices = []
    for size, step in zip(shape, _steps(len(shape), anisotropy), strict=True):
        knots = np.arange(-2 * scale, size * step + 3 * scale, scale)
        matrix = _kernel(np.arange(size) * step, knots, 0.8 * scale)
        matrices.append(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))
    white = rng.standard_normal([matrix.shape[1] for matrix in matrices], dtype=np.float32)
    return _separable(white, matrices)


def _blur(image: FloatArray, sigmas: list[float]) -> FloatArray:
    """Blur with a Gaussian; at the border its weights are normalised to what lies inside."""
    matrices = []
    for size, sigma in zip(image.shape, sigmas, strict=True):
        positions = np.arange(size)
        matrix = _kernel(positions, positions, max(sigma, 1e-2))
        matrices.append(matrix / matrix.sum(axis=1, keepdims=True))
    return _separable(image, matrices)


def _place(
    rng: Generator,
    shape: tuple[int, ...],
    diameter: float,
    anisotropy: float,
    form: Form,
    spacing: float,
    coverage: float,
    reach: float,
    clumping: float = 0.0,
) -> LabelArray:
    """Scatter objects and share out the voxels among them."""
    steps = _steps(len(shape), anisotropy)
    extent = steps * np.array(shape, np.float32)
    radius = diameter / 2
    centres, radii = _scatter(rng, extent, radius, form.size_variation, spacing, coverage, clumping)
    metrics = _ellipsoids(rng, radii, len(shape), form)
    warp = [_noise(rng, shape, 0.5 * diameter, anisotropy) for _ in shape]
    return _partition(form.irregularity * radius * np.stack(warp), centres, metrics, steps, reach)


def _cells_outside_gaps(
    rng: Generator, owner: LabelArray, diameter: float, anisotropy: float, gaps: float
) -> NDArray[np.bool_]:
    """Return where tissue is: gaps take whole cells, so that their outline is that of cells."""
    if gaps == 0:
        return np.ones(owner.shape, bool)
    field = _noise(rng, owner.shape, 1.5 * diameter, anisotropy)
    solid = np.bincount(owner.ravel(), weights=(field > np.quantile(field, gaps)).ravel())
    kept = solid >= 0.5 * np.bincount(owner.ravel())
    kept[0] = True  # voxels out of every cell's reach are flooded later
    return kept[owner]


def _paint_nuclei(
    rng: Generator, labels: LabelArray, diameter: float, anisotropy: float, style: NucleusStyle
) -> FloatArray:
    def noise(scale: float) -> FloatArray:
        return _noise(rng, labels.shape, max(0.7, scale * diameter), anisotropy)

    depth = _depth(labels, anisotropy)
    brightness = _brightness(rng, labels.max(), style.brightness_range)
    scene = brightness[labels] * np.exp(style.texture * noise(style.texture_scale))
    if style.nucleoli > 0:
        scene[(noise(0.12) > 1.3) & (depth > 0.12 * diameter)] *= 1 - style.nucleoli
    if style.rim != 0:
        scene *= 1 + style.rim * np.exp(-((depth / (0.1 * diameter)) ** 2))
    empty = labels == 0
    if style.cytoplasm > 0:
        tissue = 1 / (1 + np.exp(-3 * noise(1.0)))
        scene += empty * style.cytoplasm * tissue * np.exp(style.texture * noise(style.texture_scale))
    if style.debris > 0:
        # The zero level of smooth noise is a curved sheet (a line in 2D); a second noise keeps a few patches.
        sheets = np.exp(-((noise(1.0) * diameter / 2) ** 2)) * (noise(1.0) > 1.2)
        scene += empty * style.debris * np.maximum(sheets, noise(0.08) > 3.3)
    return scene


def _paint_tissue(
    rng: Generator, labels: LabelArray, diameter: float, anisotropy: float, style: TissueStyle
) -> FloatArray:
    def noise(scale: float) -> FloatArray:
        return _noise(rng, labels.shape, max(0.7, scale * diameter), anisotropy)

    depth = _depth(labels, anisotropy)
    membrane = np.exp(-((depth / style.membrane_width) ** 2))
    inside = _brightness(rng, labels.max(), style.interior_range)[labels]
    inside *= np.exp(style.texture * noise(style.texture_scale))
    if style.organelles != 0:
        inside *= 1 + style.organelles * np.clip(4 * (noise(0.25) - 1.2), 0, 1) * (depth > 2)
    unevenness = np.exp(style.membrane_unevenness * noise(0.5))
    if style.dark_membranes:
        return inside * (1 - membrane * np.minimum(unevenness, 1))
    return membrane * unevenness + style.interior * inside


def _brightness(rng: Generator, count: int, ratio: float) -> FloatArray:
    """Draw one brightness per label, at most 1 and at least 1 / ratio; background has 0."""
    brightness = np.exp(-rng.uniform(0, np.log(ratio), count + 1)).astype(np.float32)
    brightness[0] = 0
    return brightness


def _scatter(
    rng: Generator,
    extent: FloatArray,
    radius: float,
    size_variation: float,
    spacing: float,
    coverage: float,
    clumping: float,
) -> tuple[FloatArray, FloatArray]:
    """Scatter centres, also beyond the border, that keep `spacing` times the sum of their radii apart."""
    ndim = len(extent)
    margin = 1.5 * radius
    unit_volume = (np.pi if ndim == 2 else 4 / 3 * np.pi) * radius**ndim
    wanted = max(1, round(coverage * float(np.prod(extent + 2 * margin)) / unit_volume))
    attempts = 6 * wanted
    radii = (radius * np.exp(size_variation * rng.standard_normal(attempts).clip(-2, 2))).astype(np.float32)
    proposals = rng.uniform(-margin, extent + margin, (attempts, ndim)).astype(np.float32)
    directions = rng.standard_normal((attempts, ndim)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    beside = rng.random(attempts) < clumping
    centres = np.empty((wanted, ndim), np.float32)
    kept = np.empty(wanted, np.float32)
    count = 0
    for proposal, direction, size, join in zip(proposals, directions, radii, beside, strict=True):
        if join and count:
            partner = rng.integers(count)
            proposal = centres[partner] + direction * 1.02 * spacing * (size + kept[partner])
        gap = centres[:count] - proposal
        if ((gap**2).sum(1) < (spacing * (kept[:count] + size)) ** 2).any():
            continue
        centres[count], kept[count] = proposal, size
        count += 1
        if count == wanted:
            break
    return centres[:count], kept[:count]


def _ellipsoids(rng: Generator, radii: FloatArray, ndim: int, form: Form) -> FloatArray:
    """Return for each object the matrix that maps its ellipsoid, as large as its ball, to the unit ball."""
    stretch = rng.uniform(-0.5, 0.5, (len(radii), ndim)) * np.log(form.elongation)
    stretch -= stretch.mean(axis=1, keepdims=True)
    rotations = np.linalg.qr(rng.standard_normal((len(radii), ndim, ndim)))[0]
    if form.aligned:
        stretch.sort(axis=1)
        rotations[:] = rotations[:1]
    axes = radii[:, None] * np.exp(stretch)
    return (np.swapaxes(rotations, 1, 2) / axes[:, :, None]).astype(np.float32)


def _partition(
    warp: FloatArray, centres: FloatArray, metrics: FloatArray, steps: FloatArray, reach: float
) -> LabelArray:
    """Give each voxel, displaced by `warp`, to the object whose own metric finds it nearest.

    Returns 1..N, and 0 where no object is within `reach` of its own radius.
    """
    shape = warp.shape[1:]
    axes = [np.arange(size, dtype=np.float32) * step for size, step in zip(shape, steps, strict=True)]
    positions = warp + np.stack(np.meshgrid(*axes, indexing="ij"))
    half_boxes = reach * np.linalg.norm(np.linalg.inv(metrics), axis=2) + np.abs(warp).max()
    nearest = np.full(shape, reach**2, np.float32)
    owner = np.zeros(shape, np.int32)
    for index, (centre, metric, half) in enumerate(zip(centres, metrics, half_boxes, strict=True), start=1):
        low = np.maximum((centre - half) // steps, 0).astype(int)
        high = np.minimum((centre + half) // steps + 2, shape).astype(int)
        if (low >= high).any():
            continue
        box = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
        inside = positions[(slice(None), *box)]
        offsets = metric @ inside.reshape(len(shape), -1) - (metric @ centre)[:, None]  # (ndim, voxels)
        distance = np.einsum("dv,dv->v", offsets, offsets).reshape(inside.shape[1:])
        closer = distance < nearest[box]
        np.copyto(nearest[box], distance, where=closer)
        np.copyto(owner[box], index, where=closer)
    return owner


def _largest_pieces(owner: LabelArray, smallest: int) -> LabelArray:
    """Keep of each object its largest connected piece, if it has `smallest` voxels, and number from 1."""
    pieces = cc3d.connected_components(owner, connectivity=6 if owner.ndim == 3 else 4)
    sizes = np.bincount(pieces.ravel())
    objects = np.zeros(len(sizes), np.int64)
    objects[pieces.ravel()] = owner.ravel()  # the object that each piece belongs to
    order = np.lexsort((sizes, objects))
    is_largest = np.append(np.diff(objects[order]) != 0, True)
    kept = order[is_largest]
    kept = kept[(objects[kept] > 0) & (sizes[kept] >= smallest)]
    numbers = np.zeros(len(sizes), np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[pieces]


def _depth(labels: LabelArray, anisotropy: float) -> FloatArray:
    """Return each voxel's physical distance to the border of its object."""
    edge = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        moved = np.moveaxis(edge, axis, 0)
        differs = np.diff(np.moveaxis(labels, axis, 0), axis=0) != 0
        moved[1:] |= differs
        moved[:-1] |= differs
    if not edge.any():
        return np.full(labels.shape, np.inf, np.float32)
    distance = distance_transform_edt(~edge, sampling=_steps(labels.ndim, anisotropy))
    return distance.astype(np.float32) + 0.5


def _observe(
    rng: Generator, scene: FloatArray, optics: Optics, diameter: float, anisotropy: float
) -> NDArray[np.uint16]:
    """Image the scene: illumination, blur, haze, attenuation, photon and camera noise."""
    shape, ndim = scene.shape, scene.ndim
    wide = float(max(shape)) / 2
    light = np.exp(optics.unevenness * 0.5 * _noise(rng, shape, wide, anisotropy))
    sharp = _blur(scene, [optics.axial_blur, optics.blur, optics.blur][-ndim:])
    glow = _blur(scene, list(1.0 * diameter / _steps(ndim, anisotropy)))
    floor = optics.background * np.exp(optics.unevenness * _noise(rng, shape, 2 * diameter, anisotropy))
    image = light * ((1 - optics.haze) * sharp + optics.haze * glow + floor)
    if ndim == 3:
        decay = np.linspace(0, np.log(1 - min(optics.attenuation, 0.99)), shape[0])
        jitter = optics.slice_jitter * rng.standard_normal(shape[0])
        image *= np.exp(decay + jitter).astype(np.float32)[:, None, None]
    counts = rng.poisson(optics.photons * image).astype(np.float32)
    counts += optics.read_noise * rng.standard_normal(shape, dtype=np.float32)
    if ndim == 3 and optics.sectioning > 1:
        counts = _resection(counts, optics.sectioning)
    if optics.noise_blur > 0:
        counts = _blur(counts, [optics.noise_blur] * ndim)
    # 100 is a usual camera offset; 1000 levels for brightness 1 leave room for the brightest voxels.
    return np.clip(np.rint(100 + 1000 / optics.photons * counts), 0, 65535).astype(np.uint16)


def _resection(image: FloatArray, step: int) -> FloatArray:
    """Keep each `step`-th slice and interpolate those between, as resampling to cubic voxels does."""
    size = image.shape[0]
    knots = np.arange(0, size, step)
    matrix = np.clip(1 - np.abs(np.arange(size)[:, None] - knots[None, :]) / step, 0, None)
    matrix /= matrix.sum(axis=1, keepdims=True)  # slices past the last recorded one repeat it
    return np.tensordot(matrix.astype(np.float32), image[knots], 1)
