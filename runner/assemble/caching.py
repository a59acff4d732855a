"""The decision whether the features before the head are computed once, with the line that says so."""

from __future__ import annotations

from runner.assemble.transfer import StagePlans
from runner.engine.batches import TrainBatches
from runner.engine.contracts import Data
from runner.engine.feature_cache import FeatureCache, NoCache, place_for
from runner.engine.head_features import sample_inputs, why_not_cached
from runner.engine.learner import Learner
from runner.engine.recipe import Recipe
from runner.printing import counted, size_in_words
from runner.registry import Config


def cache_features(
    config: Config, plans: StagePlans, recipe: Recipe, learner: Learner, batches: TrainBatches, data: Data
) -> NoCache:
    """Return what computes the features once, with a summary line about it if only the head is trained at first."""
    steps = plans.transfer.steps_of_head_alone(recipe.total_steps)
    if steps == 0 or plans.transfer.cache == "never":
        return NoCache()
    if reason := _random_inputs(config, batches):
        return _not_cached(reason)
    head = plans.stages[-1].parts[0]
    found = why_not_cached(learner.model, head, sample_inputs(data.shape, batches.device), recipe.autocast)
    if isinstance(found, str):
        return _not_cached(found)
    shape, size = found
    examples = len(data.train.labels) + len(data.val.labels)
    device = place_for(size * examples, batches.device)
    if device is None:
        return _not_cached(f"their {size_in_words(size * examples)} are more than a quarter of the free memory")
    line = (
        f"features before the head are computed once for the first {counted(steps, 'step')}: "
        f"{counted(examples, 'example')}, {size_in_words(size * examples)}"
    )
    is_plain = config["predict"]["name"] == "plain"
    return FeatureCache(line=line, head=head, shape=shape, steps=steps, validates=is_plain, device=device)


def _not_cached(reason: str) -> NoCache:
    """Return no cache, with the line that says why."""
    return NoCache(f"features before the head are not cached: {reason}")


def _random_inputs(config: Config, batches: TrainBatches) -> str | None:
    """Return in words what needs the images in each step, with what switches it off; None if nothing does."""
    if batches.world.size > 1:
        return f"{batches.world.size} processes share the examples of each step"
    if batches.augments:
        return f"augment=[{','.join(config['augment'])}] is random; augment=[] computes them once"
    if getattr(batches.split, "uniforms", 0):
        return "data.crop is random; data.crop=null computes them once"
    if config["distillation"]["name"] != "none":
        return f"distillation={config['distillation']['name']} needs the images in each step"
    if config["mix"]["name"] != "none":
        return f"mix={config['mix']['name']} mixes the images; mix=none computes them once"
    if config["resize"]["name"] != "none":
        return f"resize={config['resize']['name']} changes the images; resize=none computes them once"
    return None
