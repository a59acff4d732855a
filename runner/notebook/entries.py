"""The lines of a run, a sweep and a trial in the notebook, read from the run folder only."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from runner import plain_yaml
from runner.comparing.groups import Value, format_value
from runner.comparing.runs import CONFIG, read_overrides
from runner.engine.logs.plugin_pages import flat_hparams
from runner.engine.saving.data_folders import DATA_SUFFIX, data_of
from runner.engine.saving.evidence import standing
from runner.engine.saving.folder import Result, read_environment
from runner.engine.saving.storage import read
from runner.errors import ConfigError, brief, escaped
from runner.keys import hyperparameters, named_origins
from runner.numerics import completed
from runner.printing import counted

STAMP = r"[-0-9?]{10} [0-9?:]{8}"
# Sorts after all dates
_UNDATED = "????-??-?? ??:??:??"
# Limit for a config or overrides, which a user may have replaced
_MAX_BYTES = 1 << 20
_TRAINING = re.compile(rb"^task:\n  name: train$", re.MULTILINE)
_MONITOR = re.compile(rb"^monitor: (\w+/\w+)$", re.MULTILINE)
_HASH = re.compile(rf"-[0-9a-f]{{8}}(?=({DATA_SUFFIX})?$)")


def is_training(folder: Path) -> bool:
    """Return True if a folder holds a training run, by a pattern in its config: parsing YAML is slow."""
    try:
        return bool(_TRAINING.search(read(folder / CONFIG, _MAX_BYTES)))
    except OSError:
        return False


def start_time(folder: Path) -> str:
    """Return the start of a run in UTC, as in `2026-11-21 10:10:27`."""
    found = str(read_environment(folder).get("started", ""))[:19].replace("T", " ")
    return found if re.fullmatch(STAMP, found) else _UNDATED


def heading(folder: Path, link: str, *, what: str = "") -> str:
    """Return the first line of an entry."""
    return f"## {start_time(folder)} {what}{_link(Path(link).name, link)}"


def _link(name: str, link: str) -> str:
    """Return a link to a folder, relative to the notebook."""
    return f"[{escape(name)}]({quote(os.fsencode(link), safe='/=,+-._~')})"


def run_lines(folder: Path, link: str, before: tuple[Path, str] | None) -> list[str]:
    """Return the lines of a single run; `before` is the run that began before it, with its link."""
    result = _result(folder)
    lines = [heading(folder, link), "", *question_lines(folder)]
    if before is None:
        lines.append("- differs: the first run here")
    else:
        differs = ", ".join(_changes(folder, before[0])) or "in nothing"
        lines.append(f"- differs from {_link(before[0].name, before[1])}: {differs}")
    return [*lines, f"- status: {_status_text(result)}", *_score_lines(result)]


def trial_cells(folder: Path, link: str) -> list[str]:
    """Return the cells of one trial: its start, its link, its last and best accuracy, its last loss and its status."""
    result = _result(folder)
    last, best = ((result.scores.get("val") or {}).get(at) or {} for at in ("last", "best"))
    reason = f": {result.reason.removeprefix(f'{result.status} ')}" if result.reason else ""
    name = _link(_HASH.sub("", folder.name), link)
    numbers = (
        _four_decimals(last.get("accuracy")),
        _four_decimals(best.get("accuracy")),
        _four_decimals(last.get("loss")),
    )
    return [start_time(folder), name, *numbers, escape(brief(result.status + reason))]


def _result(folder: Path) -> Result:
    """Return the result of a run as far as its folder proves it; else a failed one with the reason."""
    try:
        match = _MONITOR.search(read(folder / CONFIG, _MAX_BYTES))
    except OSError:
        match = None
    return standing(folder, match[1].decode() if match and is_training(folder) else None)


def _status_text(result: Result) -> str:
    """Return how a run ended, with its steps and seconds."""
    reason = f": {escape(result.reason.removeprefix(f'{result.status} '))}" if result.reason else ""
    length = f"{counted(result.steps, 'step')} ({counted(result.epochs, 'epoch')})"
    return f"{result.status}{reason} after {length} in {result.seconds:.1f} s"


def _score_lines(result: Result) -> Iterator[str]:
    """Yield a line of validation scores and a line of test scores, if there are any."""
    val, test = result.scores.get("val") or {}, result.scores.get("test") or {}
    if last := val.get("last"):
        best = val.get("best") or {}
        at = best.get("step")
        when = f" at step {at:g}" if isinstance(at, (int, float)) else ""
        yield f"- validation: {_accuracy_and_loss(last)}; best: {_accuracy_and_loss(best)}{when}"
    if test:
        reads = f"read {result.test_reads} times" if result.test_reads > 1 else "read once"
        yield f"- test: {_accuracy_and_loss(test)} ({reads})"


def _accuracy_and_loss(found: Mapping[str, Any]) -> str:
    """Return accuracy and loss as text, and the negative log-likelihood where it is another number."""
    accuracy, loss, nll = (_four_decimals(found.get(name)) for name in ("accuracy", "loss", "nll"))
    return f"accuracy {accuracy}, loss {loss}" + (f", nll {nll}" if nll not in ("", loss) else "")


def _four_decimals(value: Any) -> str:
    """Return a score with four decimals, empty for None."""
    return f"{value:.4f}" if isinstance(value, (int, float)) else ""


def question_lines(folder: Path) -> list[str]:
    """Return the line with the run's question (`note=...`), if it has one."""
    note = str(_config(folder).get("note", ""))
    return [f"- question: {escape(note)}"] if note.strip() else []


def _changes(folder: Path, before: Path) -> Iterator[str]:
    """Yield what differs from another run; knobs of a new component only if the command line set them."""
    new, old = config_values(folder), config_values(before)
    given = given_values(folder)
    for key in dict.fromkeys([*new, *old]):
        top = key.partition(".")[0]
        follows = key != top and new.get(top) != old.get(top)
        if new.get(key) != old.get(key) and (key in given or not follows):
            yield escape(f"{key} {format_value(new.get(key))} (was {format_value(old.get(key))})")
    yield from _data_change(folder, before, new, old)


def _data_change(folder: Path, before: Path, new: Mapping[str, Value], old: Mapping[str, Value]) -> Iterator[str]:
    """Yield that two runs with the same settings of the data read other data."""
    ids = data_of(folder), data_of(before)
    settings = ({key: value for key, value in values.items() if key.startswith("data")} for values in (new, old))
    if None not in ids and ids[0] != ids[1] and operator.eq(*settings):
        yield f"data.fingerprint {str(ids[0])[:8]} (was {str(ids[1])[:8]})"


def config_values(folder: Path) -> Mapping[str, Value]:
    """Return the hyperparameters and the seed of a run, empty if its config cannot be read."""
    content = _config(folder)
    try:
        if not content:
            return {}
        found = hyperparameters(content)
        found |= {key: f"{name} ({found[key]})" for key, name in named_origins(content).items()}
        return {**flat_hparams(found), "seed": float(content["seed"])}
    except (KeyError, TypeError, ValueError):
        return {}


def _config(folder: Path) -> dict[str, Any]:
    """Return the config of a run, empty if it cannot be read."""
    try:
        content = plain_yaml.load(folder / CONFIG)
    except ConfigError:
        return {}
    return completed(content) if isinstance(content, dict) else {}


def given_values(folder: Path) -> dict[str, str]:
    """Return the keys of a run's command line with their values as typed, without those of Hydra."""
    words = [word.lstrip("+").partition("=") for word in read_overrides(folder)]
    return {key: value for key, _, value in words if not key.startswith("hydra")}


def unquoted(link: str) -> str:
    """Return the path that a link in the notebook names."""
    return os.fsdecode(unquote_to_bytes(link))


def escape(text: str) -> str:
    """Return text on one line, with characters escaped that break a table or open a tag."""
    return escaped(" ".join(text.split())).replace("<", "\\<").replace("|", "\\|")
