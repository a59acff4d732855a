"""`data.batch_size=auto`: the largest batch that fits on the device, found by steps of the run itself.

Sizes divide the images of a step, so accumulation keeps these. Each trial builds the run anew and makes two steps and
a batch of each validation; what it built is thrown away, and the run begins as if its config had had the numbers.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner import plain_yaml, user_paths
from runner.assemble import Experiment, assemble
from runner.assemble.data import eval_batch
from runner.assemble.load_data import Loaded
from runner.batch_sizes import is_automatic, sizes_of, with_batch
from runner.engine.evaluation import predict_batches
from runner.engine.free_memory import free_memory
from runner.engine.parts import BATCH_NORMS
from runner.engine.short_run import short_run
from runner.errors import KEY, OUT_OF_MEMORY, ConfigError, Diverged, brief, short_reason
from runner.printing import counted, size_in_words
from runner.tasks.job import Job
from runner.tasks.out_of_memory import out_of_memory

_CONFIG = "config.yaml"
# The first step allocates the state of the optimizer, the second one has it beside its gradients
_STEPS = 2
# Images whose memory is measured on the CPU: batch norms need more than one
_MEASURED = 2
# The share of the machine's free memory that activations may take. The rest is for their gradients: a process that
# asks for too much is not told but killed.
_MEMORY_SHARE = 1 / 2
# What a trial leaves free for the run's logs and checkpoints, and for gaps between tensors: a share of a GPU; without
# one, bytes and a share of the activations
_SPARE_OF_GPU, _SPARE, _SPARE_SHARE = 1 / 20, 128 * 2**20, 1 / 4


def with_batch_size(job: Job, loaded: Loaded, folder: Path | None = None) -> tuple[Job, Loaded, list[str]]:
    """Return a job with the largest batch that fits if its config has `auto`, its data, and lines for the summary.

    A run that was begun in `folder` keeps its batch size. Raises ConfigError if not even one image fits.
    """
    if not is_automatic(job.config):
        return job, loaded, []
    if job.world.size > 1:
        raise ConfigError(
            f"data.batch_size: got 'auto' in {job.world.size} processes, whose devices may hold different numbers of "
            "images; choose a number"
        )
    config = _as_begun(job, folder)
    lines = [f"batch size: {_in_words(config)}, as this run began"] if config else []
    if config is None:
        config, line = _find(job.config, loaded)
        lines = [line]
    data = replace(loaded.data, batch_size=config["data"]["batch_size"])
    return replace(job, config=config), replace(loaded, data=data), lines


def _as_begun(job: Job, folder: Path | None) -> dict[str, Any] | None:
    """Return the config with the batch size of the run that was begun in a folder, None if there is none."""
    path = folder / _CONFIG if folder else None
    if path is None or not user_paths.is_file(path):
        return None
    saved = plain_yaml.load(path)
    batch = saved["data"].get("batch_size") if isinstance(saved.get("data"), dict) else None
    whole = job.config["effective_batch_size"]
    return with_batch(job.config, batch) if type(batch) is int and batch > 0 and whole % batch == 0 else None


def _find(config: dict[str, Any], loaded: Loaded) -> tuple[dict[str, Any], str]:
    """Return a config with the largest batch that fits, and a line about it."""
    trials = _Trials(config, loaded)
    batch = largest_that_fits(sizes_of(config["effective_batch_size"]), trials.fits)
    if batch is None:
        raise trials.refusals[min(trials.refusals)]
    found = with_batch(config, batch)
    line = f"batch size: {_in_words(found)}, found by trial on {trials.device}"
    if found["accumulate"] > 1 and trials.has_batch_norm:
        line += f"; batch norms see {counted(batch, 'image')} at a time, so another device may give other results"
    return found, line


def _in_words(config: dict[str, Any]) -> str:
    """Return the images of a forward pass and of a step in words."""
    batch, parts = config["data"]["batch_size"], config["accumulate"]
    whole = config["effective_batch_size"]
    return f"{counted(batch, 'image')} at a time, {parts} times in a step of {whole}" if parts > 1 else f"{whole}"


def largest_that_fits(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """Return the largest of some sizes, from 1 in ascending order, that fits; None if none does.

    The largest one is tried first. While a size does not fit, the next one is at most half of it; then the sizes
    between the last two are halved.
    """
    too_large, at = len(sizes), len(sizes) - 1
    while not fits(sizes[at]):
        if at == 0:
            # Batch norm may refuse one image and take two
            return next((size for size in sizes[1:too_large] if fits(size)), None)
        too_large = at
        at = max(place for place in range(at) if sizes[place] <= sizes[too_large] / 2)
    while too_large - at > 1:
        between = (at + too_large) // 2
        at, too_large = (between, too_large) if fits(sizes[between]) else (at, between)
    return sizes[at]


class _Trials:
    """Tries batch sizes with the steps of a run.

    Attributes:
        refusals: The error about each size that did not fit.
        device: The name of the device.
        has_batch_norm: Whether the model has norms whose statistics are those of a batch.
    """

    def __init__(self, config: dict[str, Any], loaded: Loaded) -> None:
        # Compiling takes minutes, and a compiled model needs no more memory. The largest images come last
        self._config, self._loaded = {**config, "compile": False, "resize": {"name": "none"}}, loaded
        self._bytes_per_image: float | None = None
        # Whether the steps of the present trial are made, and it evaluates
        self._has_trained = False
        self.refusals: dict[int, ConfigError] = {}
        self.device, self.has_batch_norm = "", False

    def fits(self, batch: int) -> bool:
        """Return True if steps with so many images at a time do not run out of memory."""
        config = with_batch(self._config, batch)
        refusal, self._has_trained = None, False
        try:
            refusal = self._tried(config, batch)
        except Diverged:
            # That is for the run to say, and the memory was there
            pass
        except ConfigError:
            # A size that other settings refuse, such as one image for batch norm, after one that did not fit
            if not self.refusals or self._has_trained:
                raise
            return False
        except Exception as error:
            refusal = out_of_memory(error, config)
            if refusal is None:
                raise
            if self._has_trained and batch <= eval_batch(1):
                raise ConfigError(
                    f"{OUT_OF_MEMORY} in evaluation, with batches of {eval_batch(batch)} images; "
                    f"choose a smaller model or image ({brief(short_reason(error), KEY)})"
                ) from error
        # After the error, whose frames hold the tensors
        _free(self.device.partition(":")[0])
        if refusal is not None:
            self.refusals[batch] = refusal
        return refusal is None

    def _tried(self, config: dict[str, Any], batch: int) -> ConfigError | None:
        """Make the steps of a trial; return the error for a size that the free memory of the machine does not hold."""
        data = replace(self._loaded.data, batch_size=batch)
        experiment = assemble(config, loaded=replace(self._loaded, data=data))
        recipe, learner, device = experiment.recipe, experiment.learner, experiment.device
        self.device = str(device)
        self.has_batch_norm = any(isinstance(module, BATCH_NORMS) for module in learner.model.modules())
        if device.type == "cpu" and (refusal := self._beyond_free_memory(experiment, batch)):
            return refusal
        spare = self._spare(device, batch)
        short_run(recipe, learner, experiment.batches, steps=min(_STEPS, recipe.total_steps))
        self._has_trained = True
        for batches in experiment.validation.values():
            for _ in predict_batches(recipe, learner.average.module, islice(batches, 1)):
                pass
        del spare
        return None

    def _spare(self, device: torch.device, batch: int) -> Tensor:
        """Return a tensor that takes the memory which a trial leaves free."""
        size = int(_SPARE + _SPARE_SHARE * (self._bytes_per_image or 0) * batch)
        if device.type == "cuda":
            size = int(torch.cuda.get_device_properties(device).total_memory * _SPARE_OF_GPU)
        # Nothing is written to it, so on the CPU it is address space only
        return torch.empty(size, dtype=torch.uint8, device=device)

    def _beyond_free_memory(self, experiment: Experiment, batch: int) -> ConfigError | None:
        """Return the error for a size whose activations need more than a share of the machine's free memory."""
        if self._bytes_per_image is None:
            with closing(experiment.batches.stream(0, 1)) as stream:
                images, labels = experiment.recipe.mix(*next(stream), 0)
            count = min(batch, len(images), _MEASURED)
            self._bytes_per_image = kept_bytes(experiment, images[:count], labels[:count]) / count
        needed, free = self._bytes_per_image * batch, free_memory()
        if needed <= free * _MEMORY_SHARE:
            return None
        return ConfigError(
            f"{OUT_OF_MEMORY} with batches of {counted(batch, 'image')}: activations of {size_in_words(int(needed))}, "
            f"and {size_in_words(free)} are free; choose a smaller model or image"
        )


def kept_bytes(experiment: Experiment, images: Tensor, labels: Tensor) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, besides the weights; the model is changed."""
    recipe, model = experiment.recipe, experiment.learner.model
    known, total = {p.untyped_storage().data_ptr() for p in model.parameters()}, 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            total += storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), recipe.autocast():
        # Kept until here, so that no storage has the place of an earlier one
        loss = recipe.loss(recipe.forward(model, images), labels)
    del loss
    return total


def _free(kind: str) -> None:
    """Free the memory of what nothing refers to any more on a kind of device, and forget its peak."""
    gc.collect()
    if kind == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif kind == "mps":
        torch.mps.empty_cache()
