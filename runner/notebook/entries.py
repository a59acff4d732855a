"""The lines of a run, a sweep and a trial in the notebook, read from the run folder only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from runner import plain_yaml
from runner.comparing.groups import Value, format_value
from runner.comparing.runs import CONFIG, environment
from runner.engine.logs.hparams import flat_hparams
from runner.engine.saving.folder import Result, read_result
from runner.engine.saving.storage import read
from runner.errors import CheckpointError, ConfigError, brief
from runner.keys import hyperparameters
from runner.numerics import completed
from runner.status import Status

STAMP = r"[-0-9?]{10} [0-9?:]{8}"
UNDATED = "????-??-?? ??:??:??"  # sorts last
SIZE = 1 << 20  # bytes of a config or of overrides
COLUMNS = ("date", "trial", "val accuracy", "best", "val loss", "status")
TASK = re.compile(rb"^task:\n  name: train$", re.MULTILINE)
HASH = re.compile(r"-[0-9a-f]{8}$")


def is_training(folder: Path) -> bool:
    """Return whether a folder holds a training run, by a pattern in its config: parsing YAML is slow."""
    try:
        return bool(TASK.search(read(folder / CONFIG, SIZE)))
    except OSError:
        return False


def stamp(folder: Path) -> str:
    """Return the start of a run in UTC, as in `2026-11-21 10:10:27`."""
    found = str(environment(folder).get("started", ""))[:19].replace("T", " ")
    return found if re.fullmatch(STAMP, found) else UNDATED


def heading(folder: Path, link: str, *, what: str = "") -> str:
    """Return the first line of an entry."""
    return f"## {stamp(folder)} {what}{linked(Path(link).name, link)}"


def linked(name: str, link: str) -> str:
    """Return a link to a folder, relative to the notebook."""
    return f"[{name}]({quote(link, safe='/=,+-._~')})"


def entry(folder: Path, link: str, before: tuple[Path, str] | None) -> list[str]:
    """Return the lines of a single run; `before` is the run that began before it, with its link."""
    result = result_of(folder)
    lines = [heading(folder, link), "", *question(folder)]
    if before is None:
        lines.append("- differs: the first run here")
    else:
        differs = ", ".join(changes(folder, before[0])) or "in nothing"
        lines.append(f"- differs from {linked(before[0].name, before[1])}: {differs}")
    return [*lines, f"- status: {status(result)}", *scores(result)]


def opening(folder: Path, link: str) -> list[str]:
    """Return the lines of a sweep above its trials; `folder` is that of the first trial."""
    shared = (word for word in overrides(folder) if not swept(word, folder))
    fixed = [inline(word) for word in shared if not word.startswith(("note=", "sweep=", "outputs="))]
    lines = [heading(folder, link, what="sweep "), "", *question(folder)]
    lines += [f"- the same in all: {', '.join(fixed) or 'the defaults'}", ""]
    return [*lines, f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]


def trial(folder: Path, link: str) -> str:
    """Return the row of one trial."""
    result = result_of(folder)
    last, best = ((result.scores.get("val") or {}).get(at) or {} for at in ("last", "best"))
    reason = f": {result.reason.removeprefix(f'{result.status} ')}" if result.reason else ""
    name = linked(HASH.sub("", folder.name), link)
    numbers = (number(last.get("accuracy")), number(best.get("accuracy")), number(last.get("loss")))
    return f"| {' | '.join((stamp(folder), name, *numbers, inline(brief(result.status + reason))))} |"


def result_of(folder: Path) -> Result:
    """Return the result of a run; if it cannot be read, a failed one with the reason."""
    try:
        return read_result(folder)
    except CheckpointError as error:
        return Result(status=Status.FAILED, reason=str(error))


def status(result: Result) -> str:
    """Return how a run ended, with its steps and seconds."""
    reason = f": {inline(result.reason.removeprefix(f'{result.status} '))}" if result.reason else ""
    return f"{result.status}{reason} after {result.steps} steps ({result.epochs:.4g} epochs) in {result.seconds:.1f} s"


def scores(result: Result) -> Iterator[str]:
    """Yield a line of validation scores and a line of test scores, if there are any."""
    val, test = result.scores.get("val") or {}, result.scores.get("test") or {}
    if last := val.get("last"):
        best = val.get("best") or {}
        at = best.get("step")
        when = f" at step {at:g}" if isinstance(at, (int, float)) else ""
        yield f"- validation: {both(last)}; best: {both(best)}{when}"
    if test:
        reads = f"read {result.test_reads} times" if result.test_reads > 1 else "read once"
        yield f"- test: {both(test)} ({reads})"


def both(found: Mapping[str, Any]) -> str:
    """Return accuracy and loss as text."""
    return f"accuracy {number(found.get('accuracy'))}, loss {number(found.get('loss'))}"


def number(value: Any) -> str:
    """Return a score with four decimals, empty for None."""
    return f"{value:.4f}" if isinstance(value, (int, float)) else ""


def question(folder: Path) -> list[str]:
    """Return the line with the run's question (`note=...`), if it has one."""
    note = str(config(folder).get("note", ""))
    return [f"- question: {inline(note)}"] if note.strip() else []


def changes(folder: Path, before: Path) -> Iterator[str]:
    """Yield what differs from another run; knobs of a new component only if the command line set them."""
    new, old = values(folder), values(before)
    given = {word.lstrip("+").partition("=")[0] for word in overrides(folder)}
    for key in dict.fromkeys([*new, *old]):
        top = key.partition(".")[0]
        follows = key != top and new.get(top) != old.get(top)
        if new.get(key) != old.get(key) and (key in given or not follows):
            yield inline(f"{key} {format_value(new.get(key))} (was {format_value(old.get(key))})")


def values(folder: Path) -> Mapping[str, Value]:
    """Return the hyperparameters and the seed of a run, empty if its config cannot be read."""
    content = config(folder)
    try:
        return {**flat_hparams(hyperparameters(content)), "seed": float(content["seed"])} if content else {}
    except (KeyError, TypeError, ValueError):
        return {}


def config(folder: Path) -> dict[str, Any]:
    """Return the config of a run, empty if it cannot be read."""
    try:
        content = plain_yaml.load(folder / CONFIG)
    except ConfigError:
        return {}
    return completed(content) if isinstance(content, dict) else {}


def overrides(folder: Path) -> list[str]:
    """Return the command-line overrides of a run."""
    try:
        content = yaml.safe_load(read(folder / "overrides.yaml", SIZE))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    return [str(word) for word in content] if isinstance(content, list) else []


def swept(word: str, folder: Path) -> bool:
    """Return whether an override differs between the trials of a sweep: its key is in the folder's name."""
    key = word.lstrip("+").partition("=")[0]
    return f",{key}=" in f",{folder.name}"


def inline(text: str) -> str:
    """Return text on one line, with characters escaped that break a table or open a tag."""
    return " ".join(text.split()).replace("<", "\\<").replace("|", "\\|")
