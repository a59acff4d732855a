"""Search spaces: from Hydra's syntax to axes, values within bounds, conditions that follow the options."""

import pytest

from runner.door.compose import compose_parts, hydra_opened
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.door.search_space import make_space, search_overrides
from runner.errors import ConfigError
from runner.search.space import Axis, Space


def space(*words: str, **params) -> tuple[Space, list[str]]:
    conf = find_conf()
    given = read_overrides(conf, words)
    with hydra_opened(conf):
        parts = compose_parts(conf, [each for each in given if not each.swept])
        found, fixed = make_space(conf, parts, search_overrides(conf, params, given))
    return found, [each.word for each in fixed]


def axis(word: str) -> Axis:
    (found,) = space(word)[0].axes
    return found


@pytest.mark.parametrize(
    ("word", "kind", "low", "high", "step", "log"),
    [
        ("optim.lr=interval(1,5)", "float", 1, 5, None, False),
        ("optim.lr=tag(log,interval(1e-4,1))", "float", 1e-4, 1, None, True),
        ("data.batch_size=int(interval(8,64))", "int", 8, 64, 1, False),
        ("data.batch_size=tag(log,int(interval(8,64)))", "int", 8, 64, None, True),
        ("data.batch_size=range(1,4)", "int", 1, 3, 1, False),
        ("data.batch_size=range(8,65,8)", "int", 8, 64, 8, False),
        ("optim.lr=range(0.1,0.5,0.1)", "float", 0.1, 0.4, 0.1, False),
        ("data.batch_size=tag(log,range(1,100))", "int", 1, 99, None, True),
    ],
)
def test_numbers_are_read_as_hydra_means_them(word, kind, low, high, step, log):
    found = axis(word)
    assert (found.kind, found.step, found.log) == (kind, step, log)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_choices_keep_their_texts():
    assert axis("optim.lr=0.1,0.01").choices == ("0.1", "0.01")
    assert axis("model.hidden=[8],[16,16]").choices == ("[8]", "[16,16]")
    assert axis("optim=glob(adam*)").choices == ("adam", "adamax", "adamw")


def test_shares_go_over_the_whole_axis_on_its_scale():
    log = axis("optim.lr=tag(log,interval(1e-4,1))")
    assert [log.value_at(share) for share in (0, 0.25, 0.5, 0.75)] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    whole = axis("data.batch_size=int(interval(2,5))")
    assert [whole.value_at(share / 8) for share in range(8)] == [2, 2, 3, 3, 4, 4, 5, 5]
    wide = axis("data.batch_size=tag(log,int(interval(1,8)))")
    assert {wide.value_at(share / 1000) for share in range(1000)} == set(range(1, 9))
    stepped = axis("optim.lr=range(0.1,0.5,0.1)")
    assert stepped.values() == [0.1, 0.2, 0.3, 0.4]


def test_a_float_has_six_digits_and_never_leaves_its_interval():
    assert axis("optim.lr=interval(0,1)").value_at(1 / 3) == 0.333333
    narrow = axis("optim.lr=interval(0.12345678,0.12345679)")
    assert 0.12345678 <= narrow.value_at(0.0) <= narrow.value_at(0.99) <= 0.12345679


def test_a_knob_is_there_for_the_options_that_have_it():
    found, _ = space("optim=momentum,adam,sgd", "optim.momentum=0.5,0.9", "optim.lr=0.1,1")
    momentum = next(each for each in found.axes if each.key == "optim.momentum")
    assert momentum.when == ("optim", ("momentum",))
    assert len(found.grid()) == 2 * 2 + 2 + 2
    for point in found.grid():
        assert ("optim.momentum" in point) == (point["optim"] == "momentum")


def test_a_condition_of_a_yaml_takes_the_place_of_the_axis_for_all():
    params = {"optim.lr": "tag(log,interval(1e-2,1))", "optim=adam": {"optim.lr": "tag(log,interval(1e-4,1e-2))"}}
    found, _ = space("optim=momentum,adam", **params)
    for share in (0.0, 0.4, 0.9):
        for name in ("momentum", "adam"):
            point = found.active_point(
                {each.name: name if each.key == "optim" else each.value_at(share) for each in found.axes}
            )
            ((_, lr),) = [word for word in found.words(point) if word[0] == "optim.lr"]
            assert (float(lr) < 1e-2) == (name == "adam"), point


def test_a_condition_on_what_is_fixed_holds_for_all_points_or_none():
    params = {"optim.lr": "0.1,1", "optim=adam": {"optim.eps": "1e-8,1e-4"}}
    assert [each.name for each in space("optim=adam", **params)[0].axes] == ["optim.lr", "optim.eps"]
    assert [each.name for each in space("optim=sgd", **params)[0].axes] == ["optim.lr"]


def test_the_command_line_wins_over_the_yaml():
    found, fixed = space("optim.lr=0.5", "seed=0,1", **{"optim.lr": "0.1,1", "epochs": "3"})
    assert [each.key for each in found.axes] == ["seed"]
    assert sorted(fixed) == ["epochs=3", "optim.lr=0.5"]


@pytest.mark.parametrize(
    ("words", "params", "says"),
    [
        (["seed=1"], {}, "hydra/sweeper: the space is empty"),
        (["optim.lr=interval(1,0)"], {}, "optim.lr: got interval(1,0), must be an interval from a number to a larger"),
        (["optim.lr=tag(log,interval(0,1))"], {}, "a logarithmic axis must be above 0"),
        (["optim.lr=tag(logg,interval(1,2))"], {}, "optim.lr: unknown tag 'logg'; did you mean 'log'?"),
        (["optim.lr=tag(log,choice(1,2))"], {}, "only an interval or a range can be logarithmic"),
        (["optim.lr=tag(log,range(1,9,2))"], {}, "a logarithmic range has whole numbers and the step 1"),
        (["seed=range(3,3)"], {}, "seed: got range(3,3), which has no values"),
        (["seed=range(0,100000)"], {}, "seed: got range(0,100000), which has too many values"),
        (["seed=1,1"], {}, "seed: given twice ('1')"),
        (["seed=0,1"], {"optim": {"optim.lr": "1,2"}}, "hydra.sweeper.params.optim: must be text, or a condition like"),
        (["seed=0,1"], {"optim=addam": {"optim.lr": "1,2"}}, "unknown option 'addam'; did you mean 'adam'?"),
        (["optim=adam,sgd"], {"seed": {"seed": "1"}}, "hydra.sweeper.params.seed: must be text"),
        ([], {"plugins": "a,b"}, "plugins: allowed on the command line only"),
        ([], {"hydra.callbacks.x": "1,2"}, "hydra.callbacks.x: cannot be set"),
    ],
)
def test_what_is_no_space_is_one_line(words, params, says):
    with pytest.raises(ConfigError) as caught:
        space(*words, **params)
    assert says in str(caught.value)


def test_a_grid_that_is_too_large_is_refused_and_an_interval_has_none():
    with pytest.raises(ConfigError, match="the grid has 1000000 points, must be at most 10000"):
        Space(tuple(Axis(key=key, kind="int", low=1, high=100, step=1) for key in "abc")).grid()
    with pytest.raises(ConfigError, match="a grid tries listed values only"):
        space("optim.lr=interval(0,1)")[0].grid()
