"""The types that components and the engine exchange: dataclasses, protocols and callables.

Shapes: N examples in a split, B in a batch, C channels, H x W pixels, K classes. Images are uint8 in 0..255 until
`preprocess` turns them into float32.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from runner.engine.data_summary import Found
from runner.engine.losses import Prediction


class Split(Protocol):
    """One split of a data set. The engine reads its pixels with `fetch` only."""

    @property
    def labels(self) -> Tensor:
        """Return the labels (N,) int64 on the CPU."""
        ...

    def fetch(self, index: Tensor) -> Tensor:
        """Return the images (B, C, H, W) uint8 at the positions `index` (B,) int64, both on the CPU."""
        ...


@dataclass(frozen=True)
class Images:
    """A split in memory: `pixels` (N, C, H, W) uint8 and `labels` (N,) int64 on the same device."""

    pixels: Tensor
    labels: Tensor

    def fetch(self, index: Tensor) -> Tensor:
        """Return the images (B, C, H, W) uint8 at the positions `index` (B,) int64, which is on the same device."""
        # Nine times as fast as pixels[index] for small images.
        return self.pixels.index_select(0, index)

    def part(self, index: Tensor) -> Images:
        """Return a copy of the examples at the positions `index` (M,) int64."""
        return Images(self.fetch(index), self.labels[index])


InMemory = Literal["auto", "device", "host"]
Placement = Literal["auto", "device", "host", "disk"]
Sampling = Literal["shuffle", "balanced"]


@dataclass(frozen=True)
class Data:
    """A data set in three disjoint splits.

    Attributes:
        train, val, test: The splits; `test` opens the test split, and is None if the data set has none.
        shape: (C, H, W) of an image.
        classes: The names of the classes.
        batch_size: The number of examples of an optimizer step.
        placement: Where the pixels are kept; `auto` is the device if they fit.
        notes: Lines about the data for the summary of a run.
        check_test: Raises DataError if the test split cannot be opened, and returns lines for the summary.
        found: The number of examples per class and split; None counts them in the open splits.
        reading: What the training images decided about reading later ones, as JSON values: `depth`.
    """

    train: Split
    val: Split
    test: Callable[[], Split] | None
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    batch_size: int
    placement: Placement = "auto"
    sampling: Sampling = "shuffle"  # what an epoch draws: `runner.engine.sampling`
    notes: tuple[str, ...] = ()
    check_test: Callable[[], tuple[str, ...]] = tuple
    found: Found | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Draws:
    """The random numbers `uniform` (B, k) float32 in [0, 1) of one augmentation for one batch, on the images' device.

    They depend on the seed, the `epoch` (from 0), the example and the position of the augmentation only.
    """

    uniform: Tensor
    epoch: int


@dataclass(frozen=True)
class Augment:
    """An augmentation of batches.

    Attributes:
        apply: (images (B, C, H, W), draws) -> augmented images.
        uniforms: The uniform random numbers that it needs per image, `draws.uniform.shape[1]`.
        per_epoch: False gives an image the same random numbers in every epoch.
    """

    apply: Callable[[Tensor, Draws], Tensor]
    uniforms: int
    per_epoch: bool = True


@dataclass(frozen=True)
class Regularizer:
    """A penalty, a change of the model, or a constraint on the weights; each part is optional.

    Attributes:
        penalty: model -> a term () that is added to the loss.
        rewire: Changes the model in place before training and returns a line for the summary of the run, such as
            "dropout 0.5 before the head".
        constrain: Changes the weights in place after each step.
        at_step: Sets modules before each step; gets the number of steps done. It must follow from the step alone, and
            not wait for the device.
    """

    penalty: Callable[[nn.Module], Tensor] | None = None
    rewire: Callable[[nn.Module], str] | None = None
    constrain: Callable[[nn.Module], None] | None = None
    at_step: Callable[[int], None] | None = None


class Average(Protocol):
    """The weights that are evaluated, in `module`: those of the model, or an average over past steps."""

    module: nn.Module

    def update(self, model: nn.Module, step: int) -> None:
        """Update the average with the weights after optimizer step `step`; the first step is 1."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state that a resumed run needs besides the weights of `module`."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state that `state_dict` returned."""
        ...


@dataclass(slots=True)
class Watched:
    """The state that a probe reads and must not change.

    Attributes:
        model: The model in training.
        parameters: The parameters of the model by name.
        images: The augmented and preprocessed inputs (B, C, H, W) float.
        labels: The labels (B,) int64, or soft labels (B, K) float after a mix.
        step: The number of optimizer steps done before this one.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    images: Tensor
    labels: Tensor
    step: int


@dataclass(slots=True)
class Outcome:
    """The result of one update: the mean loss (), and the gradient norm before clipping if clipping computed it.

    The norm is that of all gradients together (), or one per parameter with a gradient (n,) where clipping did not
    scale all gradients by one factor.
    """

    loss: Tensor
    grad_norm: Tensor | None


Watch = Generator[None, Outcome, "Mapping[str, Tensor | Numbers]"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Scalars that are computed on the host from numbers on the device, once the log has copied these to the host.

    Attributes:
        tensors: Tensors () on the device.
        to_scalars: (the values of `tensors`) -> the scalars to log, by tag.
    """

    tensors: Sequence[Tensor]
    to_scalars: Callable[[list[float]], Mapping[str, float]]


@dataclass(frozen=True)
class Probe:
    """A measurement around one optimizer step, at step 1 and then every `every` steps.

    `watch(watched)` is a generator with one `yield`. Before the `yield` the model has the old weights. During it the
    step runs, and hooks see activations. The `yield` returns the Outcome; now the parameters have their gradients and
    the new weights.

    The generator returns the values to log by tag. The rank of a tensor decides how it is logged: 0 is a scalar, 1 the
    values of a histogram, 3 (C, H, W) an image, 4 (B, C, H, W) images. In place of a `Numbers`, its scalars are logged
    with their own tags.

    Attributes:
        every: The steps between two measurements.
        watch: Measures one step.
    """

    every: int
    watch: Callable[[Watched], Watch]


class Preprocess(Protocol):
    """A module that turns raw images into the model's float32 input; its statistics are buffers.

    A new run calls `fit` once. A resumed or evaluated run loads the buffers from a checkpoint instead.
    """

    def fit(self, train: Split) -> None:
        """Compute the statistics from the training split, in chunks."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Return the model's input (B, C, H, W) float32 for raw images of the same shape."""
        ...


Schedule = Callable[[int], float]  # optimizer steps done -> factor of the initial learning rate of each group
# (images, labels, random key) -> mixed (images, labels). With an attribute `end`, not None: mixes so many first steps.
Mix = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
# (images, optimizer steps done) -> images. With an attribute `sizes`: the smaller sizes (height, width) that it gives
# and `end`, the steps after which images have full size.
Resize = Callable[[Tensor, int], Tensor]
Predict = Callable[[nn.Module, Tensor], Prediction | Tensor]  # (model, images); a tensor is log-probabilities (B, K)
Init = Callable[[nn.Module], None]  # initializes the weights in place, with torch's global generator
ActivationMaker = Callable[[], nn.Module]
ShouldPrune = Callable[[float, int], bool]  # (monitored score of a validation, its step) -> True ends the run
NormMaker = Callable[[int, int], nn.Module]  # (channels, spatial dimensions: 0 or 2) -> module
