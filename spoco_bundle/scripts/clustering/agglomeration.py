"""Put instances together from small regions: touching ones merge, the least evidence of a border between them first.

The evidence is the mean jump of the embeddings across all faces between the two, and with little weight between voxels
some way from each other (see `interfaces`), in units of delta_var: the average linkage that Bailoni et al., "GASP, a
generalized framework for agglomerative clustering of signed graphs", CVPR 2022, recommend. The loss asks for large
jumps at borders and small ones elsewhere (see `borders`). Where two regions hardly touch, a few faces say little, so
some more count, with the jump of a border: in the geometric mean, so that where the embeddings do not change at all a
single face is enough to join what is thin.

Only neighbours merge, so two far objects may share an embedding; and an object of which the network sees only a part
stays one while its embeddings drift from end to end. The distance between the regions' mean embeddings would cut it to
pieces: docs/ablations.md compares the two.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..arrays import Labels
from ..geometry.voxels import ForegroundVoxels
from .interfaces import Interfaces, measure_interfaces
from .regions import small_regions, typical_steps
from .sheets import give_sheets_to_neighbors

PRIOR_FACES = 2  # that are added to those of each interface
PRIOR_JUMP = 4.0  # in delta_var: as far from the inside of an object as from a border that the loss is content with
LOWEST_THRESHOLD = 2.0  # in delta_var, of those that are estimated: below it, what is thin falls to pieces
HIGHEST_THRESHOLD = 3.8  # the same: nearly half of what lies between objects
PORTION = 2**14  # interfaces that are Python's numbers, which take much memory, at once
STEP_FACTOR = 11.0  # times the lower quartile of the steps from voxel to voxel


@dataclass(frozen=True)
class Hierarchy:
    """All merges in their order."""

    regions: NDArray[np.integer]  # (*spatial), ids from 1; 0 outside the foreground
    merges: NDArray[np.int64]  # (M, 2): the second region becomes part of the first, which keeps its id
    evidence: NDArray[np.float64]  # (M,) of a border between the two, or of one merged before if that is larger

    def cut(self, threshold: float) -> NDArray[np.int32]:
        """Instance of each region, (R,), if all merges with less evidence are made: 1, 2, ..., index 0 is 0."""
        parent = np.arange(int(self.regions.max()) + 1)
        count = np.searchsorted(self.evidence, threshold)
        for first, second in self.merges[:count][::-1]:  # backwards, so that the first is settled already
            parent[second] = parent[first]
        return np.unique(parent, return_inverse=True)[1].astype(np.int32)


def agglomerate(
    embeddings: Tensor, foreground: Tensor, delta_var: float = 0.5, threshold: float | None = None
) -> Labels:
    """Cluster embeddings into spatially connected instances.

    Args:
        embeddings: (E, *spatial) float32.
        foreground: (*spatial) bool, where instances may be.
        delta_var: distance of an embedding to its object's centre that the loss allows.
        threshold: of the evidence for a border: with less, neighbours become one; None: `estimated_threshold`.

    Returns:
        (*spatial) instance map, 0 outside the foreground.
    """
    hierarchy = build_hierarchy(embeddings, foreground, delta_var, threshold)
    return give_sheets_to_neighbors(hierarchy.cut(math.inf)[hierarchy.regions], embeddings)


def estimated_threshold(voxels: ForegroundVoxels, delta_var: float) -> float:
    """How much evidence makes a border, where no annotation tells (see `calibration`).

    Networks whose embeddings change little inside objects, or jump little at borders, need a low one, those whose
    embeddings scatter a high one: docs/ablations.md has the numbers.
    """
    inside, at_borders = typical_steps(voxels)
    return min(max(LOWEST_THRESHOLD, STEP_FACTOR * inside / delta_var, at_borders / delta_var), HIGHEST_THRESHOLD)


def build_hierarchy(
    embeddings: Tensor, foreground: Tensor, delta_var: float = 0.5, limit: float | None = math.inf
) -> Hierarchy:
    """Merge all regions with less evidence than `limit` for a border between them.

    The arguments are those of `agglomerate`; limit None: `estimated_threshold`.
    """
    voxels = ForegroundVoxels(embeddings, foreground)
    if limit is None:
        limit = estimated_threshold(voxels, delta_var)
    regions = small_regions(voxels, delta_var)
    interfaces = measure_interfaces(voxels, regions)
    image = voxels.image(regions[:-1])
    del voxels, regions  # more memory than the embeddings, and merging takes its own
    return Hierarchy(image, *merge_regions(RegionGraph(interfaces, delta_var), limit))


class RegionGraph:
    """Regions that merge, and their interfaces: dicts, which are faster than arrays for single values."""

    def __init__(self, interfaces: Interfaces, delta_var: float) -> None:
        self.unit = delta_var
        columns = (*interfaces.pairs.unbind(1), *interfaces[1:])
        # for each region those around it, with the sums of the jumps and of their weights, and the number of faces
        neighbors: defaultdict[int, dict[int, tuple[float, float, int]]] = defaultdict(dict)
        for portion in zip(*(column.split(PORTION) for column in columns), strict=True):
            for first, second, jumps, weights, faces in zip(*(column.tolist() for column in portion), strict=True):
                neighbors[first][second] = neighbors[second][first] = jumps, weights, faces
        self.neighbors = dict(neighbors)  # from now on a region that is gone stays so

    def evidence(self, first: int, second: int) -> float:
        """That there is a border between two regions; infinite where they do not touch."""
        jumps, weights, faces = self.neighbors[first][second]
        if not faces:
            return math.inf
        share = faces / (faces + PRIOR_FACES)
        return (jumps / weights / self.unit) ** share * PRIOR_JUMP ** (1 - share)

    def merge(self, first: int, second: int) -> list[int]:
        """Make the second region a part of the first; returns the regions that were around the second one."""
        inherited = self.neighbors.pop(second)
        del inherited[first], self.neighbors[first][second]
        for other, (jumps, weights, faces) in inherited.items():
            del self.neighbors[other][second]
            own_jumps, own_weights, own_faces = self.neighbors[first].get(other, (0.0, 0.0, 0))
            joined = own_jumps + jumps, own_weights + weights, own_faces + faces
            self.neighbors[first][other] = self.neighbors[other][first] = joined
        return list(inherited)


def merge_regions(graph: RegionGraph, limit: float = math.inf) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Merge the pair with the least evidence again and again: `Hierarchy.merges` and `Hierarchy.evidence`."""
    pairs = ((first, second) for first, others in graph.neighbors.items() for second in others if first < second)
    queue = [(graph.evidence(*pair), *pair) for pair in pairs]
    queue = [entry for entry in queue if entry[0] < limit]
    heapq.heapify(queue)
    merges, recorded = [], []
    while queue:
        evidence, first, second = heapq.heappop(queue)
        if second not in graph.neighbors.get(first, ()) or evidence != graph.evidence(first, second):
            continue  # one of them has become part of another, or the interface has grown, and is further down
        if len(graph.neighbors[first]) < len(graph.neighbors[second]):
            first, second = second, first
        for other in graph.merge(first, second):
            if (changed := graph.evidence(first, other)) < limit:
                heapq.heappush(queue, (changed, first, other))
        merges.append((first, second))
        recorded.append(evidence)
    return np.array(merges, np.int64).reshape(-1, 2), np.maximum.accumulate(np.array(recorded, np.float64))
