"""Settings of the watched child processes."""

import tempfile

import pytest
import torch
from watching import SMALL, run_watched

from runner.tasks import load_tasks


@pytest.fixture(scope="session")
def imported():
    """Import once what every child would: what is imported later writes to temporary folders, or is noted."""
    import matplotlib
    import torchvision.datasets
    import torchvision.models  # noqa: F401

    tempfile.gettempdir(), matplotlib.get_cachedir(), matplotlib.get_configdir()
    torch.set_num_threads(1)
    load_tasks()


@pytest.fixture(scope="session")
def run(imported, tmp_path_factory):
    """The folder of a small run with its checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    seen = run_watched([*SMALL, "name=run"], folder)
    assert seen.code == 0 and seen.events == [], (seen.err, seen.events)
    return folder / "outputs/run"


@pytest.fixture
def work(imported, tmp_path):
    """The only folder that may be written to."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"
