"""A trained model as one file: images in, probabilities out, with the preprocessing inside; in three formats."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from runner.assemble.predictor import Predictor
from runner.engine.losses import Prediction
from runner.engine.state_dict import load_part, state_of
from runner.errors import ConfigError, brief, first_line, message_of

Format = Literal["torch_export", "onnx", "safetensors"]
# The ends of the names of files
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "torch_export": (".pt2",),
    "onnx": (".onnx",),
    "safetensors": (".safetensors",),
}
INPUT = "images"
_ONNX = ("onnx", "onnxscript", "onnxruntime")
# Examples of the graph that is traced: torch takes sizes of 0 and 1 for constants
_TRACED = 2
# Characters of a reason that one line has
_REASON = 300
# Part of torch's message, of which the first line says less
_FIXED = "your code specialized it to be a constant"
_FIXED_REASON = "its code takes the number of images for a constant; in a model of your own use x.shape[0], not len(x)"
_Run = Callable[[Tensor], Tensor]


class PredictionGraph(nn.Module):
    """Images (B, C, H, W) as the data set has them -> probabilities (B, K), or logits if the loss has none."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.preprocess, self.model = predictor.preprocess, predictor.model
        self.method, self.log_probabilities = predictor.predict, predictor.loss.log_probabilities

    def forward(self, images: Tensor) -> Tensor:
        """Return the predictions (B, K) float32 for raw images."""
        found = self.method(self.model, self.preprocess(images))
        if not isinstance(found, Prediction):
            return found.exp()
        if found.log_p is not None:
            return found.log_p.exp()
        assert found.logits is not None
        return found.logits if self.log_probabilities is None else self.log_probabilities(found.logits).exp()


def check_installed(format_: Format) -> None:
    """Raise ConfigError if the packages that a format needs are not installed."""
    missing = [name for name in _ONNX if importlib.util.find_spec(name) is None] if format_ == "onnx" else []
    if missing:
        raise ConfigError(
            f"task.format: got onnx, which needs {', '.join(missing)}; install with: pip install 'runner[export]'"
        )


def make_file(predictor: Predictor, example: Tensor, format_: Format) -> tuple[bytes, _Run]:
    """Return the bytes of a file with the model, and what runs that file: images (B, C, H, W) -> predictions (B, K).

    Args:
        predictor: The model, on the CPU and in float32.
        example: Images (B, C, H, W) with at least two examples.
        format_: The format of the file.

    Raises:
        ConfigError: The model cannot be exported; the line says why.
    """
    make = {"torch_export": _torch_export, "onnx": _onnx, "safetensors": _safetensors}[format_]
    try:
        with _quiet(), torch.no_grad():
            return make(predictor, example[:_TRACED])
    except Exception as error:
        # torch.export, its ONNX exporter and ONNX Runtime raise exceptions of many types
        fixed = _FIXED in message_of(error)
        reason = _FIXED_REASON if fixed else brief(" ".join(first_line(error).split()), _REASON)
        raise ConfigError(f"task.format: this run cannot be exported as {format_}: {reason}") from error


def _traced(predictor: Predictor, example: Tensor) -> Any:
    """Return the graph of a model with any number of examples."""
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(PredictionGraph(predictor).eval(), (example,), dynamic_shapes={INPUT: {0: batch}})


def _torch_export(predictor: Predictor, example: Tensor) -> tuple[bytes, _Run]:
    file = io.BytesIO()
    torch.export.save(_traced(predictor, example), file)
    run: _Run = torch.export.load(io.BytesIO(file.getvalue())).module()
    return file.getvalue(), run


def _onnx(predictor: Predictor, example: Tensor) -> tuple[bytes, _Run]:
    import onnxruntime

    name = output_name(predictor)
    program = torch.onnx.export(
        _traced(predictor, example), (), dynamo=True, verbose=False, input_names=[INPUT], output_names=[name]
    )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: torch.from_numpy(session.run([name], {INPUT: images.numpy()})[0])


def _safetensors(predictor: Predictor, example: Tensor) -> tuple[bytes, _Run]:
    from safetensors.torch import load, save

    own = state_of(model=predictor.model, preprocess=predictor.preprocess)
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in own.items()}
    content: bytes = save(tensors)
    read = load(content)
    for part, module in (("model", predictor.model), ("preprocess", predictor.preprocess)):
        load_part(part, module, read)
    return content, PredictionGraph(predictor).eval()


def output_name(predictor: Predictor) -> str:
    """Return what the output of a graph is."""
    return "logits" if predictor.loss.log_probabilities is None else "probabilities"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the remarks of the exporters: what they make is compared with the model."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def largest_difference(run: _Run, batches: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference between the predictions for batches of images and the expected ones (B, K).

    Infinity if a prediction has another shape or is not finite.
    """
    largest = 0.0
    with torch.no_grad():
        for images, wanted in zip(batches, expected, strict=True):
            found = run(images)
            if found.shape != wanted.shape or not bool(torch.isfinite(found).all()):
                return float("inf")
            largest = max(largest, float((found.float() - wanted.float()).abs().max()))
    return largest
