"""The validation images of ImageNet are sorted into class folders, and never to a wrong one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.io import savemat

from hafabench.cli import cli
from hafabench.data.sort_imagenet import GROUND_TRUTH, sort_imagenet
from hafabench.errors import UserError

SYNSETS = ["n01440764", "n02084071", "n01440764", "n09999999"]
NAMES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 5)]
SORTED = sorted(f"{synset}/{name}" for synset, name in zip(SYNSETS, NAMES, strict=True))


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "val"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(name)
    return folder


def labels_in(form: str, folder: Path) -> Path:
    folder.mkdir()
    if form == "devkit":
        data = folder / "data"
        data.mkdir()
        numbers = {"n02084071": 7, "n01440764": 449, "n09999999": 1000}
        kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
        entries = [(number, wnid, "words, more", 0) for wnid, number in numbers.items()]
        savemat(data / "meta.mat", {"synsets": np.array(entries, dtype=kind)})
        (data / GROUND_TRUTH).write_text("".join(f"{numbers[synset]}\n" for synset in SYNSETS))
        return folder
    pairs = list(zip(NAMES, SYNSETS, strict=True))
    content = {
        "kaggle": "ImageId,PredictionString\n"
        + "".join(f"{name[:-5]},{synset} 85 1 499 272 {synset} 3 4 5 6\n" for name, synset in reversed(pairs)),
        "names": "".join(f"val/{name} {synset}\r\n" for name, synset in pairs),
        "marked": "\ufeff" + "".join(f"{name}\t{synset}\n" for name, synset in pairs),
        "order": "\n".join(SYNSETS) + "\n\n",
    }[form]
    file = folder / "labels.txt"
    file.write_text(content, encoding="utf-8")
    return file


def placed(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


@pytest.mark.parametrize("form", ["devkit", "kaggle", "names", "marked", "order"])
def test_every_form_of_labels_sorts_the_images(images, tmp_path, form):
    labels = labels_in(form, tmp_path / "labels")
    done = sort_imagenet(images, labels)
    assert placed(images) == SORTED
    assert (done.moved, done.before, done.missing) == (4, 0, 0)
    assert all(path.read_text() == path.name for path in images.glob("*/*"))
    again = sort_imagenet(images, labels)
    assert (again.moved, again.before, again.missing) == (0, 4, 0)
    assert placed(images) == SORTED


def test_a_sorting_that_was_stopped_is_continued(images, tmp_path):
    labels = labels_in("order", tmp_path / "labels")
    (images / SYNSETS[0]).mkdir()
    (images / NAMES[0]).rename(images / SYNSETS[0] / NAMES[0])
    (images / NAMES[3]).unlink()
    done = sort_imagenet(images, labels)
    assert (done.moved, done.before, done.missing) == (2, 1, 1)


def test_links_leave_the_images(images, tmp_path):
    labels = labels_in("order", tmp_path / "labels")
    target = tmp_path / "data/val"
    for moved in (4, 0):
        assert sort_imagenet(images, labels, target, link=True).moved == moved
    assert placed(target) == SORTED
    assert sorted(path.name for path in images.iterdir()) == NAMES
    assert (target / SORTED[0]).read_text() == Path(SORTED[0]).name
    with pytest.raises(UserError, match="--to"):
        sort_imagenet(images, labels, link=True)


def test_nothing_is_moved_if_anything_is_wrong(images, tmp_path):
    labels = labels_in("order", tmp_path / "labels")
    (images / "n02084071").mkdir()
    (images / NAMES[0]).rename(images / "n02084071" / NAMES[0])
    with pytest.raises(UserError, match="in the folder of another class; expected n01440764") as refused:
        sort_imagenet(images, labels)
    assert str(refused.value).endswith("no image was moved")
    (images / "n02084071" / NAMES[0]).rename(images / NAMES[0])
    (images / "other.JPEG").touch()
    with pytest.raises(UserError, match=r"other\.JPEG: no label in"):
        sort_imagenet(images, labels)
    (images / "other.JPEG").unlink()
    (images / "n09999999").touch()
    with pytest.raises(UserError, match="expected a class folder, found a file"):
        sort_imagenet(images, labels)
    (images / "n09999999").unlink()
    (images / "n01440764").mkdir()
    (images / "n01440764" / NAMES[0]).touch()
    with pytest.raises(UserError, match="keep one of them"):
        sort_imagenet(images, labels)
    assert [name for name in NAMES if (images / name).exists()] == NAMES
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no image that"):
        sort_imagenet(empty, labels)
    with pytest.raises(UserError, match="no such folder"):
        sort_imagenet(tmp_path / "absent", labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no labels in it"),
        ("tench\ntench\n", ":1: expected a synset, like n01440764"),
        ("ILSVRC2012_val_00000001.JPEG 65\n", ":1: expected an image and its synset, like n01440764, found '65'"),
        ("a.JPEG n01440764\na.JPEG n02084071\n", ":2: a has two synsets"),
        ("n01440764\nn02084071\nn09999999\nn01443537\n", "every class is in it once"),
        ("65\n65\n", "meta.mat: no such file; the labels are numbers"),
    ],
)
def test_labels_of_another_form_are_refused(images, tmp_path, content, message):
    file = tmp_path / "labels.txt"
    file.write_text(content)
    with pytest.raises(UserError) as refused:
        sort_imagenet(images, file)
    assert message in str(refused.value)


def test_archives_and_other_folders_are_no_labels(images, tmp_path):
    archive = tmp_path / "devkit.tar.gz"
    archive.write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(UserError, match="unpack archives first"):
        sort_imagenet(images, archive)
    with pytest.raises(UserError, match="development kit"):
        sort_imagenet(images, images)
    with pytest.raises(UserError, match="no such file"):
        sort_imagenet(images, tmp_path / "none.txt")
    (tmp_path / GROUND_TRUTH).write_text("1\n1\n")
    (tmp_path / "meta.mat").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"not the meta\.mat"):
        sort_imagenet(images, tmp_path)


def test_the_command_tells_what_it_did(images, tmp_path):
    labels = labels_in("kaggle", tmp_path / "labels")
    (images / NAMES[3]).unlink()
    done = CliRunner().invoke(cli, ["data", "sort-imagenet", str(images), str(labels)])
    assert done.exit_code == 0
    assert f"{images}: 3 images moved, 0 were there before" in done.output
    assert "1 images that" in done.output


def test_relative_links_still_lead_to_their_file(images, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (images / NAMES[1]).rename(elsewhere / "x")
    (images / NAMES[1]).symlink_to("../elsewhere/x")
    sort_imagenet(images, labels_in("names", tmp_path / "labels"))
    assert placed(images) == SORTED
    moved = images / SYNSETS[1] / NAMES[1]
    assert (moved.read_text(), moved.readlink().is_absolute()) == (NAMES[1], False)


def test_a_file_in_place_of_a_folder_is_named(images, tmp_path):
    labels = labels_in("names", tmp_path / "labels")
    with pytest.raises(UserError, match=r"cannot be moved to .*Not a directory"):
        sort_imagenet(images, labels, labels / "below")
    with pytest.raises(UserError, match="expected a folder with the validation images"):
        sort_imagenet(labels, labels)
    assert placed(images) == []


def test_links_are_not_made_in_the_folder_of_the_images_by_any_name(images, tmp_path):
    with pytest.raises(UserError, match="requires another folder"):
        sort_imagenet(images, labels_in("names", tmp_path / "labels"), images / ".." / "val", link=True)


def test_quoted_values_are_read(images, tmp_path):
    file = tmp_path / "labels.csv"
    rows = "".join(f'"{name[:-5]}","{synset} 85 1 499 272"\n' for name, synset in zip(NAMES, SYNSETS, strict=True))
    file.write_text('"ImageId","PredictionString"\n' + rows)
    sort_imagenet(images, file)
    assert placed(images) == SORTED
