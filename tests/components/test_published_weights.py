"""Published weights by name: downloads that work, fail, are cut or altered, and what to do offline."""

from __future__ import annotations

import hashlib
import os
import time

import pytest
import torch
from running import job, run_in_child
from test_data_download import Server
from torch import hub
from torchvision import models

from runner.assemble import assemble, published_weights
from runner.assemble.published_weights import published_file
from runner.errors import CheckpointError, ConfigError, DataError

ARCH = "shufflenet_v2_x0_5"
MODEL = {"name": "torchvision", "arch": ARCH, "swap": None}
WORDS = ("model=torchvision", f"model.arch={ARCH}", "augment=[]", "data=synthetic", "data.kind=shapes", "data.size=32")


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a file like those that are published, and its tensors."""
    torch.manual_seed(3)
    state = models.get_model(ARCH).state_dict()
    path = tmp_path_factory.mktemp("made") / "w.pth"
    torch.save(state, path)
    return path.read_bytes(), state


@pytest.fixture
def server(content, tmp_path, monkeypatch):
    """A server in the place of the published one, and an empty folder of torch.hub."""
    server = Server(content[0])
    name = f"{ARCH}-{hashlib.sha256(content[0]).hexdigest()[:8]}.pth"
    server.file = tmp_path / "hub" / "checkpoints" / name
    real = models.get_model_weights(ARCH)["IMAGENET1K_V1"]
    entry = models.Weights(f"{server.url.rpartition('/')[0]}/{name}", real.transforms, real.meta)
    monkeypatch.setattr(published_weights, "_entry", lambda model, name: entry)
    monkeypatch.setattr(hub, "get_dir", lambda: str(tmp_path / "hub"))
    yield server
    server.close()


def left_of(server) -> list[str]:
    folder = server.file.parent
    return sorted(each.name for each in folder.iterdir() if each.name != ".lock") if folder.is_dir() else []


def test_a_file_is_downloaded_once_checked_and_loaded(server, content):
    experiment = assemble(job(*WORDS, "init_from=IMAGENET1K_V1").config)
    loaded = experiment.learner.model.net.state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in content[1].items() if not n.startswith("fc."))
    assert any(line.startswith("init_from: took") and "for other classes" in line for line in experiment.summary)
    assert left_of(server) == [server.file.name] and server.asked == 1


@pytest.mark.parametrize("how", ["500", "half", "altered"])
def test_a_download_that_fails_is_one_line_that_says_what_to_do_and_leaves_nothing(server, how):
    server.how = how
    with pytest.raises(DataError) as caught:
        published_file(MODEL, "IMAGENET1K_V1", download=True)
    said = str(caught.value)
    assert f"init_from: IMAGENET1K_V1 of {ARCH} cannot be downloaded (" in said and "\n" not in said
    assert f"put {server.file.name} from http://127.0.0.1" in said and f"into {server.file.parent}" in said
    assert left_of(server) == []
    server.how = "whole"
    assert published_file(MODEL, "IMAGENET1K_V1", download=True)[0] == server.file


def test_without_consent_nothing_is_asked_of_the_network(server):
    with pytest.raises(DataError, match="and init_download is false; put shufflenet"):
        published_file(MODEL, "IMAGENET1K_V1", download=False)
    assert server.asked == 0


def test_a_file_that_the_user_put_there_is_used_and_a_damaged_one_refused(server, content):
    server.file.parent.mkdir(parents=True)
    server.file.write_bytes(content[0])
    file, classes, *_ = published_file(MODEL, "IMAGENET1K_V1", download=False)
    assert file == server.file and len(classes) == 1000 and classes[0] == "tench"
    server.file.write_bytes(content[0][:-10])
    with pytest.raises(CheckpointError, match=r"is damaged \(its SHA-256 begins with .*; remove it"):
        published_file(MODEL, "IMAGENET1K_V1", download=True)
    assert server.asked == 0 and server.file.stat().st_size == len(content[0]) - 10


def test_a_killed_download_leaves_no_file_in_the_way(server):
    server.how = "slow"

    def killed():
        import threading

        threading.Timer(0.03, lambda: os.kill(os.getpid(), 9)).start()
        published_file(MODEL, "IMAGENET1K_V1", download=True)
        time.sleep(1)

    assert run_in_child(killed) == -9
    assert not server.file.exists()
    server.how = "whole"
    assert published_file(MODEL, "IMAGENET1K_V1", download=True)[0] == server.file
    assert left_of(server) == [server.file.name]


@pytest.mark.parametrize(
    ("model", "name", "says"),
    [
        (
            MODEL,
            "IMAGENET1K_V2",
            f"init_from: unknown weights of {ARCH} 'IMAGENET1K_V2'; did you mean 'IMAGENET1K_V1'?",
        ),
        ({**MODEL, "arch": "resnet19"}, "DEFAULT", "model.arch: unknown torchvision model 'resnet19'"),
        (
            {"name": "timm", "arch": "resnet18"},
            "DEFAULT",
            "model=timm has no published weights by name; expected a run",
        ),
        ({"name": "resnet"}, "IMAGENET1K_V1", "but model=resnet has no published weights by name"),
    ],
)
def test_what_has_no_such_weights_is_one_line(model, name, says):
    with pytest.raises(ConfigError) as caught:
        published_file(model, name, download=False)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_torchvision_publishes_the_files_that_the_names_mean():
    for arch, name in (("resnet50", "IMAGENET1K_V2"), ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")):
        entry = published_weights._entry({"name": "torchvision", "arch": arch}, name)
        assert entry is models.get_model_weights(arch)[name]
        assert published_weights._published_hash(entry.url) == hub.HASH_REGEX.search(entry.url)[1]
    assert published_weights._entry({**MODEL, "arch": "resnet50"}, "DEFAULT") is models.ResNet50_Weights.DEFAULT
