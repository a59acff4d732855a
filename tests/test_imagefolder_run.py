"""Train a small network on CIFAR-10 as a folder of JPEG files."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import job, result

import runner.tasks.train  # noqa: F401
from runner.errors import DataError
from runner.tasks import start

ARCHIVE = Path(__file__).parent.parent.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"
TRAIN, TEST = 200, 40  # images of each class


def photographs(folder):
    """Unpack a part of CIFAR-10."""
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            split, _, number = member.name.removeprefix("./").partition("/")
            digits = "".join(filter(str.isdigit, Path(number).stem))
            if member.isfile() and digits and int(digits) < {"train": TRAIN, "test": TEST}[split]:
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())


def drawings(folder):
    """Draw ten classes of noisy stripes, where the photographs are not at hand."""
    rng = np.random.default_rng(0)
    wave = np.arange(32)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for label in range(10):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            angle = np.pi * label / 10
            stripes = np.sin((np.cos(angle) * wave[:, None] + np.sin(angle) * wave[None]) * 0.9)
            for i in range(count):
                noisy = 127 + 60 * stripes[..., None] + rng.normal(0, 50, (32, 32, 3))
                buffer = io.BytesIO()
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG")
                (place / f"{i:04}.jpg").write_bytes(buffer.getvalue())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (photographs if ARCHIVE.is_file() else drawings)(folder)
    return folder


def run(images, where, *more):
    parts = ("data=imagefolder", f"data.root={images}", "data.batch_size=64", "model=cnn", "optim=adam")
    return start(job(*parts, "augment=[crop,hflip]", "figures=never", *more, f"hydra.run.dir={where}"))


def test_a_small_cnn_learns_photographs_in_a_few_hundred_steps(images, tmp_path):
    assert run(images, tmp_path / "run", "steps=300", "validate_every=100steps", "probe=[]") == 0
    found = result(tmp_path / "run")
    assert found["scores"]["test"]["accuracy"] > 0.33  # chance is 0.1


def test_a_broken_image_is_named_before_the_first_step(images, tmp_path):
    victim = next((images / "train").glob("*/*.jpg"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(DataError) as caught:
            run(images, tmp_path / "run", "steps=3")
    finally:
        victim.write_bytes(whole)
    assert victim.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_root_without_classes_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="class"):
        run(tmp_path / "empty", tmp_path / "run", "steps=3")
    assert not (tmp_path / "run").exists()


def test_labels_beyond_the_classes_are_refused():
    import torch

    from runner.assemble.data import check_labels
    from runner.engine.contracts import Data

    class Split:
        def __init__(self, *labels):
            self.labels = torch.tensor(labels)

    data = Data(Split(0, 1), Split(0, 2), None, (1, 8, 8), ("a", "b"), 1)
    with pytest.raises(DataError, match="the validation split has label 2, must be 0 to 1"):
        check_labels(data)


def test_the_augmented_pixels_depend_on_neither_workers_nor_memory_nor_batch_size(images):
    import torch

    from runner.assemble import assemble

    parts = ["data=imagefolder", f"data.root={images}", "model=linear", "augment=[crop,hflip,cutout]"]

    def pixels(count, *more):
        stream = assemble(job(*parts, *more).config).batches.stream(0, count)
        return torch.cat([batch for batch, _ in stream])

    one = pixels(2, "data.batch_size=64", "data.workers=1")
    assert torch.equal(one, pixels(2, "data.batch_size=64", "data.workers=2"))
    assert torch.equal(one, pixels(4, "data.batch_size=32", "data.workers=2", "data.memory=1"))
