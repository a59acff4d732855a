"""The registry: names, knobs, context, and every YAML against its component's signature, both ways."""

from pathlib import Path

import pytest
import torch
import yaml

import runner.components  # noqa: F401
from runner import registry, schema
from runner.errors import ConfigError
from runner.tasks import load_tasks

CONF = Path(__file__).parent.parent / "conf"
MANY = {"augment", "regularizer", "probe", "metric", "tracker"}
NOT_KINDS = {"recipe"}
OPTIONS = [(p.parent.name, p.stem) for p in sorted(CONF.glob("*/*.yaml")) if p.parent.name not in NOT_KINDS]


def kinds():
    load_tasks()
    return sorted({kind for kind, _ in OPTIONS})


def knobs_in_yaml(kind, name):
    content = yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())
    if kind in MANY:
        assert list(content) == [name]
        return content[name] or {}
    assert next(iter(content)) == "name"
    assert content.pop("name") == name
    return content


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_every_yaml_fits_its_component(kind, name):
    kinds()
    wanted = registry.knobs(registry.find(kind, name))
    given = knobs_in_yaml(kind, name)
    assert set(given) == set(wanted)
    for knob, value in given.items():
        schema.check(f"{kind}.{knob}", value, wanted[knob])


@pytest.mark.parametrize("kind", kinds())
def test_every_component_has_a_yaml(kind):
    ours = [n for n in registry.names(kind) if registry.find(kind, n).__module__.startswith("runner.")]
    assert ours == sorted(name for k, name in OPTIONS if k == kind)


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_every_yaml_and_component_says_what_it_is(kind, name):
    kinds()
    assert (CONF / kind / f"{name}.yaml").read_text().startswith("# ")
    assert registry.find(kind, name).__doc__


def test_knobs_have_no_default_outside_the_yaml():
    import inspect

    for kind, name in OPTIONS:
        kinds()
        for parameter in inspect.signature(registry.find(kind, name)).parameters.values():
            assert parameter.default is parameter.empty, f"{kind}={name}: {parameter.name}"


def test_a_second_component_of_a_name_is_refused_with_both_named():
    def other():
        """Stand in for a clash."""

    with pytest.raises(ConfigError, match=r"optim=sgd is registered twice: by runner\.components\.optim\S+ and by "):
        registry.register("optim", "sgd")(other)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"name": "smapler"}, "model: unknown option 'smapler'"),
        (
            {"name": "mlp", "hiden": [4]},
            "model.hiden: unknown key 'hiden'; did you mean 'hidden'? (choose from: hidden)",
        ),
        ({"name": "mlp"}, "model.hidden: missing"),
        ({"name": "mlp", "hidden": [4, 0]}, "model.hidden[1]: got 0, must be >= 1"),
        ({"name": "mlp", "hidden": 4}, "model.hidden: got 4, must be a list [a,b,...]"),
        ({"name": "mlp", "hidden": [4.5]}, "model.hidden[0]: got 4.5, must be a whole number"),
    ],
)
def test_build_refuses_in_one_line(config, line):
    context = {"shape": (1, 8, 8), "num_classes": 10, "activation": None, "norm": None}
    with pytest.raises(ConfigError) as caught:
        registry.build("model", config, **context)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_class_of_shared_knobs_brings_its_knobs_and_is_built_from_the_same_context():
    @registry.shared_knobs
    class Sized:
        def __init__(self, shape, *, size: schema.PositiveInt) -> None:
            self.shape, self.size = shape, size

    @registry.register("test_kind")
    def part(sized: Sized, other, *, rate: schema.Unit):
        """Return what it was given."""
        return sized.shape, sized.size, other, rate

    try:
        assert registry.knobs(part) == {"size": schema.PositiveInt, "rate": schema.Unit}
        config = {"name": "part", "size": 3, "rate": 0.5}
        assert registry.build("test_kind", config, shape=(1, 2), other=7) == ((1, 2), 3, 7, 0.5)
        with pytest.raises(ConfigError, match=r"test_kind\.size: got 0, must be >= 1"):
            registry.build("test_kind", {**config, "size": 0}, shape=(1, 2), other=7)
        with pytest.raises(ConfigError, match="asks for 'shape'"):
            registry.build("test_kind", config, other=7)
    finally:
        registry._parts.pop("test_kind")
        registry._knob_classes.discard(Sized)


def test_an_optimizer_that_asks_for_the_model_and_has_its_own_knobs_is_built():
    @registry.register("optim", "of_a_user")
    def of_a_user(model, fused, *, lr: schema.Positive):
        """Return gradient descent."""
        return torch.optim.SGD(model.parameters(), lr=lr, fused=fused)

    try:
        config = {"name": "of_a_user", "lr": 0.5}
        assert registry.build("optim", config, model=torch.nn.Linear(2, 2), fused=None).param_groups[0]["lr"] == 0.5
    finally:
        registry._parts["optim"].pop("of_a_user")


def test_context_is_handed_over_by_name_only():
    @registry.register("test_kind")
    def part(shape, *, size: schema.PositiveInt):
        """Return what it was given."""
        return shape, size

    try:
        built = registry.build("test_kind", {"name": "part", "size": 3}, shape=(1, 2), other="not asked for")
        assert built == ((1, 2), 3)
        with pytest.raises(ConfigError, match="asks for 'shape'"):
            registry.build("test_kind", {"name": "part", "size": 3})
    finally:
        registry._parts.pop("test_kind")
