"""Put instances together from small regions: touching ones merge, the least evidence of a border between them first.

What tells a border from a place inside an object, where embeddings may drift or scatter, too? Two things, measured in
units of what is usual, and multiplied:

- the contrast of the interface: how far embeddings jump there, over how far they change inside the two regions;
- the spread of the two regions: the distance of their mean embeddings, over that of their positions, from which
  embeddings start (see `coordinates.add_positions`). The network draws an object together and parts its neighbours.

Only neighbours merge, so two far objects may share an embedding. A mean distance alone, with a fixed threshold, cuts
what is large or long into pieces: docs/clustering.md compares the two.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .interfaces import Interfaces, measure_interfaces
from .regions import region_sums, small_regions
from .voxels import ForegroundVoxels

Labels = NDArray[np.int32]

QUIET = 0.8  # in delta_var, a change inside regions below it counts as this much
CLOSE = 2.0  # in delta_var, added to the distance of positions
CLOSEST = 5.0  # in delta_var, of their sum: near or without positions, embeddings 8 apart (2 delta_dist) are far
PRIOR_FACES = 3  # as many faces of the usual change are added to each region's, as small ones have few or none
MERGE_THRESHOLD = 0.85  # of the evidence, where no annotation tells a better one (see `calibration`)


@dataclass(frozen=True)
class Hierarchy:
    """All merges in their order."""

    regions: NDArray[np.integer]  # of voxels in any shape, ids from 1; 0 is none
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
    embeddings: Tensor,
    foreground: Tensor,
    delta_var: float = 0.5,
    position_scale: float = 0.0,
    threshold: float = MERGE_THRESHOLD,
) -> Labels:
    """Cluster embeddings into spatially connected instances.

    Args:
        embeddings: (E, *spatial) float32.
        foreground: (*spatial) bool, where instances may be.
        delta_var: distance of an embedding to its object's centre that the loss allows.
        position_scale: of the positions in the embeddings; 0 without.
        threshold: of the evidence for a border: with less, neighbours become one.

    Returns:
        (*spatial) instance map, 0 outside the foreground.
    """
    voxels = ForegroundVoxels(embeddings, foreground)
    hierarchy = build_hierarchy(voxels, delta_var, position_scale, threshold)
    instances = torch.from_numpy(hierarchy.cut(threshold)[hierarchy.regions]).to(embeddings.device)
    return voxels.image(settle_borders(instances, voxels).int())


def build_hierarchy(
    voxels: ForegroundVoxels, delta_var: float = 0.5, position_scale: float = 0.0, limit: float = math.inf
) -> Hierarchy:
    """Merge all regions with less evidence than `limit` for a border between them; the rest as for `agglomerate`.

    The regions of the result are (N,).
    """
    regions = small_regions(voxels)
    graph = RegionGraph(voxels, regions, delta_var, position_scale)
    merges, evidence = merge_regions(graph, limit)
    return Hierarchy(regions.cpu().numpy(), merges, evidence)


class RegionGraph:
    """Regions that merge, and their interfaces: lists and dicts, which are faster than arrays for single values."""

    def __init__(self, voxels: ForegroundVoxels, regions: Tensor, delta_var: float, position_scale: float) -> None:
        self.unit = delta_var
        count = int(regions.max()) + 1
        sizes = torch.bincount(regions, minlength=count)
        interfaces = measure_interfaces(voxels, regions)
        usual = interfaces.inner_jumps.sum() / interfaces.inner_faces.sum().clamp_min(1)
        self.sizes = sizes.tolist()
        self.means = (region_sums(regions, voxels.vectors[:-1].T, count) / sizes.clamp_min(1)[:, None]).tolist()
        coordinates = (voxels.coordinates(axis) for axis in range(voxels.foreground.ndim))
        centers = region_sums(regions, coordinates, count) / sizes.clamp_min(1)[:, None]
        self.positions = (position_scale * centers).tolist()
        self.inner_jumps = (interfaces.inner_jumps + PRIOR_FACES * usual).tolist()
        self.inner_faces = (interfaces.inner_faces + PRIOR_FACES).tolist()
        self.changes = [jumps / faces for jumps, faces in zip(self.inner_jumps, self.inner_faces, strict=True)]
        self.neighbors = _neighbors(interfaces, count)

    def evidence(self, first: int, second: int) -> float:
        """That there is a border between two regions that touch."""
        jumps, faces = self.neighbors[first][second]
        inside = (self.changes[first] + self.changes[second]) / 2
        contrast = jumps / faces / max(inside, QUIET * self.unit)
        apart = math.dist(self.positions[first], self.positions[second])
        embedded = math.dist(self.means[first], self.means[second])
        return contrast * embedded / max(apart + CLOSE * self.unit, CLOSEST * self.unit)

    def merge(self, first: int, second: int) -> list[int]:
        """Make the second region a part of the first; returns the regions that the second one touched."""
        share = self.sizes[second] / (self.sizes[first] + self.sizes[second])
        for table in (self.means, self.positions):
            table[first] = [a + share * (b - a) for a, b in zip(table[first], table[second], strict=True)]
        self.sizes[first] += self.sizes[second]
        jumps, faces = self.neighbors[first].pop(second)
        self.inner_jumps[first] += self.inner_jumps[second] + jumps
        self.inner_faces[first] += self.inner_faces[second] + faces
        self.changes[first] = self.inner_jumps[first] / self.inner_faces[first]
        inherited, self.neighbors[second] = self.neighbors[second], {}
        del inherited[first]
        for other, (jumps, faces) in inherited.items():
            del self.neighbors[other][second]
            own_jumps, own_faces = self.neighbors[first].get(other, (0.0, 0))
            joined = own_jumps + jumps, own_faces + faces
            self.neighbors[first][other] = self.neighbors[other][first] = joined
        return list(inherited)


def _neighbors(interfaces: Interfaces, regions: int) -> list[dict[int, tuple[float, int]]]:
    """For each region the regions that it touches, with the sum of the jumps and the number of faces between them."""
    neighbors: list[dict[int, tuple[float, int]]] = [{} for _ in range(regions)]
    columns = (column.tolist() for column in (*interfaces.pairs.unbind(1), interfaces.jumps, interfaces.faces))
    for first, second, jumps, faces in zip(*columns, strict=True):
        neighbors[first][second] = neighbors[second][first] = jumps, faces
    return neighbors


def merge_regions(graph: RegionGraph, limit: float = math.inf) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Merge the pair with the least evidence again and again: `Hierarchy.merges` and `Hierarchy.evidence`.

    A pair's evidence is looked up when its turn comes, and the pair is put back if it has grown since. That it has
    shrunk is noticed only then, too: the price for a time that does not grow with a region's neighbours.
    """
    pairs = ((first, second) for first, others in enumerate(graph.neighbors) for second in others if first < second)
    queue = [(graph.evidence(*pair), *pair) for pair in pairs]
    queue = [entry for entry in queue if entry[0] < limit]
    heapq.heapify(queue)
    merges, recorded = [], []
    while queue:
        record, first, second = heapq.heappop(queue)
        if second not in graph.neighbors[first]:  # one of them has become part of another
            continue
        now = graph.evidence(first, second)
        if now > record + 1e-12:
            if now < limit:
                heapq.heappush(queue, (now, first, second))
            continue
        if len(graph.neighbors[first]) < len(graph.neighbors[second]):
            first, second = second, first
        for other in graph.merge(first, second):
            if (evidence := graph.evidence(first, other)) < limit:
                heapq.heappush(queue, (evidence, first, other))
        merges.append((first, second))
        recorded.append(record)
    return np.array(merges, np.int64).reshape(-1, 2), np.maximum.accumulate(np.array(recorded, np.float64))


def settle_borders(instances: Tensor, voxels: ForegroundVoxels, rounds: int = 3) -> Tensor:
    """Give voxels at a border to the one of the instances they touch whose mean embedding is nearest.

    Args:
        instances: of each voxel, (N,) ids from 1.
        voxels: of the foreground.
        rounds: at most so many; a voxel can move on by one in each.

    Returns:
        (N,).
    """
    count = int(instances.max()) + 1
    vectors = voxels.vectors
    sizes = torch.bincount(instances, minlength=count)
    sums = region_sums(instances, vectors[:-1].T, count)
    padded = torch.cat([instances, instances.new_zeros(1)])  # outside is 0
    neighbors = [*voxels.before, *voxels.after]  # (N + 1,) each
    voxel = torch.arange(voxels.count, dtype=voxels.after.dtype, device=instances.device)
    for _ in range(rounds):
        voxel = voxel[_at_border(padded, neighbors, voxel)]
        means = (sums / sizes.clamp_min(1)[:, None]).float()
        own = padded.index_select(0, voxel)
        moving = vectors.index_select(0, voxel)
        choice, gaps = own, _gaps(moving, means.index_select(0, own))
        for others in neighbors:
            other = padded.index_select(0, others.index_select(0, voxel))
            nearer = torch.where(other > 0, _gaps(moving, means.index_select(0, other)), torch.inf)
            choice = torch.where(nearer < gaps, other, choice)
            gaps = torch.minimum(nearer, gaps)
        moved = choice != own
        voxel, moving, source, target = voxel[moved], moving[moved], own[moved], choice[moved]
        sizes += torch.bincount(target, minlength=count) - torch.bincount(source, minlength=count)
        sums += region_sums(target, moving.T, count) - region_sums(source, moving.T, count)
        padded[voxel] = target
        around = torch.cat(
            [voxel, *(others.index_select(0, voxel) for others in neighbors)]
        ).unique()  # only there can more move
        voxel = around[around < voxels.count]
    return padded[:-1]


def _at_border(instances: Tensor, neighbors: list[Tensor], voxel: Tensor) -> Tensor:
    """Which of the voxels touch another instance, and not only the background: (M,) -> (M,) bool."""
    own = instances.index_select(0, voxel)
    border = torch.zeros_like(own, dtype=torch.bool)
    for others in neighbors:
        other = instances.index_select(0, others.index_select(0, voxel))
        border |= (other != own) & (other > 0)
    return border


def _gaps(vectors: Tensor, means: Tensor) -> Tensor:
    """Distances: (M, E), (M, E) -> (M,)."""
    return torch.linalg.vector_norm(vectors - means, dim=1)
