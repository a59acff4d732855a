"""How a run ended, as the Python API returns it; everything in it is read from the run's folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from runner import plain_yaml, user_paths
from runner.engine.saving import folder as saved
from runner.engine.saving.evidence import best_score, monitor_of, standing
from runner.engine.saving.storage import convert_os_errors, read
from runner.errors import CheckpointError
from runner.numerics import completed
from runner.status import Status

if TYPE_CHECKING:
    from runner import Trained

_CONFIG, _METRICS, _CURVES = "config.yaml", "metrics.jsonl", "curves"
# Bytes of a figure in a run folder, which a user may have replaced
_MOST_BYTES = 1 << 26


class Curve(NamedTuple):
    """One logged value over the steps, ready to be drawn: `plt.plot(*result.history["val/loss"])`."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Figure:
    """A picture of a run, which a notebook shows.

    Attributes:
        name: Its name, such as `curves`.
        png: The bytes of the PNG file.

    """

    name: str
    png: bytes

    def _repr_png_(self) -> bytes:
        """Return the bytes for a notebook."""
        return self.png

    def __repr__(self) -> str:
        return f"<Figure {self.name}, {len(self.png)} bytes of PNG>"


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Result:
    """How a run ended.

    Attributes:
        folder: The run folder, as an absolute path.
        status: `done`, `stopped` (early stopping), `diverged`, `pruned`, `failed`, `timeout` or `interrupted`.
        reason: Why the run ended, in one line; None after success.
        scores: `{"val": {"best": {"accuracy": ..., "loss": ..., "step": ...}, "last": {...}}, "test": {...}, ...}`;
            empty without a result.
        steps: The number of optimizer steps.
        epochs: The number of epochs.
        seconds: The wall time in seconds.
        config: The checked config of the run as plain dicts; empty if the run never began.

    """

    folder: Path
    status: Status
    reason: str | None
    scores: dict[str, Any]
    steps: int
    epochs: float
    seconds: float
    config: dict[str, Any]

    @property
    def score(self) -> float:
        """The score that selected the best checkpoint (`monitor`), nan if there is none."""
        found = saved.Result(scores=self.scores)
        return best_score(found, monitor) if (monitor := monitor_of(self.config)) else float("nan")

    @cached_property
    def history(self) -> dict[str, Curve]:
        """Everything that the run logged, by tag: `train/loss`, `val/accuracy`, ...; read on first use."""
        # Late: it imports what only runs need
        from runner.engine.logs.sinks import read_metrics

        curves: dict[str, Curve] = defaultdict(lambda: Curve([], []))
        path = self.folder / _METRICS
        with convert_os_errors(path):
            for step, row in read_metrics(path) if user_paths.is_file(path) else ():
                for tag, value in row.items():
                    curves[tag].steps.append(step)
                    curves[tag].values.append(value)
        return dict(curves)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures of the run by name: `curves`, which is drawn now if the run did not, and others in its folder."""
        from runner.engine.figures.curves import loss_figure

        names = [name for name in user_paths.listed(self.folder) if name.endswith(".png")]
        with convert_os_errors(self.folder):
            found = {name[:-4]: Figure(name[:-4], read(self.folder / name, _MOST_BYTES)) for name in names}
        if _CURVES not in found and user_paths.is_file(self.folder / _METRICS):
            found[_CURVES] = Figure(_CURVES, loss_figure(self.folder / _METRICS).draw())
        return found

    def load(
        self, *, plugins: Sequence[str | ModuleType] = (), device: str = "auto", overrides: Sequence[str] = ()
    ) -> Trained:
        """Return the trained model, ready to predict; arguments as in `runner.load`."""
        from runner import load

        return load(self.folder, plugins=plugins, device=device, overrides=overrides)

    def __repr__(self) -> str:
        score = f", {self.config['monitor']} {self.score:.4f}" if self.score == self.score else ""
        return f"<Result {self.status}{score}, {self.steps} steps in {self.seconds:.1f} s, {self.folder}>"


def result_in(folder: str | Path) -> Result:
    """Return how the run in a folder stands.

    Raises:
        CheckpointError: If the folder holds no run.

    """
    place = Path(folder)
    if not user_paths.is_file(place / _CONFIG, error=CheckpointError):
        raise CheckpointError(f"{place}: holds no run (it has no {_CONFIG})")
    config = config_in(place)
    return made_result(place, standing(place, monitor_of(config)), config)


def config_in(folder: Path) -> dict[str, Any]:
    """Return the config in a run folder, empty if there is none."""
    if not user_paths.is_file(folder / _CONFIG, error=CheckpointError):
        return {}
    found = plain_yaml.load(folder / _CONFIG)
    return completed(found) if isinstance(found, dict) else {}


def made_result(folder: Path, result: saved.Result, config: dict[str, Any]) -> Result:
    """Return the result of the run in a folder for the user."""
    return Result(
        folder=Path(user_paths.absolute(folder)),
        status=result.status,
        reason=result.reason,
        scores=result.scores,
        steps=result.steps,
        epochs=result.epochs,
        seconds=result.seconds,
        config=config,
    )
