"""What the network sees: the embeddings of one image's middle plane, from the bundle's own parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from demo.plan import BUNDLE, config_files
from scripts.checkpoints import load_weights
from scripts.resampling import resample_nearest


def middle_embeddings(image: Path | str, ckpt_dir: Path, spatial_dims: int) -> NDArray[np.float32]:
    """Embeddings (E, Y, X) of the middle plane of an image file, on the file's own grid.

    Args:
        image: file to read.
        ckpt_dir: where the training left `model.pt`.
        spatial_dims: 2 or 3.
    """
    config = _inference_config(ckpt_dir, spatial_dims)
    sample = config.get_parsed_content("preprocessing")({"image": str(image)})["image"]
    file_shape = [int(n) for n in sample.meta["spatial_shape"]]
    volume = sample.as_tensor()
    index = None
    if spatial_dims == 3:  # one layer of windows around the plane is enough
        depth, index = volume.shape[1], int((file_shape[0] // 2 + 0.5) * volume.shape[1] / file_shape[0])
        thickness = min(depth, config.get_parsed_content("inferer").window_for(volume.shape[1:])[0])
        start = min(max(0, index - thickness // 2), depth - thickness)
        volume, index = volume[:, start : start + thickness], index - start
    device = config.get_parsed_content("device")
    network = config.get_parsed_content("network").eval()
    load_weights(network, ckpt_dir / "model.pt")
    with torch.no_grad():
        embeddings = config.get_parsed_content("inferer")(volume[None].to(device), network)[0].float().cpu()
    plane = embeddings if index is None else embeddings[:, index]
    return resample_nearest(plane, file_shape[-2:]).numpy()


def device_name(ckpt_dir: Path, spatial_dims: int) -> str:
    """The device that the bundle's configs choose on this machine, in words."""
    device: Any = _inference_config(ckpt_dir, spatial_dims).get_parsed_content("device")
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"mps": "Apple GPU", "cpu": "the CPU"}[device.type]


def _inference_config(ckpt_dir: Path, spatial_dims: int) -> ConfigParser:
    config = ConfigParser()
    config.read_config([str(path) for path in config_files(spatial_dims, "inference.json")])
    config.update({"bundle_root": str(BUNDLE), "ckpt_dir": str(ckpt_dir)})
    return config
