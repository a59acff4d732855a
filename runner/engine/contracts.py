"""The types between components and the engine: small records and plain callables.

Shapes: B examples, C channels, H x W pixels, K classes. Images are uint8 in 0..255 until `preprocess` makes them float.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from runner.schema import steps_of


class Split(Protocol):
    """One split of a data set; `fetch` is the only way to its pixels."""

    @property
    def labels(self) -> Tensor:
        """Return the labels (N,) int64 on the CPU."""
        ...

    def fetch(self, index: Tensor) -> Tensor:
        """Return the images (B, C, H, W), uint8, of the examples at `index` (B,) int64 on the CPU."""
        ...


@dataclass(frozen=True)
class Images:
    """A split in memory: `pixels` (N, C, H, W) uint8 and `labels` (N,) int64, both on one device."""

    pixels: Tensor
    labels: Tensor

    def fetch(self, index: Tensor) -> Tensor:
        """Return the images (B, C, H, W) uint8 at `index` (B,) int64, which lies where they lie."""
        return self.pixels.index_select(0, index)  # nine times as fast as pixels[index] for small images

    def part(self, index: Tensor) -> Images:
        """Return a copy of the examples at `index`."""
        return Images(self.fetch(index), self.labels[index])


InMemory = Literal["auto", "device", "host"]
Placement = Literal["auto", "device", "host", "disk"]


@dataclass(frozen=True)
class Data:
    """A data set in three parts that never mix; the test part is opened only by calling it.

    `look` makes sure that it can be, before a run that will do so trains, and returns what the summary says of it.
    """

    train: Split
    val: Split
    test: Callable[[], Split] | None
    shape: tuple[int, int, int]  # C, H, W
    classes: tuple[str, ...]
    batch_size: int
    placement: Placement = "auto"  # where the pixels are to lie
    notes: tuple[str, ...] = ()  # what the run's summary says of them
    look: Callable[[], tuple[str, ...]] = tuple  # tuple() has nothing to say


@dataclass(frozen=True)
class Draws:
    """The random numbers of one augmentation for one batch: a function of (seed, epoch, sample, position)."""

    uniform: Tensor  # (B, k) float32 in [0, 1) on the images' device
    epoch: int


@dataclass(frozen=True)
class Augment:
    """An augmentation of whole batches: `apply(images, draws) -> images`, `uniforms` random numbers per image.

    With `per_epoch=False` an image gets the same numbers in every epoch.
    """

    apply: Callable[[Tensor, Draws], Tensor]
    uniforms: int
    per_epoch: bool = True


@dataclass(frozen=True)
class Regularizer:
    """A penalty `model -> scalar Tensor` on the loss, a rewiring of the model, or a constraint after each step.

    `rewire` changes the model in place and returns what it did, for the run's summary ("dropout 0.5 before the head").
    """

    penalty: Callable[[nn.Module], Tensor] | None = None
    rewire: Callable[[nn.Module], str] | None = None
    constrain: Callable[[nn.Module], None] | None = None


@dataclass(frozen=True)
class Clock:
    """How long a run is, in optimizer steps; components ask for it as `clock` to turn durations into steps.

    `batch` is the number of examples of one optimizer step.
    """

    total_steps: int
    steps_per_epoch: int
    batch: int

    def steps(self, duration: str) -> int:
        """Return a duration (`2epochs`, `500steps`, `10%`) in steps, rounded to the nearest, never below 0."""
        return steps_of(duration, total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch, batch=self.batch)

    def period(self, duration: str) -> int:
        """Return a duration in steps, at least 1: what recurs cannot recur within a step."""
        return max(1, self.steps(duration))


class Average(Protocol):
    """Weights that evaluation reads: the model itself, or an average over its past."""

    module: nn.Module

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model after optimizer step number `step` (1 for the first)."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed run needs beyond the weights of `module`."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        ...


@dataclass(slots=True)
class Watched:
    """The state that a probe reads and must not change. `images` are the augmented, preprocessed inputs."""

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]  # the model's, by name
    images: Tensor  # (B, C, H, W) float
    labels: Tensor  # (B,) int64, or (B, K) float where a mix made them soft
    step: int  # optimizer steps before this one


@dataclass(slots=True)
class Outcome:
    """The result of one update: its mean loss and, where clipping computed it, the gradient's norm before clipping."""

    loss: Tensor
    grad_norm: Tensor | None


Watch = Generator[None, Outcome, "Mapping[str, Tensor | Numbers]"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers on the device, 0-dim, and what they say, by tag, once they are on the host at the next flush."""

    tensors: Sequence[Tensor]
    say: Callable[[list[float]], Mapping[str, float]]


@dataclass(frozen=True)
class Probe:
    """A measurement round one optimizer step, made at step 1 and then every `every` steps.

    `watch(watched)` is a generator with one `yield`. Before it the old weights are at hand; while it is suspended hooks
    see activations; the `yield` gives the Outcome, when gradients and new weights are there. What it returns is
    logged by the rank of each tensor: 0 a scalar, 1 the values of a histogram, 3 (C, H, W) or 4 (B, C, H, W) images.
    `Numbers` stand for all that they say, in the place of their own tag.
    """

    every: int
    watch: Callable[[Watched], Watch]


class Preprocess(Protocol):
    """A module from raw images to the model's float32 input, with statistics in buffers.

    `fit` is called once, on a fresh run, with the training split; a resumed or evaluated run loads the buffers instead.
    """

    def fit(self, train: Split) -> None:
        """Compute the statistics from the training split, in chunks."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Return the model's input (B, C, H, W) float32 for raw images of the same shape."""
        ...


Schedule = Callable[[int], float]  # optimizer steps done -> factor on each group's learning rate
Loss = Callable[[Tensor, Tensor], Tensor]  # (logits (B, K), labels (B,) or (B, K)) -> mean loss
Mix = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]  # (images, labels, random key) -> (images, labels)
Predict = Callable[[nn.Module, Tensor], Tensor]  # (model, images) -> log-probabilities (B, K)
Init = Callable[[nn.Module], None]  # sets the weights in place, from torch's global generator
ActivationMaker = Callable[[], nn.Module]
Judge = Callable[[float, int], bool]  # (monitored score of a validation, its step) -> whether the run is to end here
NormMaker = Callable[[int, int], nn.Module]  # (channels, spatial dimensions: 0 or 2) -> module
