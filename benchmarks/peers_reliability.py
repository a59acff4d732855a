"""Lightning under the tests of `tests/kills.py` and `tests/test_bad_checkpoints.py`.

`python -m benchmarks.peers_reliability [kills] [flips]`, in an environment with lightning and tensorboard. A small MLP
(BatchNorm, dropout) with shuffled batches, seeded as in Lightning's documentation, saves a checkpoint every 7 of 100
steps. It is killed (SIGKILL) in a step and resumed from `last.ckpt`. Then single bits of that file are flipped. Each
run is a forked child process.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

_STEPS, _INTERVAL, _EXAMPLES, _BATCH = 100, 7, 640, 32  # 20 steps in an epoch


class _Classifier(pl.LightningModule):
    """A small MLP that is killed in step `kill`, if given."""

    def __init__(self, kill: int | None) -> None:
        super().__init__()
        self.kill = kill
        self.net = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 4))

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        """Return and log the loss of a batch."""
        if self.global_step + 1 == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def _fit(folder: Path, kill: int | None = None, resume: Path | None = None) -> None:
    """Train or resume, and write a hash of weights and optimizer state."""
    pl.seed_everything(0, workers=True, verbose=False)
    draws = torch.Generator().manual_seed(1)
    images = torch.randn(_EXAMPLES, 32, generator=draws)
    data = TensorDataset(images, images[:, :4].argmax(1))
    saving = ModelCheckpoint(folder, every_n_train_steps=_INTERVAL, save_last=True, save_top_k=1)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=_STEPS, log_every_n_steps=1, callbacks=[saving], enable_progress_bar=False,
        enable_model_summary=False, logger=TensorBoardLogger(folder, name="", version=""), deterministic=True,
    )  # fmt: skip
    model = _Classifier(kill)
    trainer.fit(model, DataLoader(data, batch_size=_BATCH, shuffle=True), ckpt_path=resume)
    (folder / "hash").write_text(_digest(model, trainer.optimizers[0]))


def _digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Return a hash of the bits of weights, buffers and optimizer state."""
    found = hashlib.sha256()
    moments = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    for tensor in [*model.state_dict().values(), *moments]:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def _in_child(work: Callable[[], None]) -> int:
    """Run a function in a forked child without output; return its exit code, or minus the number of the signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _logged(folder: Path) -> list[int]:
    """Return the steps whose loss is in the event files, in order."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    paths = sorted(folder.glob("events.out.tfevents.*"))
    events = [event for path in paths for event in LegacyEventFileLoader(str(path)).Load()]
    return [event.step for event in events for value in event.summary.value if value.tag == "train/loss"]


def _kills(place: Path, count: int) -> None:
    """Kill runs in random steps and print how many end like the uninterrupted run."""
    for name in ("whole", "again"):
        assert _in_child(lambda name=name: _fit(place / name)) == 0
    whole = (place / "whole" / "hash").read_text()
    print(f"two uninterrupted runs are {'equal' if whole == (place / 'again' / 'hash').read_text() else 'NOT equal'}")
    same = exact = 0
    for step in random.Random(0).sample(range(_INTERVAL + 1, _STEPS), count):
        folder = place / f"killed {step}"
        assert _in_child(lambda folder=folder, step=step: _fit(folder, kill=step)) == -signal.SIGKILL
        assert _in_child(lambda folder=folder: _fit(folder, resume=folder / "last.ckpt")) == 0
        same += (folder / "hash").read_text() == whole
        times = Counter(_logged(folder))
        exact += times == Counter(_logged(place / "whole"))
    print(
        f"killed and resumed: {same}/{count} with the state of the uninterrupted run, "
        f"{exact}/{count} with each step logged once"
    )


def _flips(place: Path, count: int) -> None:
    """Flip single bits of a checkpoint and print how many are detected when it is loaded."""
    path = place / "whole" / "last.ckpt"
    data, draw = path.read_bytes(), random.Random(0)
    right, seen, harmless = _tensors(torch.load(io.BytesIO(data), weights_only=True)), 0, 0
    for _ in range(count):
        changed = bytearray(data)
        bit = draw.randrange(8 * len(data))
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = _tensors(torch.load(io.BytesIO(bytes(changed)), weights_only=True))  # as Lightning loads it
        except Exception:  # any error means that the damage was detected
            seen += 1
        else:
            harmless += found == right
    wrong = count - seen - harmless
    print(
        f"one bit flipped: {seen}/{count} detected, {wrong}/{count} read as other values, "
        f"{harmless}/{count} without effect"
    )


def _tensors(item: object) -> object:
    """Return nested state with tensors converted to bytes."""
    if isinstance(item, Tensor):
        return (tuple(item.shape), item.numpy().tobytes())
    if isinstance(item, dict):
        return [(key, _tensors(value)) for key, value in item.items()]
    return [_tensors(value) for value in item] if isinstance(item, (list, tuple)) else repr(item)


def main(kill_count: int, flip_count: int) -> None:
    """Run both tests."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    place = Path(tempfile.mkdtemp())
    print(f"lightning {pl.__version__}, torch {torch.__version__}")
    with contextlib.ExitStack() as held:
        held.callback(shutil.rmtree, place)
        _kills(place, kill_count)
        _flips(place, flip_count)


if __name__ == "__main__":
    main(*[*(int(word) for word in sys.argv[1:]), *(20, 300)[len(sys.argv) - 1 :]])
