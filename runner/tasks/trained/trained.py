"""`Trained`: the model of a run, ready to predict. It needs no data of the run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from runner.assemble.data import eval_batch
from runner.assemble.predictor import Predictor
from runner.components.data.pixels.decoder_messages import Findings
from runner.engine.evaluation import predict_batches
from runner.tasks.trained.image_inputs import ImageReader, find_images, image_reader
from runner.tasks.trained.read_run import restore_predictor
from runner.tasks.trained.saved_run import SavedRun, known_facts

_PATHS = (str, os.PathLike)


class Predictions(NamedTuple):
    """The predictions for N examples.

    Attributes:
        probabilities: (N, K) float32 on the CPU, by class; the logits if the loss has no probabilities.
        classes: The name of the class of each example.
    """

    probabilities: Tensor
    classes: list[str]


class Preprocess(nn.Module):
    """Turn images (B, C, H, W) uint8 into the model's input, as evaluation does.

    Images of other sizes are resized first, and floats in 0..1 become uint8.
    """

    anchor: Tensor

    def __init__(self, module: nn.Module, reader: ImageReader, device: torch.device) -> None:
        super().__init__()
        self.module, self.reader = module, reader
        # Moves with the module; the run's own may have no statistics
        self.register_buffer("anchor", torch.empty(0, device=device), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's input (B, C, H, W) float32, on the device of the model."""
        shape = self.reader.facts.shape
        if images.shape[1:] != shape or (shape[1:] != (1, 1) and images.dtype != torch.uint8):
            images = self.reader.array(images)
        found: Tensor = self.module(images.to(self.anchor.device))
        return found


class Trained:
    """The model of a run.

    Attributes:
        model: The model with the weights that the run selected (averaged, if it averages), in evaluation mode:
            `preprocess(images)` -> logits (B, K); that of an ensemble returns log-probabilities (B, K).
        preprocess: Turns images (B, C, H, W) uint8 into the input of `model`.
        classes: The names of the classes, in the order of the logits.
        shape: (C, H, W) of an example.
        config: The config of the run, of an ensemble that of its first member.
        members: The run folders of the members of an ensemble; empty for a single model.
        scores: The scores in its `result.json`.
        device: Where `model` and `preprocess` are.
        has_probabilities: False if the loss of the run has no probabilities: `predict` then returns logits.
    """

    def __init__(self, run: SavedRun, predictor: Predictor) -> None:
        self.folder, self.weights = run.folder, run.path
        self.members = tuple(member.folder for member in run.members)
        self.config, self.scores = run.config, run.result.scores
        self.classes, self.shape = predictor.facts.classes, predictor.facts.shape
        self.model, self.device = predictor.model, predictor.device
        self.has_probabilities = predictor.loss.log_probabilities is not None
        self.reader = image_reader(run.config["data"], predictor.facts)
        self.preprocess = Preprocess(predictor.preprocess, self.reader, predictor.device)
        self.predictor = predictor

    def __repr__(self) -> str:
        name = f"ensemble of {len(self.members)}" if self.members else self.config["model"]["name"]
        return f"Trained('{self.folder}': {name}, {len(self.classes)} classes, {self.weights.name}, on {self.device})"

    def predict(self, images: Any) -> Predictions:
        """Return probabilities (N, K) and the predicted classes, with the prediction method of the run.

        Args:
            images: Arrays or tensors: (N, C, H, W), (N, H, W, C), (N, H, W) or one image; whole numbers in 0..255 or
                floats in 0..1; features (N, D). Or a Pillow image, a file, a folder, a pattern, or a list of these.

        Raises:
            DataError: There are no images, or one cannot be read.
        """
        chunks = self._chunks(images)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            parts = list(self.outputs(chunks))
        found = torch.cat(parts) if parts else torch.empty(0, len(self.classes))
        classes = [self.classes[place] for place in found.argmax(1).tolist()]
        return Predictions(found.exp() if self.has_probabilities else found, classes)

    def outputs(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield log-probabilities (b, K), else logits, float32 on the CPU for examples (n, C, H, W).

        The batches are those of an evaluation, whatever the sizes of the chunks, so that the numbers are, too.
        """
        size = eval_batch(self.predictor.facts.batch_size)
        batches = ((self._to_input(batch), torch.empty(0)) for batch in _rebatched(chunks, size))
        for logits, log_p, _ in predict_batches(self.predictor, self.model, batches):
            yield (logits if log_p is None else log_p).float().cpu()

    def _to_input(self, batch: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = self.predictor.preprocess(batch.to(self.device))
        return found

    def _chunks(self, images: Any) -> Iterator[Tensor]:
        """Yield examples (n, C, H, W) of images in any form."""
        if isinstance(images, _PATHS):
            yield from self._files(find_images(images, "images")[0])
        elif _is_pillow(images):
            yield self.reader.pillow([images])
        elif isinstance(images, Sequence) and images and all(isinstance(each, _PATHS) for each in images):
            yield from self._files([file for each in images for file in find_images(each, "images")[0]])
        elif isinstance(images, Sequence) and images and all(map(_is_pillow, images)):
            yield self.reader.pillow(images)
        elif isinstance(images, Sequence) and images and all(isinstance(e, (Tensor, np.ndarray)) for e in images):
            yield from (self.reader.array(each) for each in images)
        else:
            yield self.reader.array(images)

    def _files(self, files: Sequence[str]) -> Iterator[Tensor]:
        return self.reader.files(files, Findings(), "reading images", skip=False)


def _rebatched(chunks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yield examples in batches of `size`, the last one smaller, from chunks of any size."""
    waiting: list[Tensor] = []
    count = 0
    for chunk in chunks:
        waiting.append(chunk)
        count += len(chunk)
        while count >= size:
            joined = torch.cat(waiting)
            yield joined[:size]
            waiting, count = [joined[size:]], count - size
    if count:
        yield torch.cat(waiting)


def restore_trained(run: SavedRun, *, threads: bool) -> Trained:
    """Return the model of a run, ready to predict; with `threads` torch computes with as many as in training."""
    return Trained(run, restore_predictor(run, known_facts(run), threads=threads))


def _is_pillow(image: Any) -> bool:
    """Return True for a Pillow image, without importing Pillow."""
    return any(kind.__module__ == "PIL.Image" for kind in type(image).__mro__)
