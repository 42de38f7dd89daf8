"""Pictures of a result."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image
from torch import Tensor

from scripts.training.pictures import (
    PictureHandler,
    embedding_picture,
    fullest_plane,
    gray_picture,
    image_picture,
    label_picture,
    middle_slice,
    plane_on_grid,
    side_by_side,
)
from scripts.transforms.resampling import resample_nearest


def test_middle_slice() -> None:
    volume = np.arange(5)[:, None, None] * np.ones((5, 2, 3))
    assert (middle_slice(volume) == 2).all()
    assert middle_slice(volume[0]).shape == (2, 3)


@pytest.mark.parametrize("shape", [(9, 8, 5), (4, 6, 11), (1, 1, 1)])
def test_a_plane_is_that_of_the_resampled_volume(shape: tuple[int, ...]) -> None:
    volume = torch.rand(2, 5, 7, 6)
    resampled = resample_nearest(volume, shape)
    assert torch.equal(plane_on_grid(volume, shape), resampled[:, shape[0] // 2])
    assert torch.equal(plane_on_grid(volume, shape, 0), resampled[:, 0])
    assert torch.equal(plane_on_grid(volume[:, 0], shape[1:]), resample_nearest(volume[:, 0], shape[1:]))


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        ([[0, 0], [5, 9], [5, 5], [0, 0]], 1),  # two objects
        ([[3, 3], [0, 0], [0, 7], [0, 7], [2, 0]], 2),  # one object in four planes: the nearest to the middle
        ([[0, 0], [0, 0], [0, 0]], 1),
    ],
)
def test_the_fullest_plane(planes: list[list[int]], expected: int) -> None:
    assert fullest_plane(torch.tensor(planes)[:, None]) == expected
    assert fullest_plane(torch.tensor(planes)) == 0  # a plane itself


def test_gray_is_stretched_and_survives_a_constant_image() -> None:
    gray = gray_picture(np.linspace(5, 6, 100).reshape(10, 10))
    assert gray.shape == (10, 10, 3)
    assert gray.min() == 0
    assert gray.max() == 255
    assert (gray_picture(np.ones((4, 4))) == 0).all()


def test_three_channels_are_colours_and_others_grey() -> None:
    red = np.zeros((3, 4, 4))
    red[0, :2] = 5
    assert image_picture(red)[0, 0].tolist() == [255, 0, 0]
    assert image_picture(red[:2])[0, 0].tolist() == [255, 255, 255]
    assert (image_picture(red[:1]) == gray_picture(red[0])).all()


def test_unlabelled_is_black_and_an_id_has_one_colour_everywhere() -> None:
    first, second = label_picture(np.array([[0, 7], [8, 70_000]])), label_picture(np.array([[7, 7], [0, 0]]))
    assert (first[0, 0] == 0).all()
    assert (first[0, 1] == second[0, 0]).all()
    assert len({tuple(color) for color in first.reshape(-1, 3)}) == 4


def test_embeddings_of_two_objects_get_two_colours() -> None:
    embeddings = np.zeros((5, 4, 6))
    embeddings[2, :, 3:] = 4.0
    picture = embedding_picture(embeddings)
    assert picture.shape == (4, 6, 3)
    assert abs(picture[0, 0].astype(int) - picture[0, 5].astype(int)).max() > 100
    assert embedding_picture(np.random.rand(1, 4, 6)).shape == (4, 6, 3)


def test_side_by_side() -> None:
    assert side_by_side([np.zeros((2, 3, 3), np.uint8)] * 2, gap=4).shape == (2, 10, 3)


class TestHandler:
    LABEL = torch.tensor([[[7, 7, 0], [0, 9, 9]]])

    @staticmethod
    def drawn(folder: Path, *validations: list[Tensor], background_label: int | None = None) -> np.ndarray:
        """The annotation in the picture of the last validation, each one a list of labels (1, 2, 3), by image."""
        evaluator = Engine(
            lambda engine, label: [
                {"image": torch.rand(1, 2, 3), "label": label, "embeddings": torch.rand(4, 2, 3), "pred": label * 0}
            ]
        )
        PictureHandler(str(folder), background_label=background_label).attach(evaluator)
        for labels in validations:
            evaluator.run(labels)
        picture = np.asarray(Image.open(folder / "pictures" / "epoch_0001.png"))
        assert picture.shape == (2, 4 * 3 + 3 * 4, 3)  # four pictures with three gaps
        return picture[:, 3 + 4 : 3 + 4 + 3]

    def test_the_first_image_of_each_validation_is_drawn(self, tmp_path: Path) -> None:
        first, second, third = (torch.full((1, 2, 3), id_) for id_ in (1, 2, 3))
        assert (self.drawn(tmp_path, [first, third]) == label_picture(first[0])).all()
        assert (self.drawn(tmp_path, [first, third], [second, third]) == label_picture(second[0])).all()

    def test_painted_background_is_drawn_as_no_object(self, tmp_path: Path) -> None:
        objects = self.LABEL.masked_fill(self.LABEL == 9, 0)
        assert (self.drawn(tmp_path, [self.LABEL], background_label=9) == label_picture(objects[0])).all()

    def test_a_large_image_is_shrunk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("scripts.training.pictures.LARGEST_SIDE", 3)
        label = self.LABEL.repeat_interleave(5, 1).repeat_interleave(5, 2)
        assert (self.drawn(tmp_path, [label]) == label_picture(self.LABEL[0])).all()
