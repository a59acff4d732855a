"""The commands of the pages run as written, in bash, in the order of each page and in one folder.

What a page needs beside its own commands is made before: photos, tables, arrays. Pages whose commands other tests run
(extending, metrics, python_api, recipes, using) are left out.
"""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from documented import commands
from PIL import Image
from running import ROOT
from sklearn.datasets import load_iris, load_wine

pytestmark = pytest.mark.slow

_GUIDES = (
    "averages",
    "calibration",
    "comparing",
    "cross_validation",
    "data",
    "distillation",
    "ensembles",
    "faq",
    "init_report",
    "labels",
    "transfer",
    "weights",
    "width",
)
PAGES = ["README.md", *(f"docs/{name}.md" for name in (*_GUIDES, "weights"))]
# Words of commands that are not run here, and why
NOT_HERE = {
    "resnt": "shows an error",
    "my_lab": "test_extension runs it",
    "submitit": "needs Slurm: test_hydra_launchers",
    "recipe=transfer_tour": "takes minutes: tasks/test_transfer_trials.py",
    "recipe=lecture_init": "takes 1.8 GiB: test_init_report",
    "mnist.npz": "no such file here",
    "titanic": "no such file here",
    "patient[0-9]": "other names of files: test_data_groups",
    "resnet18": "no such file here",
    "IMAGENET1K": "downloads",
    "recipe=search_finetune": "makes 16 trials: test_search_run",
}


def photos(folder):
    """Write images of two classes, named by class and patient, with a table of their labels."""
    rng, rows = np.random.default_rng(0), ["file,label,split,patient"]
    for number in range(60):
        label = ("ants", "bees")[number % 2]
        file = f"{label}/{label}_{number}.png"
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8) // (1 + number % 2)
        Image.fromarray(pixels).save(folder / "photos" / file)
        rows.append(f"{file},{label},{('train', 'train', 'train', 'val', 'test')[number // 2 % 5]},p{number // 4}")
    (folder / "photos" / "labels.csv").write_text("\n".join(rows) + "\n")
    shutil.copy(folder / "photos" / "labels.csv", folder / "labels.csv")


def tables(folder):
    """Write iris as a table, and wine as arrays."""
    iris = load_iris()
    lines = [",".join(map(str, (*row, iris.target_names[k]))) for row, k in zip(iris.data, iris.target, strict=True)]
    (folder / "iris.csv").write_text("\n".join(["a,b,c,d,species", *lines]) + "\n")
    wine = load_wine()
    np.savez(folder / "wine.npz", x=wine.data.astype("float32"), y=wine.target)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_as_written(page, tmp_path):
    photos(tmp_path)
    tables(tmp_path)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ran = 0
    for command in commands(ROOT / page, inline=False):
        if command.is_template or any(word in command.text for word in NOT_HERE):
            continue
        done = subprocess.run(
            ["bash", "-c", command.text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command.text}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran
