"""How images and labels of a dataset are found and paired."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest

from scripts.files import datalist
from scripts.files.datalist import annotated_so_far, image_label_pairs, image_list, not_held_out


def dataset(folder: Path, images: list[str], labels: list[str]) -> Path:
    for name in [f"images/{image}" for image in images] + [f"labels/{label}" for label in labels]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


def names(pairs: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return [tuple(Path(path).name for path in pair.values()) for pair in pairs]


def test_pairs_have_one_name_and_are_sorted(tmp_path: Path) -> None:
    dataset(tmp_path, ["b.tif", "a.tif"], ["a.tif", "b.tif"])
    assert image_label_pairs(tmp_path)[0] == {
        "image": str(tmp_path / "images" / "a.tif"),
        "label": str(tmp_path / "labels" / "a.tif"),
    }
    assert names(image_label_pairs(tmp_path)) == [("a.tif", "a.tif"), ("b.tif", "b.tif")]


def test_image_and_label_may_differ_in_extension(tmp_path: Path) -> None:
    dataset(tmp_path, ["a.b.ome.tif", "c.TIFF"], ["a.b.nii.gz", "c.nii"])
    assert names(image_label_pairs(tmp_path)) == [("a.b.ome.tif", "a.b.nii.gz"), ("c.TIFF", "c.nii")]


def test_names_that_look_alike_are_one_name(tmp_path: Path) -> None:
    """macOS writes u and its dots as two characters, other systems as one."""
    dataset(tmp_path, ["Z\u00fcrich_1.tif"], ["Zu\u0308rich_1.tif"])
    assert names(image_label_pairs(tmp_path)) == [("Z\u00fcrich_1.tif", "Zu\u0308rich_1.tif")]
    assert names(annotated_so_far(tmp_path)) == names(image_label_pairs(tmp_path))
    patterns = str(tmp_path / "images" / "*_1.tif"), str(tmp_path / "labels" / "*_1.tif")
    assert names(image_label_pairs(tmp_path, *patterns)) == names(image_label_pairs(tmp_path))


def test_hidden_and_other_files_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset(tmp_path, ["a.tif", "._a.tif", "b.jpg", "c.bmp", "d.bmp", "notes.txt"], ["a.tif"])
    assert names(image_label_pairs(tmp_path)) == [("a.tif", "a.tif")]
    assert [message.split(", expected")[0] for message in caplog.messages] == [
        f"{tmp_path / 'images'}: left out b.jpg, c.bmp, d.bmp and 1 more"
    ]


def test_images_alone(tmp_path: Path) -> None:
    dataset(tmp_path, ["b.tif", "a.nii.gz"], [])
    assert names(image_list(tmp_path)) == [("a.nii.gz",), ("b.tif",)]


def test_lists_are_paired_by_order(tmp_path: Path) -> None:
    dataset(tmp_path, ["b.tif", "a.tif"], ["x.tif", "y.tif"])
    images = [tmp_path / "images" / name for name in ("b.tif", "a.tif")]
    labels = [tmp_path / "labels" / name for name in ("x.tif", "y.tif")]
    assert names(image_label_pairs("unused", images, labels)) == [("b.tif", "x.tif"), ("a.tif", "y.tif")]
    assert names(image_list("unused", images)) == [("b.tif",), ("a.tif",)]


def test_patterns_are_sorted(tmp_path: Path) -> None:
    dataset(tmp_path, ["b_raw.tif", "a_raw.tif"], ["b_ids.tif", "a_ids.tif"])
    pairs = image_label_pairs(tmp_path, f"{tmp_path}/images/*_raw.tif", f"{tmp_path}/labels/*_ids.tif")
    assert names(pairs) == [("a_raw.tif", "a_ids.tif"), ("b_raw.tif", "b_ids.tif")]


def test_masks_are_paired_by_order(tmp_path: Path) -> None:
    dataset(tmp_path, ["b.tif", "a.tif"], ["a.tif", "b.tif"])
    masks = f"{tmp_path}/labels/*.tif"
    paired = [("a.tif", "a.tif"), ("b.tif", "b.tif")]
    assert names(image_list(tmp_path, masks=masks)) == paired
    assert names(image_list("unused", f"{tmp_path}/images/*.tif", masks)) == paired
    triples = image_label_pairs(tmp_path, masks=masks)
    assert [Path(triple["mask"]).name for triple in triples] == ["a.tif", "b.tif"]
    assert image_label_pairs("unused", f"{tmp_path}/images/*", masks, masks) == triples


def test_patterns_may_stand_for_other_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset(tmp_path, ["a_raw.tif", "b_raw.tif"], ["a_ids.tif", "b_ids.tif"])
    pairs = image_label_pairs("unused", f"{tmp_path}/images/*_raw.tif", f"{tmp_path}/labels/*.tif")
    assert names(pairs) == [("a_raw.tif", "a_ids.tif"), ("b_raw.tif", "b_ids.tif")]
    assert "a_ids.tif: taken for the label of" in caplog.text


def test_patterns_of_folders_and_names(tmp_path: Path) -> None:
    for city in ("aachen", "bochum"):
        (tmp_path / city).mkdir()
        dataset(tmp_path / city, [f"{city}_1_raw.png"], [f"{city}_1_ids.png"])
    pairs = image_label_pairs("unused", f"{tmp_path}/*/images/*_raw.png", f"{tmp_path}/./*/labels/*_ids.png")
    assert names(pairs) == [("aachen_1_raw.png", "aachen_1_ids.png"), ("bochum_1_raw.png", "bochum_1_ids.png")]


def test_patterns_pair_what_is_named_alike_whatever_the_order(tmp_path: Path) -> None:
    dataset(tmp_path, ["a.tif", "a-1.tif"], ["a_ids.tif", "a-1_ids.tif"])  # "-" is before "." and before "_"
    pairs = image_label_pairs("unused", f"{tmp_path}/images/a*.tif", f"{tmp_path}/labels/a*_ids.tif")
    assert names(pairs) == [("a-1.tif", "a-1_ids.tif"), ("a.tif", "a_ids.tif")]
    dataset(tmp_path, ["a+.tif"], ["a+_ids.tif"])
    pairs = image_label_pairs("unused", f"{tmp_path}/images/*.tif", f"{tmp_path}/labels/*_ids.tif")
    assert {(image.replace(".tif", "_ids.tif"), label) for image, label in names(pairs)} == {
        (label, label) for _, label in names(pairs)
    }


def test_two_asterisks_stand_for_any_folders_and_for_none(tmp_path: Path) -> None:
    (tmp_path / "images" / "day2").mkdir(parents=True)
    (tmp_path / "labels" / "day2").mkdir(parents=True)
    patterns = f"{tmp_path}/images/**/*.tif", f"{tmp_path}/labels/**/*_ids.tif"
    dataset(tmp_path, ["b.tif", "c.tif", "day2/a.tif"], ["b_ids.tif", "c_ids.tif", "day2/a_ids.tif"])
    assert sorted(names(image_label_pairs("unused", *patterns))) == [
        ("a.tif", "a_ids.tif"),
        ("b.tif", "b_ids.tif"),
        ("c.tif", "c_ids.tif"),
    ]
    (tmp_path / "images" / "b.tif").rename(tmp_path / "images" / "d.tif")  # as many, but others
    with pytest.raises(ValueError, match=r"found no label for the image d.tif"):
        image_label_pairs("unused", *patterns)


class WindowsPath(PureWindowsPath):
    """A path on a Windows computer on which ``C:/data`` is the only folder."""

    def exists(self) -> bool:
        return self == PureWindowsPath(r"C:\data")


@pytest.mark.parametrize(
    ("pattern", "path", "texts"),
    [
        (r"C:\data\**\*_image.tif", r"C:\data\a_image.tif", ("", "a")),
        (r"C:\data\**\*_image.tif", r"C:\data\day1\well2\a_image.tif", ("day1/well2/", "a")),
        ("C:/data/*/*_image.tif", r"C:\data\day1\a_image.tif", ("day1", "a")),
        (r"C:\data\*_Image.tif", r"C:\data\a_image.TIF", ("a",)),
    ],
)
def test_wildcards_on_windows(pattern: str, path: str, texts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Backslashes there are separators, and large letters are small ones."""
    monkeypatch.setattr(datalist, "Path", WindowsPath)
    assert datalist._wildcard_texts(pattern, path) == texts


class TestBracketsInNames:
    """A glob pattern could mean one of the characters between them."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "[day 1]").mkdir()
        return dataset(tmp_path / "[day 1]", ["a[0].tif", "b[0].tif"], ["a[0].tif", "b[0].tif"])

    def test_in_a_dataset(self, folder: Path) -> None:
        assert names(image_label_pairs(folder)) == [("a[0].tif", "a[0].tif"), ("b[0].tif", "b[0].tif")]

    def test_in_the_folders_of_a_pattern(self, folder: Path) -> None:
        pairs = image_label_pairs("unused", f"{folder}/images/*.tif", f"{folder}/labels/*.tif")
        assert names(pairs) == [("a[0].tif", "a[0].tif"), ("b[0].tif", "b[0].tif")]
        (folder / "labels" / "a[0].tif").unlink()
        dataset(folder, [], ["c[0].tif"])
        with pytest.raises(ValueError, match=r"labels/\*\.tif: found no label for the image a\[0\]\.tif, expected one"):
            image_label_pairs("unused", f"{folder}/images/*.tif", f"{folder}/labels/*.tif")

    def test_a_single_file(self, folder: Path) -> None:
        assert image_list("unused", f"{folder}/images/a[0].tif") == [{"image": f"{folder}/images/a[0].tif"}]

    def test_they_are_wildcards_where_no_such_file_is(self, tmp_path: Path) -> None:
        dataset(tmp_path, ["a1.tif", "a2.tif", "a3.tif"], [])
        assert names(image_list("unused", f"{tmp_path}/images/a[12].tif")) == [("a1.tif",), ("a2.tif",)]


class TestRefusals:
    def test_patterns_that_shift_the_pairs(self, tmp_path: Path) -> None:
        dataset(tmp_path, ["plant1_rgb.png", "plant2_rgb.png"], ["plant2_label.png", "plant3_label.png"])
        sentence = r"plant\?_label\.png: found no label for the image plant1_rgb\.png, expected one of the same name"
        with pytest.raises(ValueError, match=sentence):
            image_label_pairs("unused", f"{tmp_path}/images/plant*_rgb.png", f"{tmp_path}/labels/plant?_label.png")

    @pytest.mark.parametrize(("kind", "lonely"), [("images", "cologne"), ("labels", "darmstadt")])
    def test_patterns_of_which_one_lacks_a_file(self, tmp_path: Path, kind: str, lonely: str) -> None:
        dataset(tmp_path, ["aachen_rgb.png"], ["aachen_ids.png"])
        suffix = "rgb" if kind == "images" else "ids"
        dataset(tmp_path, *([f"{lonely}_{suffix}.png"] if kind == one else [] for one in ("images", "labels")))
        with pytest.raises(
            ValueError, match=rf"found no \w+ for the \w+ {lonely}_{suffix}\.png, expected one of the same"
        ):
            image_label_pairs("unused", f"{tmp_path}/images/*_rgb.png", f"{tmp_path}/labels/*_ids.png")

    def test_an_image_without_label_and_a_label_without_image_are_no_pair(self, tmp_path: Path) -> None:
        dataset(tmp_path, ["a_rgb.png", "c_rgb.png"], ["a_ids.png", "d_ids.png"])
        with pytest.raises(ValueError, match=r"found no label for the image c_rgb\.png"):
            image_label_pairs("unused", f"{tmp_path}/images/*_rgb.png", f"{tmp_path}/labels/*_ids.png")

    def test_images_as_their_own_labels(self, tmp_path: Path) -> None:
        dataset(tmp_path, ["a.tif"], [])
        with pytest.raises(ValueError, match="which are the images, expected their label maps"):
            image_label_pairs("unused", f"{tmp_path}/images/*.tif", f"{tmp_path}/images/*.tif")

    def test_masks_that_are_the_images(self, tmp_path: Path) -> None:
        dataset(tmp_path, ["a.tif", "b.tif"], ["a.tif"])
        with pytest.raises(ValueError, match=r"masks: found .*a\.tif, which is an image, expected another file"):
            image_list(tmp_path, masks=f"{tmp_path}/images/*.tif")

    def test_fewer_masks_than_images(self, tmp_path: Path) -> None:
        dataset(tmp_path, ["a.tif", "b.tif"], ["a.tif"])
        with pytest.raises(
            ValueError, match=r"Found 2 images and 1 masks \(.*/labels/\*\.tif\), expected equal numbers"
        ):
            image_list(tmp_path, masks=f"{tmp_path}/labels/*.tif")

    def test_patterns_that_find_different_numbers(self, tmp_path: Path) -> None:
        dataset(tmp_path, ["a.tif", "b.tif"], ["c.tif"])
        with pytest.raises(
            ValueError, match=r"Found 2 images \(.*/images/\*\) and 1 labels \(.*/labels/\*\), expected"
        ):
            image_label_pairs("unused", f"{tmp_path}/images/*", f"{tmp_path}/labels/*")

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="images: no such folder, expected the folders images"):
            image_list(tmp_path)

    def test_no_label_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="labels: no such folder"):
            image_label_pairs(dataset(tmp_path, ["a.tif"], []))

    def test_no_volume(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"found no volume, expected files that end in \.ome\.tiff, .*nii"):
            image_list(dataset(tmp_path, ["a.jpg"], []))

    def test_images_without_label(self, tmp_path: Path) -> None:
        dataset(tmp_path, [f"{name}.tif" for name in "abcde"], ["a.tif"])
        with pytest.raises(ValueError, match=r"no label for the image b\.tif, c\.tif, d\.tif and 1 more, expected"):
            image_label_pairs(tmp_path)

    def test_label_without_image(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"no image for the label b\.tif, expected"):
            image_label_pairs(dataset(tmp_path, ["a.tif"], ["a.tif", "b.tif"]))

    def test_two_files_of_one_name(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"found a\.nii\.gz and a\.tif, expected one file a name"):
            image_list(dataset(tmp_path, ["a.tif", "a.nii.gz"], []))

    def test_two_listed_images_whose_results_would_have_one_name(self, tmp_path: Path) -> None:
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            dataset(tmp_path / folder, ["a.tif"], [])
        listed = [tmp_path / folder / "images" / "a.tif" for folder in ("one", "two")]
        with pytest.raises(ValueError, match=r"Found .*one/images/a\.tif and .*, expected one image a name"):
            image_list(tmp_path, listed)

    def test_lists_of_different_length(self, tmp_path: Path) -> None:
        dataset(tmp_path, ["a.tif"], ["a.tif", "b.tif"])
        images, labels = ([str(path) for path in (tmp_path / kind).iterdir()] for kind in ("images", "labels"))
        with pytest.raises(ValueError, match="Found 1 images and 2 labels, expected equal numbers"):
            image_label_pairs("unused", images, labels)

    def test_images_without_a_list_of_labels(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="Found images without labels, expected both lists or neither"):
            image_label_pairs(tmp_path, images=["a.tif"])

    def test_listed_file_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"a\.tif: no such file, listed in images"):
            image_list(tmp_path, [tmp_path / "a.tif"])

    def test_pattern_without_match(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="found no file, expected images that match this pattern"):
            image_list(tmp_path, f"{tmp_path}/*.tif")

    def test_empty_list(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="Found an empty list of images"):
            image_list(tmp_path, [])


class TestAnnotatedSoFar:
    @pytest.fixture
    def dataset(self, tmp_path):
        for name in ("images/a.tif", "images/b.tif", "labels/b.nii.gz"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    def test_images_without_labels_are_listed_too(self, dataset):
        first, second = annotated_so_far(dataset)
        assert list(first) == ["image"]
        assert second["label"].endswith("b.nii.gz")

    def test_no_folder_of_labels_is_needed(self, dataset):
        (dataset / "labels" / "b.nii.gz").unlink()
        (dataset / "labels").rmdir()
        assert [list(entry) for entry in annotated_so_far(dataset)] == [["image"], ["image"]]

    def test_labels_of_no_image_are_refused(self, dataset):
        (dataset / "labels" / "c.tif").touch()
        with pytest.raises(ValueError, match="images: found no image for the label c.tif, expected one of"):
            annotated_so_far(dataset)

    def test_lists_are_paired_by_order(self, dataset):
        images, labels = [dataset / "images" / "a.tif"], [dataset / "labels" / "b.nii.gz"]
        assert annotated_so_far(dataset, images, labels) == [{"image": str(images[0]), "label": str(labels[0])}]
        assert annotated_so_far(dataset, images) == [{"image": str(images[0])}]

    def test_two_images_of_one_name_are_refused(self, dataset):
        (dataset / "other").mkdir()
        (dataset / "other" / "a.tif").touch()
        images, labels = [dataset / "images" / "a.tif", dataset / "other" / "a.tif"], [dataset / "labels/b.nii.gz"] * 2
        with pytest.raises(ValueError, match="expected one image a name"):
            annotated_so_far(dataset, images, labels)

    def test_two_labels_of_one_name_are_refused(self, dataset):
        (dataset / "labels" / "b.tif").touch()
        with pytest.raises(ValueError, match="found b.nii.gz and b.tif, expected one file a name"):
            annotated_so_far(dataset)


class TestNotHeldOut:
    DATA = [{"image": name} for name in "abc"]

    def test_the_first_ones_are(self) -> None:
        assert not_held_out(self.DATA, 2) == [{"image": "c"}]
        assert not_held_out(self.DATA, 0) == self.DATA

    @pytest.mark.parametrize("held_out", [-2, 2.5, 3, True])
    def test_refuses_what_is_no_number_of_images(self, held_out: float) -> None:
        with pytest.raises(ValueError, match=f"held_out: found {held_out}, expected a whole number from 0 to 2, as"):
            not_held_out(self.DATA, held_out)

    def test_who_asks_for_other_images_holds_out_none(self) -> None:
        assert not_held_out(image_label_pairs("nowhere", asked_elsewhere=True), 0) == []
