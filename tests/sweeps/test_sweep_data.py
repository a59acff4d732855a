"""A sweep uses no score of other data: other roots, changed images, moved and copied folders, searches, launchers."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import ROOT, command, result
from test_data_identity import write_images
from trials import trial_folders as folders

SMALL = (
    "data=imagefolder", "data.size=[6,6]", "data.workers=0", "model=linear", "augment=[]", "probe=[]", "steps=4",
    "hydra.launcher.workers=2", "device=cpu",
)  # fmt: skip
AGAIN = "already done"


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", count=8)


def sweep(*words, cwd, **changes):
    done = command("-m", *SMALL, *words, cwd=cwd, **changes)
    assert done.returncode == 0, done.stderr
    return done


def scores(cwd):
    return {name: result(path)["scores"]["val"]["best"]["loss"] for name, path in folders(cwd).items()}


@pytest.mark.slow
@pytest.mark.ci_slice
def test_the_same_command_on_other_data_gives_their_scores(images, tmp_path):
    write_images(tmp_path / "other", count=8, seed=1)
    sweep("data.root=images", "seed=0,1", cwd=tmp_path)
    first = scores(tmp_path)
    done = sweep("data.root=other", "seed=0,1", cwd=tmp_path)
    assert AGAIN not in done.stdout
    assert done.stderr.count("\n") == 1 and "2 trials here are of other data" in done.stderr
    both = scores(tmp_path)
    added = {name: score for name, score in both.items() if name not in first}
    assert len(added) == 2 and {name.rpartition("-data")[0] for name in added} == set(first)
    # What a sweep of its own finds
    sweep("data.root=other", "seed=0,1", "outputs=apart", cwd=tmp_path)
    apart = {path.parent.name: path.parent for path in tmp_path.glob("apart/sweeps/*/*/result.json")}
    assert {name: result(path)["scores"]["val"]["best"]["loss"] for name, path in apart.items()} == {
        name.rpartition("-data")[0]: score for name, score in added.items()
    }
    # Each command finds its own again, the same images in another place too
    shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)
    for root in ("copy", "images", "other"):
        assert sweep(f"data.root={root}", "seed=0,1", cwd=tmp_path).stdout.count(AGAIN) == 2
    assert scores(tmp_path) == both


@pytest.mark.slow
@pytest.mark.ci_slice
def test_changed_images_in_the_same_place_are_other_data(images, tmp_path):
    sweep("data.root=images", "seed=0,1", cwd=tmp_path)
    path = next((images / "bees").glob("*.png"))
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert AGAIN not in sweep("data.root=images", "seed=0,1", cwd=tmp_path).stdout
    assert len(folders(tmp_path)) == 4


@pytest.mark.parametrize("place", ["images", pytest.param("elsewhere", marks=[pytest.mark.slow, pytest.mark.ci_slice])])
def test_other_labels_of_the_same_images_are_other_data(images, tmp_path, place):
    files = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    table = tmp_path / place / "labels.csv"
    table.parent.mkdir(exist_ok=True)

    def label(turned):
        rows = [f"{name},{'ab'[(number + turned * (number % 3)) % 2]}" for number, name in enumerate(files)]
        table.write_text("\n".join(["file,label", *rows]) + "\n")
        # So that the state of the files is trusted, and the answer kept
        time.sleep(max(0.0, table.stat().st_mtime + 2.5 - time.time()))

    words = ("data.root=images", f"data.labels={table}", "seed=0,1")
    label(turned=0)
    sweep(*words, cwd=tmp_path)
    assert sweep(*words, cwd=tmp_path).stdout.count(AGAIN) == 2
    label(turned=1)
    assert AGAIN not in sweep(*words, cwd=tmp_path).stdout
    assert len(folders(tmp_path)) == 4


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_repeated_sweep_finds_its_data_without_torch(images, tmp_path):
    # So that the state of the files is trusted
    time.sleep(max(0.0, images.stat().st_mtime + 2.5 - time.time()))
    sweep("data.root=images", "seed=0,1", cwd=tmp_path)
    program = (
        "import sys\nfrom runner.__main__ import main\n"
        "assert main(sys.argv[1:]) == 0\nassert 'torch' not in sys.modules\n"
        "import runner.sweeps.data_check as data_check\n"
    )
    blocked = "import runner.sweeps.data_check as d\nd.ask_process = None\n"
    words = ["-m", *SMALL, "data.root=images", "seed=0,1"]
    done = subprocess.run(
        [sys.executable, "-c", blocked + program, *words],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(AGAIN) == 2


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_sweep_resumes_from_another_folder_and_in_another_place(images, tmp_path):
    sweep("data.root=images", "seed=0,1", cwd=tmp_path)
    folder = next((tmp_path / "outputs" / "sweeps").iterdir())
    for path in list(folders(tmp_path).values())[:1]:
        shutil.rmtree(path)
    (tmp_path / "away").mkdir()
    done = command(f"resume={folder}", cwd=tmp_path / "away")
    assert (done.returncode, done.stdout.count(AGAIN)) == (0, 1), done.stderr
    images.rename(tmp_path / "moved")
    done = command(f"resume={folder}", "data.root=../moved", cwd=tmp_path / "away")
    assert (done.returncode, done.stdout.count(AGAIN)) == (0, 2), done.stderr
    # Without their data nobody can say that the scores are theirs
    shutil.rmtree(tmp_path / "moved")
    done = command(f"resume={folder}", cwd=tmp_path / "away")
    assert (done.returncode, done.stderr.count("\n")) == (7, 1), done.stderr
    assert "is not a folder" in done.stderr
    assert [result(path)["status"] for path in folders(tmp_path).values()] == ["done"] * 2


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_search_on_other_data_is_another_study(images, tmp_path):
    pytest.importorskip("optuna")
    write_images(tmp_path / "other", count=8, seed=1)
    search = (
        "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=2",
        "optim.lr=tag(log,interval(0.001,0.1))",
    )  # fmt: skip
    sweep("data.root=images", *search, cwd=tmp_path)
    first = scores(tmp_path)
    done = sweep("data.root=other", *search, cwd=tmp_path)
    assert "2 points were tried on other data" in done.stderr
    both = scores(tmp_path)
    assert len(both) == 4 and {name for name in both if "-data" not in name} == set(first)
    done = sweep("data.root=images", *search, cwd=tmp_path)
    assert scores(tmp_path) == both and done.stderr == ""


@pytest.mark.slow
@pytest.mark.ci_slice
def test_the_launchers_of_hydra_use_no_score_of_other_data(images, tmp_path):
    write_images(tmp_path / "other", count=8, seed=1)
    words = ("seed=0", "hydra/launcher=basic", "hydra.sweep.subdir=number_${hydra:job.num}")
    basic = tuple(word for word in SMALL if not word.startswith("hydra."))
    for root, done_again in (("images", 0), ("other", 0), ("other", 1), ("images", 1)):
        done = command("-m", *basic, *words, f"data.root={root}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(AGAIN) == done_again, (root, done.stdout)
    assert len(folders(tmp_path)) == 2


PLUGIN = """
import os

import torch

from runner.engine.contracts import Data, Images
from runner.registry import register
from runner.schema import PositiveInt


@register("data")
def mine(*, batch_size: PositiveInt) -> Data:
    labels = torch.arange(30) % 3
    pixels = torch.full((30, 3, 2, 2), int(os.environ["VALUE"]), dtype=torch.uint8)
    split = Images(pixels, labels)
    return Data(split, split, None, (3, 2, 2), ("a", "b", "c"), batch_size)
"""


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_users_own_set_is_compared_by_labels_and_pixels(tmp_path):
    (tmp_path / "my_sets.py").write_text(PLUGIN)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text("# My own\nname: mine\nbatch_size: 10\n")
    words = ("--config-dir", "conf", "plugins=[my_sets]", "data=mine", "seed=0,1")
    small = tuple(word for word in SMALL if not word.startswith("data"))
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    for value, done_again in (("1", 0), ("1", 2), ("2", 0), ("1", 2)):
        done = command("-m", *small, *words, cwd=tmp_path, PYTHONPATH=paths, VALUE=value)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(AGAIN) == done_again
    assert len(folders(tmp_path)) == 4


def test_results_without_a_fingerprint_are_accepted_with_one_line(tmp_path):
    import json

    words = tuple(word for word in SMALL if not word.startswith("data"))
    done = command("-m", *words, "seed=0,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for path in folders(tmp_path).values():
        record = result(path)
        assert record.pop("data")
        Path(path / "result.json").write_text(json.dumps(record))
    done = command("-m", *words, "seed=0,1", cwd=tmp_path)
    assert (done.returncode, done.stdout.count(AGAIN), done.stderr.count("\n")) == (0, 2, 1)
    assert "2 results have no fingerprint of the data" in done.stderr
