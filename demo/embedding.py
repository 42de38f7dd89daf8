"""What the network sees: the embeddings of one image's middle plane, from the bundle's own parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demo.plan import read_config
from scripts.network.checkpoints import load_weights
from scripts.training.pictures import plane_on_grid
from scripts.transforms.resampling import file_shape


def middle_embeddings(image: Path | str, ckpt_dir: Path, spatial_dims: int) -> NDArray[np.float32]:
    """Embeddings (E, Y, X) of the middle plane of an image file, on the file's own grid.

    Args:
        image: file to read.
        ckpt_dir: where the training left `model.pt`.
        spatial_dims: 2 or 3.
    """
    config = read_config(spatial_dims, "inference.json", ckpt_dir=str(ckpt_dir))
    sample = config.get_parsed_content("preprocessing")({"image": str(image)})["image"]
    device = config.get_parsed_content("device")
    network = config.get_parsed_content("network").eval()
    load_weights(network, ckpt_dir / "model.pt")
    with torch.no_grad():
        embeddings = config.get_parsed_content("inferer")(sample.as_tensor()[None].to(device), network)[0]
    return plane_on_grid(embeddings, file_shape(sample)).float().cpu().numpy()


def device_name(ckpt_dir: Path, spatial_dims: int) -> str:
    """The device that the bundle's configs choose on this machine, in words."""
    device: Any = read_config(spatial_dims, "inference.json", ckpt_dir=str(ckpt_dir)).get_parsed_content("device")
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"mps": "Apple GPU", "cpu": "the CPU"}[device.type]
