"""Pictures of a result: image, annotation, embeddings and instances side by side, in one slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ignite.distributed import one_rank_only
from ignite.engine import Engine, Events
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ..engines import outputs_of
from ..files.whole_files import warn_if_unwritable, whole_file
from ..tensors import plain_tensor
from ..transforms.contrast import LOWER, UPPER
from ..transforms.label_convention import where_id
from ..transforms.resampling import resample_nearest

Picture = NDArray[np.uint8]  # (height, width, 3)

LARGEST_SIDE = 2048  # of what is drawn of an image, in pixels: four pictures of 8000 x 8000 would take minutes and 9 GB


def middle_slice(volume: ArrayLike) -> NDArray:
    """The middle plane of (Z, Y, X); a plane (Y, X) is returned as it is."""
    array = np.asarray(volume)
    return array if array.ndim == 2 else array[array.shape[0] // 2]


def plane_on_grid(channels: Tensor, shape: Sequence[int], index: int | None = None) -> Tensor:
    """A plane, by default the middle one, of what `resample_nearest` makes of (C, *spatial) on a grid (*shape)."""
    if len(shape) == 3:
        depth, index = channels.shape[1], shape[0] // 2 if index is None else index
        channels = channels[:, int((index + 0.5) * depth / shape[0])]
    return resample_nearest(channels, shape[-2:])


def drawn_shape(shape: Sequence[int]) -> list[int]:
    """The grid (*spatial) on which an image of this shape is drawn: planes that are too large are shrunk.

    >>> drawn_shape([30, 1000, 2000]), drawn_shape([30, 1024, 4096])
    ([30, 1000, 2000], [30, 512, 2048])
    """
    shrinking = max(1.0, max(shape[-2:]) / LARGEST_SIDE)
    return [*shape[:-2], *(max(1, round(side / shrinking)) for side in shape[-2:])]


def fullest_plane(labels: Tensor) -> int:
    """The plane of a label map (*spatial) that shows most objects; of several the nearest to the middle."""
    if labels.ndim == 2:
        return 0
    objects = [torch.unique(plane[plane != 0]).numel() for plane in labels]
    middle = len(objects) // 2
    return max(range(len(objects)), key=lambda index: (objects[index], -abs(index - middle)))


def gray_picture(image: ArrayLike) -> Picture:
    """Middle slice of an image (*spatial), stretched between its 1st and 99.8th percentile."""
    plane = middle_slice(image).astype(np.float32)
    low, high = np.percentile(plane, [LOWER, UPPER])
    gray = np.clip((plane - low) / max(high - low, 1e-6), 0, 1)
    return np.repeat((gray * 255).astype(np.uint8)[..., None], 3, axis=-1)


def image_picture(image: ArrayLike) -> Picture:
    """Middle slice of an image (C, *spatial): three channels as red, green and blue, others as their mean."""
    channels = np.asarray(image)
    if len(channels) != 3:
        return gray_picture(channels.mean(0))
    return np.stack([gray_picture(channel)[..., 0] for channel in channels], axis=-1)


def label_picture(labels: ArrayLike) -> Picture:
    """Middle slice of a label map (*spatial): a colour for each id that stays the same in every picture."""
    plane = middle_slice(labels).astype(np.uint64)
    mixed = (plane * np.uint64(2654435761)) % np.uint64(2**32)  # Knuth's multiplicative hash
    channels = [(mixed >> np.uint64(shift)) & np.uint64(0xFF) for shift in (8, 16, 24)]
    bright = 55 + np.stack(channels, axis=-1) * 200 // 255
    return np.where(plane[..., None] == 0, 0, bright).astype(np.uint8)


def embedding_picture(embeddings: ArrayLike) -> Picture:
    """Middle slice of embeddings (E, *spatial): their first three principal components as red, green and blue."""
    array = np.asarray(embeddings, np.float32)
    plane = array if array.ndim == 3 else array[:, array.shape[1] // 2]
    vectors = plane.reshape(len(plane), -1).T  # (pixels, E)
    centered = vectors - vectors.mean(0)
    _, directions = np.linalg.eigh(centered.T @ centered)  # ascending
    components = centered @ directions[:, ::-1][:, :3]
    low, high = np.percentile(components, [1, 99], axis=0)
    scaled = np.clip((components - low) / np.maximum(high - low, 1e-6), 0, 1)
    if scaled.shape[1] < 3:
        scaled = np.pad(scaled, ((0, 0), (0, 3 - scaled.shape[1])))
    return (scaled * 255).astype(np.uint8).reshape(*plane.shape[1:], 3)


def side_by_side(pictures: list[Picture], gap: int = 4) -> Picture:
    """Join pictures of one height from left to right, with a white gap."""
    white = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    joined = [part for picture in pictures for part in (picture, white)]
    return np.concatenate(joined[:-1], axis=1)


class PictureHandler:
    """Evaluator handler: image, annotation, embeddings and instances of the first validation image.

    Writes one picture per validation as PNG, and to TensorBoard, on the image's own grid, if that is not too large (see
    `drawn_shape`): of a volume the slice that shows most annotated objects. Needs the evaluator's output under the keys
    image, label, embeddings and pred.

    Args:
        output_dir: PNGs go to `output_dir/pictures/epoch_0005.png`.
        event_writer: of TensorBoard, the one that the curves go to: of several files in a folder it follows the newest.
        background_label: id painted on known background, which is drawn as no object.
    """

    def __init__(
        self, output_dir: str, event_writer: SummaryWriter | None = None, background_label: int | None = None
    ) -> None:
        self.output_dir, self.event_writer, self.background_label = Path(output_dir), event_writer, background_label
        self.first: Picture | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator."""
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _forget(self, engine: Engine) -> None:
        self.first = None

    def _keep(self, engine: Engine) -> None:
        if self.first is not None:
            return
        output = outputs_of(engine)[0]
        label = plain_tensor(output["label"])
        objects = label.masked_fill(where_id(label, self.background_label), 0)
        shape, index = drawn_shape(objects.shape[1:]), fullest_plane(objects[0])
        image, objects, embeddings, instances = (
            plane_on_grid(plain_tensor(channels), shape, index).cpu()
            for channels in (output["image"], objects, output["embeddings"], output["pred"])
        )
        pictures = image_picture(image), label_picture(objects[0]), embedding_picture(embeddings)
        self.first = side_by_side([*pictures, label_picture(instances[0])])

    @one_rank_only()
    def _write(self, engine: Engine) -> None:
        if self.first is None:
            return
        # MONAI's ValidationHandler runs the evaluator with the trainer's epoch as its number
        epoch = engine.state.epoch
        with warn_if_unwritable():
            with whole_file(self.output_dir / "pictures" / f"epoch_{epoch:04d}.png") as temporary:
                Image.fromarray(self.first).save(temporary)
            if self.event_writer is not None:
                name = "image, annotation, embeddings, instances"
                self.event_writer.add_image(name, self.first, epoch, dataformats="HWC")
                self.event_writer.flush()
