"""`init_from`: what of a file goes into a model, against torch's own loading, torchvision and timm."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from running import MLP, job
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from runner.assemble import assemble
from runner.assemble.fit_weights import load_weights
from runner.assemble.read_weights import InitialWeights
from runner.engine.parts import is_kept
from runner.engine.state_dict import StateDict
from runner.engine.weights_file import check_finite, read_tensors, sha256_of_tensors
from runner.errors import CheckpointError, ConfigError

RESNET = ("model=torchvision", "augment=[]", "data=synthetic", "data.kind=shapes", "data.size=32")
TINY = (*MLP, "augment=[]", "probe=[]")
TEN = tuple("0123456789")


def model_of(*words: str) -> nn.Module:
    return assemble(job(*words).config).learner.model


def lines_of(*words: str) -> list[str]:
    return [line for line in assemble(job(*words).config).summary if line.startswith("init_from")]


def small(classes: int = 10, inputs: int = 64) -> nn.Sequential:
    torch.manual_seed(7)
    parts = OrderedDict(a=nn.Linear(inputs, 8), norm=nn.BatchNorm1d(8), head=nn.Linear(8, classes))
    return nn.Sequential(parts)


def weights(model: nn.Module, classes: tuple[str, ...] | None = None) -> InitialWeights:
    return InitialWeights(StateDict(model.state_dict()), classes, "w.pt")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A ResNet-18 of torchvision with 1,000 classes and trained-looking statistics, in both kinds of file."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(1)
    model = models.resnet18(num_classes=1000)
    model(torch.randn(4, 3, 64, 64))
    torch.save(model.state_dict(), folder / "resnet18.pt")
    save_file(model.state_dict(), folder / "resnet18.safetensors")
    return folder, model.state_dict()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_all_but_a_classifier_of_other_classes_is_that_of_the_file(published, suffix):
    folder, state = published
    words = (*RESNET, f"init_from={folder}/resnet18.{suffix}", "init.head=0.5")
    experiment = assemble(job(*words).config)
    loaded = experiment.learner.model.net.state_dict()
    own = models.resnet18(num_classes=len(experiment.classes))
    own.load_state_dict({n: t for n, t in state.items() if not n.startswith("fc.")}, strict=False)
    for name, tensor in own.state_dict().items():
        assert name.startswith("fc.") or torch.equal(loaded[name], tensor), name
    assert loaded["fc.weight"].std().item() == pytest.approx(0.5, rel=0.1)
    assert "init_from: took 120 of 122 tensors" in next(line for line in experiment.summary if "took" in line)
    assert "initialized anew, for other classes (net.fc.weight, net.fc.bias)" in str(experiment.summary)


def test_model_weights_is_another_name_for_it(published):
    folder, _ = published
    words = (*RESNET, "epochs=1")
    old, new = (job(*words, f"{key}={folder}/resnet18.pt") for key in ("model.weights", "init_from"))
    assert old.config == new.config and old.hash8 == new.hash8
    assert "weights" not in new.config["model"]
    with pytest.raises(ConfigError, match=r"model\.weights: given together with init_from"):
        job(*words, f"init_from={folder}/resnet18.pt", f"model.weights={folder}/resnet18.pt")


def test_gray_images_reach_weights_of_three_colors(published):
    folder, state = published
    words = ("model=torchvision", "augment=[]", "data=digits", f"init_from={folder}/resnet18.pt")
    assert torch.equal(model_of(*words).state_dict()["net.conv1.weight"], state["conv1.weight"])


NESTS = {
    "torch": lambda state: state,
    "hub": lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "epoch": 3},
    "Lightning": lambda state: {"state_dict": {f"model.{name}": t for name, t in state.items()}, "epoch": 3},
    "parallel": lambda state: {"state_dict": {f"module.{name}": t for name, t in state.items()}},
    "compiled": lambda state: {f"_orig_mod.module.{name}": t for name, t in state.items()},
    "timm with averages": lambda state: {
        "state_dict": {name: t + 1 for name, t in state.items()},
        "state_dict_ema": state,
    },
    "half of the names": lambda state: {**{f"model.{name}": t for name, t in state.items()}, "loss.a": torch.ones(1)},
    "half precision": lambda state: {n: t.half() if t.is_floating_point() else t for n, t in state.items()},
    "bfloat16": lambda state: {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()},
}


@pytest.mark.parametrize("how", NESTS)
def test_files_of_other_programs_load_whatever_they_nest_their_tensors_in(tmp_path, how):
    donor = small()
    state = donor.state_dict()
    torch.save(NESTS[how](state), tmp_path / "w.pt")
    found, loaded = read_tensors(tmp_path / "w.pt", "init_from"), small()
    nn.init.zeros_(loaded.a.weight)
    load_weights(loaded, InitialWeights(found, None, "w.pt"), TEN)
    kind = {"half precision": torch.half, "bfloat16": torch.bfloat16}.get(how, torch.float32)
    assert all(torch.equal(t, state[n].to(kind).to(t.dtype)) for n, t in loaded.state_dict().items())


def test_a_classifier_is_taken_for_the_same_classes_and_in_their_order():
    names = ("cat", "dog", "owl")
    donor, x = small(3), torch.randn(5, 64)
    same, turned, others, unnamed = small(3), small(3), small(3), small(3)
    for model in (same, turned, others, unnamed):
        nn.init.zeros_(model.head.weight)
    load_weights(same, weights(donor, names), names)
    lines = load_weights(turned, weights(donor, names), ("owl", "cat", "dog"))
    told = load_weights(others, weights(donor, names), ("cat", "dog", "emu"))
    said = load_weights(unnamed, weights(donor), names)
    for model in (donor, same, turned):
        model.eval()
    assert torch.equal(same(x), donor(x))
    assert torch.equal(turned(x), donor(x)[:, [2, 0, 1]])
    assert not others.head.weight.any() and "initialized anew, for other classes (head.weight, head.bias)" in told[0]
    assert any("rows are put into the order" in line for line in lines)
    assert torch.equal(unnamed.head.weight, donor.head.weight) and "does not name them" in said[1]


def test_a_new_head_is_what_init_head_says_and_a_taken_one_stays(tmp_path):
    first = model_of(*TINY)
    torch.save(first.state_dict(), tmp_path / "ten.pt")
    torch.save({n: t[:3] if "head" in n else t for n, t in first.state_dict().items()}, tmp_path / "three.pt")
    taken, anew = (model_of(*TINY, "init.head=zeros", f"init_from={tmp_path}/{n}.pt") for n in ("ten", "three"))
    assert torch.equal(taken.head.weight, first.head.weight)
    assert not anew.head.weight.any()
    prior = assemble(job(*TINY, "init.head=prior", f"init_from={tmp_path}/ten.pt").config)
    assert torch.equal(prior.learner.model.head.bias, first.head.bias)
    assert not any("log class frequencies" in line for line in prior.summary)


@pytest.mark.parametrize("init", ["lsuv", "orthogonal"])
def test_no_init_touches_what_comes_from_a_file(tmp_path, init):
    words = ("model=cnn", "model.channels=[8]", "model.hidden=[]", "augment=[]", "probe=[]")
    first = model_of(*words)
    torch.save(first.state_dict(), tmp_path / "w.pt")
    again = model_of(*words, f"init={init}", f"init_from={tmp_path}/w.pt")
    assert all(torch.equal(t, first.state_dict()[n]) for n, t in again.state_dict().items())


def test_rules_freeze_what_was_loaded(tmp_path):
    torch.save({n: t for n, t in model_of(*TINY).state_dict().items() if "head" not in n}, tmp_path / "w.pt")
    rules = "optim.rules=[{match:'hidden.*',active:[1epoch,null]}]"
    model = model_of(*TINY, rules, f"init_from={tmp_path}/w.pt")
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith("hidden")}


def test_positions_are_resized_as_timm_resizes_them():
    from timm.layers import resample_abs_pos_embed

    def vit(size: int) -> nn.Module:
        torch.manual_seed(size)
        model = models.VisionTransformer(size, 8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=10)
        nn.init.normal_(model.encoder.pos_embedding)
        return model

    donor, model = vit(32), vit(48)
    lines = load_weights(model, weights(donor), TEN)
    expected = resample_abs_pos_embed(donor.encoder.pos_embedding, [6, 6], num_prefix_tokens=1)
    torch.testing.assert_close(model.encoder.pos_embedding, expected)
    assert "init_from: encoder.pos_embedding resized: (1, 17, 8) -> (1, 37, 8)" in lines


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_the_first_convolution_takes_other_channels_as_timm_does(channels):
    from timm.models import adapt_input_conv

    donor, model = nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Sequential(nn.Conv2d(channels, 4, 3))
    for each in (donor, model):
        each.append(nn.Flatten())
        each.append(nn.Linear(4, 10))
    before = donor[0].weight.detach().clone()
    lines = load_weights(model, weights(donor), TEN)
    torch.testing.assert_close(model[0].weight, adapt_input_conv(channels, before))
    assert any("input channels summed or repeated" in line for line in lines)


def test_what_the_file_or_the_model_lacks_is_said():
    donor, model = small(), small()
    donor.more = nn.Linear(2, 2)
    state = StateDict({n: t for n, t in donor.state_dict().items() if not n.startswith("norm")})
    lines = load_weights(model, InitialWeights(state, None, "w.pt"), TEN)
    assert lines[0] == "init_from: took 4 of 9 tensors from w.pt"
    assert "init_from: 4 tensors only in the model: norm.weight, norm.bias" in str(lines)
    assert "init_from: 2 tensors only in the file: more.weight, more.bias" in str(lines)


class Tied(nn.Sequential):
    """Two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__(OrderedDict(a=nn.Linear(4, 4), b=nn.Linear(4, 4), head=nn.Linear(4, 10)))
        self.b.weight = self.a.weight


@pytest.mark.parametrize("dropped", ["a.weight", "b.weight"])
def test_tied_weights_are_taken_under_either_name_and_left_alone_by_the_init(dropped):
    donor, model = Tied(), Tied()
    state = StateDict({n: t for n, t in donor.state_dict().items() if n != dropped})
    lines = load_weights(model, InitialWeights(state, None, "w.pt"), TEN)
    assert torch.equal(model.b.weight, donor.a.weight) and is_kept(model.a.weight)
    assert not any("only in" in line for line in lines)


def test_another_shape_is_refused_as_torch_refuses_it():
    with pytest.raises(RuntimeError, match="size mismatch"):
        small().load_state_dict(small(inputs=32).state_dict(), strict=False)
    with pytest.raises(CheckpointError) as caught:
        load_weights(small(), weights(small(inputs=32)), TEN)
    assert str(caught.value) == (
        "init_from: w.pt: 1 tensor has another shape than in this model, the first is a.weight "
        "((8, 32), expected (8, 64))"
    )


def test_a_file_of_which_nothing_fits_is_one_line_with_the_nearest_names():
    with pytest.raises(CheckpointError) as caught:
        load_weights(small(), weights(nn.Sequential(OrderedDict(b=nn.Linear(3, 3)))), TEN)
    assert "no tensor has a name of this model (it has b.weight, b.bias; expected a.weight, a.bias" in str(caught.value)


def test_a_tensor_that_is_not_finite_is_refused():
    donor = small()
    nn.init.constant_(donor.a.weight, float("nan"))
    with pytest.raises(CheckpointError, match=r"w\.pt: a\.weight holds values that are not finite"):
        load_weights(small(), weights(donor), TEN)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_numbers_that_are_no_weights_are_refused_where_torch_would_convert_them(dtype):
    kind = str(dtype).removeprefix("torch.")
    state = StateDict({n: t.to(dtype) if n.startswith("a.") else t for n, t in small().state_dict().items()})
    with pytest.raises(CheckpointError, match=rf"w\.pt: a\.weight is of type {kind}, expected a floating-point type"):
        load_weights(small(), InitialWeights(state, None, "w.pt"), TEN)
    # A count of batches may be a float, as where a program has converted all tensors
    state = StateDict({n: t.double() for n, t in small().state_dict().items()})
    lines = load_weights(small(), InitialWeights(state, None, "w.pt"), TEN)
    assert lines[0] == "init_from: took 9 of 9 tensors from w.pt"


def test_older_names_of_densenets_are_known_and_no_others_change():
    class Versioned(nn.BatchNorm1d):
        """Knows by its version which values it reads."""

        _version = 7

        def _load_from_state_dict(self, state_dict, prefix, local_metadata, *more):
            self.read_version = local_metadata.get("version")
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *more)

    def older() -> nn.ModuleDict:
        return nn.ModuleDict({"norm": nn.ModuleDict({"1": Versioned(4)}), "head": nn.Linear(4, 10)})

    new, donor, again = nn.ModuleDict({"norm1": Versioned(4), "head": nn.Linear(4, 10)}), older(), older()
    nn.init.normal_(donor["norm"]["1"].weight)
    state = StateDict(donor.state_dict())
    state.versions = {"norm.1": 5}
    load_weights(new, InitialWeights(state, None, "w.pt"), TEN)
    assert torch.equal(new["norm1"].weight, donor["norm"]["1"].weight) and new["norm1"].read_version == 5
    wrapped = StateDict((f"module.{name}", tensor) for name, tensor in state.items())
    load_weights(again, InitialWeights(wrapped, None, "w.pt"), TEN)
    assert torch.equal(again["norm"]["1"].weight, donor["norm"]["1"].weight)


@pytest.mark.parametrize("kind", ["sparse", "without values"])
def test_tensors_that_have_no_plain_values_are_one_line(tmp_path, kind):
    odd = torch.eye(3).to_sparse_coo() if kind == "sparse" else torch.ones(3, device="meta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"a": odd, "b": torch.ones(3)}, tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match=r"w\.pt: a is sparse, quantized or without values; expected a dense"):
            read_tensors(tmp_path / "w.pt", "init_from")


def test_complex_and_8_bit_tensors_are_read(tmp_path):
    state = {"a": torch.full((2,), 1 + 2j).conj(), "b": torch.ones(2).to(torch.float8_e4m3fn)}
    torch.save(state, tmp_path / "w.pt")
    found = read_tensors(tmp_path / "w.pt", "init_from")
    assert sha256_of_tensors(found) == sha256_of_tensors({"a": torch.full((2,), 1 - 2j), "b": state["b"]})
    check_finite(found, "init_from", "w.pt", ["a", "b"])
    with pytest.raises(CheckpointError, match="not finite"):
        check_finite({"b": torch.full((2,), torch.nan).to(torch.float8_e4m3fn)}, "init_from", "w.pt", ["b"])


def test_a_damaged_file_is_one_line_and_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for name, content in (("evil.pt", pickle.dumps(Evil())), ("cut.pt", b"PK"), ("cut.safetensors", b"12")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
            job(*TINY, f"init_from={tmp_path}/{name}")
    assert not (tmp_path / "ran").exists()


def test_a_file_of_something_else_says_what_it_is_and_how_to_save_weights(tmp_path):
    def refused(name: str) -> str:
        with pytest.raises(CheckpointError) as caught:
            read_tensors(tmp_path / name, "init_from")
        return str(caught.value).removeprefix(f"init_from: {tmp_path}/{name} ")

    for name in ("text.pt", "text.safetensors", "none.pt"):
        (tmp_path / name).write_text("" if name == "none.pt" else "hello")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    torch.save({"epoch": 3, "params": {"a": torch.ones(2)}}, tmp_path / "other.pt")
    assert refused("text.pt").startswith("cannot be read (it is damaged or not a file of torch.save: ")
    assert refused("none.pt").startswith("cannot be read (it is damaged or not a file of torch.save: ")
    assert refused("text.safetensors") == "cannot be read (not a safetensors file, or an incomplete one)"
    assert refused("list.pt") == "holds no tensors by name (it holds a list; save the model's state_dict())"
    assert refused("other.pt") == (
        "holds no tensors by name (it has epoch, params; save the model's state_dict() alone, or as 'state_dict')"
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nowhere.pt", "init_from: no file or folder at nowhere.pt; expected a run folder, a .safetensors"),
        ("w.txt", "init_from: got 'w.txt'; expected a run folder"),
        ("empty", "init_from: got 'empty'; expected a run folder, .* (it has no config.yaml)"),
        ("swept", "(name one of the runs in it)"),
        ("IMAGENET1K_V1", "but model=mlp has no published weights by name; expected a run folder"),
    ],
)
def test_what_is_no_source_is_one_line(tmp_path, monkeypatch, value, words):
    monkeypatch.chdir(tmp_path)
    Path("w.txt").touch()
    Path("empty").mkdir()
    Path("swept").mkdir()
    Path("swept/sweep.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        job(*TINY, f"init_from={value}")
    assert all(part in str(caught.value) for part in words.split(".* ")) and "\n" not in str(caught.value)


def test_the_digest_is_of_names_shapes_types_and_values_whatever_the_file(tmp_path):
    state = small().state_dict()
    torch.save({"state_dict": {f"module.{n}": t for n, t in reversed(state.items())}}, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    found = {sha256_of_tensors(read_tensors(tmp_path / name, "x")) for name in ("w.pt", "w.safetensors")}
    assert found == {sha256_of_tensors(state)}
    others = (
        {**state, "a.bias": state["a.bias"] + 1},
        {**state, "a.bias": state["a.bias"].double()},
        {**state, "a.weight": state["a.weight"].reshape(64, 8)},
        {("z" if n == "a.bias" else n): t for n, t in state.items()},
    )
    assert len(found | {sha256_of_tensors(each) for each in others}) == 5
