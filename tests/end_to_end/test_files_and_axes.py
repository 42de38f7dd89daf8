"""What comes out lies where what went in lies: axes, voxel size and format survive the whole way."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from bundle_runs import (
    EAGER_INFERENCE,
    INFERENCE,
    TINY_TRAINING,
    TRAIN,
    nuclei,
    read_nifti,
    run_here,
    write,
    write_pair,
)
from conftest import Training
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor

# An array of (Z, Y, X) as each kind of file: name, and how it is written.
VOXEL_SIZE = (2.0, 1.0, 1.0)


@pytest.fixture
def results(trained: Training, tmp_path: Path) -> Path:
    """One volume as TIFF, OME-TIFF and NIfTI, segmented with the weights of a training on TIFF files."""
    image, _ = nuclei(seed=5)
    write(tmp_path / "images" / "plain.tif", image)
    write(tmp_path / "images" / "nifti.nii.gz", image)
    write(tmp_path / "images" / "anisotropic.ome.tif", image, VOXEL_SIZE)
    write(tmp_path / "images" / "anisotropic_nifti.nii", image, VOXEL_SIZE)
    run_here(
        INFERENCE,
        dataset_dir=tmp_path,
        ckpt_dir=trained.ckpt_dir,
        output_dir=tmp_path / "results",
        **EAGER_INFERENCE,
    )
    return tmp_path / "results"


def test_one_volume_in_four_formats(results: Path) -> None:
    """Checked in one go: the four volumes are segmented by one run."""
    # the same instances, whatever the format; NIfTI files store (x, y, z)
    plain = tifffile.imread(results / "plain_instances.tif")
    assert plain.shape == (16, 40, 28)
    assert plain.max() > 0
    np.testing.assert_array_equal(read_nifti(results / "nifti_instances.nii.gz"), plain.transpose())

    with tifffile.TiffFile(results / "anisotropic_instances.ome.tif") as tif:
        assert tif.series[0].axes == "ZYX"
        assert 'PhysicalSizeZ="2.0"' in tif.ome_metadata
        anisotropic = tif.asarray()
    assert anisotropic.dtype == np.uint16
    assert anisotropic.shape == (16, 40, 28)

    nifti = nibabel.load(results / "anisotropic_nifti_instances.nii")
    assert nifti.get_data_dtype() == np.int32
    np.testing.assert_array_equal(nifti.affine, np.diag([1.0, 1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(np.asarray(nifti.dataobj), anisotropic.transpose())


def test_an_image_in_memory_gets_the_instances_of_one_in_a_file(
    results: Path, trained: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/README.md shows."""
    image, _ = nuclei(seed=5)
    in_memory = MetaTensor(image[None].astype("float32"), affine=np.diag([*VOXEL_SIZE, 1.0]))
    found = {}
    ids = {
        "dataset#data": [{"image": in_memory, "number": 3}],
        "preprocessing#transforms#0#_disabled_": True,
        "postprocessing#transforms#3#_disabled_": True,
    }
    monkeypatch.setattr(ConfigWorkflow, "finalize", lambda workflow: found.update(workflow.evaluator.state.output[0]))
    run_here(INFERENCE, workflow_type="infer", ckpt_dir=trained.ckpt_dir, **EAGER_INFERENCE, **ids)
    from_file = tifffile.imread(results / "anisotropic_instances.ome.tif")
    np.testing.assert_array_equal(found["pred"][0].numpy(), from_file)
    np.testing.assert_array_equal(found["pred"].affine, np.diag([*VOXEL_SIZE, 1.0]))


def test_images_too_small_for_the_network_to_halve(tmp_path: Path) -> None:
    """They are continued by their outermost voxels, in training as in inference."""
    image, labels = nuclei((16, 24, 20))
    dataset = write_pair(tmp_path / "data", image[6:9], labels[6:9])
    ids = {"dataset_dir": dataset, "ckpt_dir": tmp_path, "output_dir": tmp_path}
    options = {name: value for name, value in TINY_TRAINING.items() if name != "patch_size"}
    run_here(TRAIN, **options, **ids)
    run_here(INFERENCE, **EAGER_INFERENCE, **ids)
    assert tifffile.imread(tmp_path / "nuclei_instances.tif").shape == (3, 24, 20)
