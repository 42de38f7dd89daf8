"""Anchors: where they may lie, when the draw stops, and that it is the paper's draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.losses import anchors

DELTA_VAR = 0.5


def draw_anchors(embeddings: Tensor, unlabeled: Tensor, *arguments: float, **options: float) -> Tensor:
    """The anchors that are drawn in one image."""
    index, drawn = anchors.draw_anchors(embeddings[None], unlabeled[None], *arguments, **options)
    return index[drawn]


def groups(*sizes: int) -> Tensor:
    """Embeddings (1, N) in groups of one point each, 10 apart."""
    return torch.cat([torch.full((1, size), 10.0 * place) for place, size in enumerate(sizes)], 1)


def field(side: int = 20) -> tuple[Tensor, Tensor]:
    """Embeddings (2, side^2) of a bent sheet, and a pool that leaves out every fifth voxel."""
    y, x = torch.meshgrid(torch.linspace(0, 3, side), torch.linspace(0, 4, side), indexing="ij")
    return torch.stack([x + (2 * y).sin() / 4, y**2 / 3]).flatten(1), torch.arange(side**2) % 5 > 0


def sequential_draw(embeddings: Tensor, unlabeled: Tensor, delta_var: float, count: int, stop_share: float) -> Tensor:
    """The paper's words: draw one, remove what is within delta_var, until little is left."""
    pool, chosen = unlabeled.clone(), []
    while len(chosen) < count and pool.any() and pool.sum() >= stop_share * len(pool):
        voxels = pool.nonzero()[:, 0]
        anchor = voxels[torch.randint(len(voxels), ())]
        chosen.append(anchor)
        pool &= (embeddings - embeddings[:, anchor, None]).norm(dim=0) > delta_var
        pool[anchor] = False
    return torch.stack(chosen)


def covered_share(embeddings: Tensor, unlabeled: Tensor, anchors: Tensor) -> float:
    near = torch.cdist(embeddings[:, unlabeled].T, embeddings[:, anchors].T) <= DELTA_VAR
    return near.any(1).float().mean().item()


class TestByHand:
    def test_one_anchor_covers_a_group(self) -> None:
        embeddings = groups(10, 10, 10)
        anchors = draw_anchors(embeddings, torch.ones(30, dtype=torch.bool), DELTA_VAR)
        assert sorted((anchors // 10).tolist()) == [0, 1, 2]

    def test_empty_pool(self) -> None:
        anchors = draw_anchors(groups(5), torch.zeros(5, dtype=torch.bool), DELTA_VAR)
        assert anchors.shape == (0,)
        assert anchors.dtype == torch.int64

    def test_a_pool_of_one(self) -> None:
        pool = torch.arange(5) == 3
        assert draw_anchors(groups(5), pool, DELTA_VAR).tolist() == [3]

    def test_only_the_pool(self) -> None:
        embeddings = groups(10, 10)
        for _ in range(20):
            assert draw_anchors(embeddings, torch.arange(20) >= 10, DELTA_VAR).item() >= 10

    def test_constant_embeddings_need_one_anchor(self) -> None:
        embeddings = torch.full((3, 50), 0.7)
        assert len(draw_anchors(embeddings, torch.ones(50, dtype=torch.bool), DELTA_VAR)) == 1

    @pytest.mark.parametrize("count", [1, 4, 7])
    def test_count_is_the_most(self, count: int) -> None:
        anchors = draw_anchors(groups(*[10] * 9), torch.ones(90, dtype=torch.bool), DELTA_VAR, count, 0.0)
        assert len(anchors) == count

    def test_all_are_drawn_when_none_covers_another(self) -> None:
        embeddings = groups(*[1] * 12)
        anchors = draw_anchors(embeddings, torch.ones(12, dtype=torch.bool), DELTA_VAR, 20, 0.0)
        assert sorted(anchors.tolist()) == list(range(12))

    def test_stops_when_little_is_left(self) -> None:
        # 4 of 100 are fewer than 5 %: once the 96 are covered nothing more is drawn
        for _ in range(50):
            anchors = draw_anchors(groups(96, 4), torch.ones(100, dtype=torch.bool), DELTA_VAR)
            assert anchors[-1] < 96

    def test_goes_on_when_enough_is_left(self) -> None:
        for _ in range(50):
            anchors = draw_anchors(groups(94, 6), torch.ones(100, dtype=torch.bool), DELTA_VAR)
            assert sorted((anchors >= 94).tolist()) == [False, True]

    def test_the_share_is_of_the_image_not_of_the_pool(self) -> None:
        pool = torch.arange(100) < 4  # the pool begins below 5 % of the image
        assert len(draw_anchors(groups(100), pool, DELTA_VAR)) == 0
        assert len(draw_anchors(groups(100), pool, DELTA_VAR, stop_share=0.04)) == 1


class TestProperties:
    def test_images_of_a_batch_do_not_meet(self) -> None:
        embeddings = torch.stack([groups(10, 10, 10), groups(30), groups(20, 10)])
        pool = torch.ones(3, 30, dtype=torch.bool)
        pool[2, 20:] = False
        index, drawn = anchors.draw_anchors(embeddings, pool, DELTA_VAR)
        assert index.shape == drawn.shape == (3, 20)
        assert drawn.sum(1).tolist() == [3, 1, 1]
        assert pool.gather(1, index)[drawn].all()

    @pytest.mark.parametrize("candidates", [1024, 50])
    def test_in_the_pool_distinct_and_far_apart(self, candidates: int) -> None:
        embeddings, pool = field()
        for _ in range(20):
            anchors = draw_anchors(embeddings, pool, DELTA_VAR, 20, 0.0, candidates)
            assert 1 < len(anchors) <= 20
            assert pool[anchors].all()
            assert len(anchors.unique()) == len(anchors)
            assert torch.nn.functional.pdist(embeddings[:, anchors].T).min() > DELTA_VAR

    def test_the_seed_decides(self) -> None:
        embeddings, pool = field()
        draws = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            draws.append(draw_anchors(embeddings, pool, DELTA_VAR).tolist())
        assert draws[0] == draws[1] != draws[2]

    # the pool of 400 voxels is walked through as it is, of that of 2025 two thirds
    @pytest.mark.parametrize(("side", "tolerance"), [(20, 0.0), (45, 0.01)])
    @pytest.mark.parametrize(("count", "stop_share"), [(20, 0.05), (6, 0.05), (20, 0.3)])
    def test_covers_what_the_literal_draw_covers(
        self, count: int, stop_share: float, side: int, tolerance: float
    ) -> None:
        embeddings, pool = field(side)
        torch.manual_seed(0)
        literal = [sequential_draw(embeddings, pool, DELTA_VAR, count, stop_share) for _ in range(100)]
        ours = [draw_anchors(embeddings, pool, DELTA_VAR, count, stop_share) for _ in range(100)]
        shares = [[covered_share(embeddings, pool, anchors) for anchors in draws] for draws in (literal, ours)]
        numbers = [[len(anchors) for anchors in draws] for draws in (literal, ours)]
        for values, slack in ((shares, tolerance), (numbers, 20 * tolerance)):
            error = (np.var(values[0]) / 100 + np.var(values[1]) / 100) ** 0.5
            assert abs(np.mean(values[0]) - np.mean(values[1])) <= 3 * error + slack

    def test_every_voxel_of_the_pool_may_come_first(self) -> None:
        pool = torch.arange(10) % 2 == 0
        torch.manual_seed(0)
        first = [draw_anchors(groups(10), pool, DELTA_VAR, count=1).item() for _ in range(500)]
        counts = np.bincount(first, minlength=10)
        assert counts[1::2].sum() == 0
        assert counts[::2].min() > 60  # 100 expected, standard deviation 9
