"""Loading for classification: the order of classes, and unreadable files as one error in every process."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from hafabench.config.experiment import DatasetConfig
from hafabench.data.digits import make_digits
from hafabench.data.images import UnreadableImage, read_image
from hafabench.data.loaders import classification_dataset
from hafabench.errors import UserError


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> DatasetConfig:
    dataset = DatasetConfig.model_validate(
        {
            "name": "digits",
            "format": "imagenet",
            "root": tmp_path_factory.mktemp("loaders") / "imagenet",
            "num_classes": 10,
            "images": {"train": 20, "val": 10},
            "generator": {"kind": "digits", "image_size": 32},
        }
    )
    make_digits(dataset)
    return dataset


@pytest.fixture
def spoilable(original, tmp_path) -> DatasetConfig:
    shutil.copytree(original.root, tmp_path / "imagenet")
    return original.model_copy(update={"root": tmp_path / "imagenet"})


def test_items_and_class_order(original):
    train = classification_dataset(original, "train", to_tensor)
    assert train.classes == [f"digit_{label}" for label in range(10)]
    assert len(train) == 20
    assert len(classification_dataset(original, "val")) == 10
    image, target = train[-1]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert target == 9


def test_hidden_folders_and_files_are_not_loaded(spoilable):
    (spoilable.root / "train" / ".cache").mkdir()
    (spoilable.root / "train" / "digit_0" / "._train_00000.JPEG").write_bytes(b"x")
    (spoilable.root / "train" / "digit_0" / "notes.txt").write_text("x")
    train = classification_dataset(spoilable, "train")
    assert len(train) == 20
    assert train.class_to_idx["digit_9"] == 9


def test_missing_folder_missing_class_and_empty_class(spoilable):
    shutil.rmtree(spoilable.root / "val" / "digit_4")
    with pytest.raises(UserError, match=r"digit_4: class folder in only one of"):
        classification_dataset(spoilable, "val")
    (spoilable.root / "val" / "digit_4").mkdir()
    with pytest.raises(UserError, match="digit_4"):
        classification_dataset(spoilable, "val")
    shutil.rmtree(spoilable.root / "val")
    with pytest.raises(UserError, match="val: no such folder"):
        classification_dataset(spoilable, "val")
    with pytest.raises(UserError, match="expected 1000 class folders, found 10"):
        classification_dataset(spoilable.model_copy(update={"num_classes": 1000}), "train")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:300])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_is_one_error_also_in_a_loading_process(spoilable, workers):
    dataset = classification_dataset(spoilable, "train", to_tensor)
    file = Path(dataset.samples[3][0])
    truncate(file)
    with pytest.raises(UserError) as caught:
        list(DataLoader(dataset, batch_size=4, num_workers=workers))
    assert str(caught.value).startswith(f"{file}: cannot be decoded: ")
    assert "\n" not in str(caught.value)


def test_unreadable_images_survive_pickling(tmp_path):
    with pytest.raises(UnreadableImage) as caught:
        read_image(tmp_path / "none.png")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) == f"{tmp_path / 'none.png'}: no such image"
