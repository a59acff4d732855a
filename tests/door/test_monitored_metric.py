"""A monitored metric is computed without being listed; its direction is read from its source."""

import pytest
from running import job

import runner.components  # noqa: F401
from runner.annotations import lower_is_better
from runner.directions import monitor_by_tag, monitor_in
from runner.door.compose import hydra_opened
from runner.door.jobs import single_job
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.door.variants import Composer, vary
from runner.errors import ConfigError
from runner.hashes import hash8
from runner.registry import find, names

OWN = {"aurc": True, "balanced_accuracy": False, "brier": True, "ece": True, "f1_macro": False, "top5": False}
PLUGIN = '''
from runner.engine import metrics
from runner.engine.metrics import Metric, lower_is_better, mean_over_examples
from runner.registry import register

@register("metric")
@lower_is_better
def mean_rank(*, base: int) -> Metric:
    """Return the mean rank of the label, the best having the rank `base`."""
    return mean_over_examples(lambda outputs, labels: (outputs > outputs.gather(1, labels[:, None])).sum(1) + base)

@metrics.lower_is_better
@register("metric", "size")
class Size: ...

@register("metric", name="share")
def other() -> Metric: ...
'''


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / "lab_metrics.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    lower_is_better.cache_clear()


def test_the_direction_in_the_source_is_that_of_the_component():
    assert {name: monitor_by_tag(f"val/{name}").lower_is_better for name in names("metric")} == OWN
    assert {name: getattr(find("metric", name), "lower_is_better", False) for name in names("metric")} == OWN
    assert monitor_by_tag("val/ece").direction == "minimize" and monitor_by_tag("val/f1_macro").direction == "maximize"
    assert monitor_by_tag("val/ece").better(0.1, 0.2) and monitor_by_tag("val/ece").rank(0.1) == -0.1


@pytest.mark.parametrize(("name", "lower"), [("mean_rank", True), ("size", True), ("share", False)])
def test_the_direction_of_a_user_s_metric_is_known_before_it_is_imported(name, lower, lab):
    assert monitor_by_tag(f"val/{name}", ["lab_metrics"]).larger_is_better == (not lower)


@pytest.mark.parametrize("plugins", [[], ["lab_metrics"], ["nowhere"]])
def test_a_metric_that_is_found_nowhere_has_no_direction(plugins, lab):
    with pytest.raises(ConfigError, match=r"^monitor: got 'val/mine', but .* registers no metric 'mine'; name its"):
        monitor_by_tag("val/mine", plugins)


def test_scores_of_every_validation_have_a_direction_of_their_own():
    assert monitor_in({"monitor": "val/nll"}).direction == "minimize"
    assert monitor_in({"monitor": "train_eval/accuracy"}).direction == "maximize"


def test_a_monitored_metric_is_chosen():
    assert job().config["metric"] == {}
    assert job("monitor=val/nll").config["metric"] == {}
    assert job("monitor=val/ece").config["metric"] == {"ece": {}}
    assert list(job("monitor=val/ece", "metric=[top5]").config["metric"]) == ["top5", "ece"]
    assert list(job("monitor=val/ece", "metric=[ece,top5]").config["metric"]) == ["ece", "top5"]


def test_trials_of_a_sweep_compute_the_metric_that_each_monitors():
    conf, found = find_conf(), {}
    with hydra_opened(conf):
        composer = Composer(conf)
        for score in ("val/ece", "val/accuracy", "val/top5", "val/loss"):
            found[score] = composer.trial(read_overrides(conf, [f"monitor={score}", "optim.lr=0.5"])).config
            assert single_job(found[score], []).config == job(f"monitor={score}", "optim.lr=0.5").config
    assert [list(each["metric"]) for each in found.values()] == [["ece"], [], ["top5"], []]


def test_a_variant_of_a_config_computes_what_it_monitors():
    conf = find_conf()
    with hydra_opened(conf):
        assert vary(conf, job().config, {"monitor": "val/f1_macro"})["metric"] == {"f1_macro": {}}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["monitor=val/f1"], "monitor: unknown value 'val/f1'"),
        (["monitor=val/f1_marco"], "monitor: unknown value 'val/f1_marco'; did you mean 'val/f1_macro'?"),
        (["monitor=f1_macro"], "monitor: unknown value 'f1_macro'; did you mean 'val/f1_macro'?"),
        (["monitor=train_eval/ece"], "monitor: unknown value 'train_eval/ece'"),
        (["metric=[f1]"], "metric: unknown option 'f1'"),
        (["metric=ece", "metric.top5.k=3"], "metric.top5: 'top5' is not chosen; add it: metric=[ece,top5]"),
        (["monitor=val/ece", "metric.ece.bins=3"], "metric.ece.bins: unknown key 'bins'"),
        (["loss=mse", "monitor=val/ece"], "monitor: got 'val/ece', must be another one with loss=mse: its outputs"),
        (["loss=hinge", "monitor=val/ece"], "monitor: got 'val/ece', must be another one with loss=hinge: its"),
        (["loss=mse", "monitor=val/aurc"], "monitor: got 'val/aurc', must be another one with loss=mse: its outputs"),
        (["task=compare", "task.metric=val/acuracy"], "task.metric: unknown value 'val/acuracy'; did you mean 'val/ac"),
        (["task=compare", "task.metric=train_eval/accuracy"], "task.metric: unknown value 'train_eval/accuracy'"),
        (["predictions=alway"], "predictions: unknown value 'alway'; did you mean 'always'?"),
    ],
)
def test_a_wrong_score_is_refused_in_one_line(words, line):
    with pytest.raises(ConfigError) as caught:
        job(*words)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_what_is_computed_changes_no_experiment_but_what_is_monitored_does():
    assert job("metric=[ece]").hash8 == job().hash8 == job("predictions=never").hash8
    assert job("monitor=val/ece").hash8 != job().hash8
    assert job("monitor=val/ece").hash8 == job("monitor=val/ece", "metric=[top5]").hash8


def test_the_knobs_of_the_monitored_metric_are_part_of_the_experiment():
    config = {**job().config, "plugins": ["lab_metrics"], "metric": {"mean_rank": {"base": 1}}}
    other = {**config, "metric": {"mean_rank": {"base": 2}}}
    assert hash8(config) == hash8(other)
    assert hash8({**config, "monitor": "val/mean_rank"}) != hash8({**other, "monitor": "val/mean_rank"})
