"""The SHA-256 of the tensors that a config names, put into it: they identify the run, not their path.

These are the weights that a run starts from (`init_from`), and those of a teacher (`distillation.teacher`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.errors import ConfigError

_DISTILLATION = "distillation"
# Digests that this process has found, by what was asked and the state of the files
_known: dict[str, str] = {}
# The digests in this command's configs, by the text that names the weights
_found: dict[str, str] = {}
# Of a sweep that is resumed, by `init_from`: its weights may have been removed since
_earlier: dict[str, str] = {}


def found_weights() -> dict[str, str]:
    """Return the SHA-256 of the weights in the configs of this command, by the text that names them."""
    return dict(_found)


def accept_earlier(digests: Mapping[Any, Any]) -> None:
    """Let weights that are gone have the SHA-256 that an earlier command found, by the value of `init_from`."""
    _earlier.clear()
    _found.clear()
    _earlier.update({str(text): found for text, found in digests.items() if isinstance(found, str)})


def with_weights_identified(config: dict[str, Any], *, apart: bool = False) -> dict[str, Any]:
    """Return a config with the SHA-256 of the weights it starts from and of its teacher; the same one without these.

    Args:
        config: A checked config.
        apart: Read files in another process, because this one must not import torch.

    Raises:
        ConfigError: There are no such weights, or their SHA-256 is not the one that the config has.
        CheckpointError, DataError: The file is damaged, or published weights cannot be downloaded.
    """
    if config["init_from"] is not None:
        config = {**config, "init_sha256": _identified(config, "init_sha256", apart=apart)}
    # A user's own primary config may lack the group
    if config.get(_DISTILLATION, {}).get("name", "none") == "none":
        return config
    # Late: few command lines need it
    from runner.weight_sources import TEACHER, teacher_of, with_teacher_digest

    if (named := teacher_of(config)) is None:
        return config
    # Its tensors are those that `init_from` would take
    asked = {"init_from": named[0], "init_download": False, "model": {}, "init_sha256": named[1]}
    return with_teacher_digest(config, _identified(asked, f"{TEACHER}_sha256", apart=apart))


def identified_anew(config: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a variant of an identified config with the digests of its own weights."""
    same = config["init_from"] == before["init_from"]
    teachers = [each.get(_DISTILLATION, {}).get("teacher") for each in (config, before)]
    if same and teachers[0] == teachers[1]:
        return config
    if not same:
        config = {**config, "init_sha256": None}
    if teachers[0] != teachers[1] and teachers[0] is not None:
        config = {**config, _DISTILLATION: {**config[_DISTILLATION], "teacher_sha256": None}}
    return with_weights_identified(config, apart=True)


def with_digests_of(config: dict[str, Any], planned: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the digests that an equal config has."""
    config = {**config, "init_sha256": planned["init_sha256"]}
    if "teacher_sha256" in planned.get(_DISTILLATION, {}):
        digest = planned[_DISTILLATION]["teacher_sha256"]
        config = {**config, _DISTILLATION: {**config[_DISTILLATION], "teacher_sha256": digest}}
    return config


def _identified(config: Mapping[str, Any], key: str, *, apart: bool) -> str:
    """Return the SHA-256 of the tensors that `init_from` of a config names; `key` holds one that is given."""
    from runner.engine.saving.ensemble_file import digest_of, read_manifest
    from runner.weight_sources import KEY, TEACHER, find_source, find_teacher, recall_digest, state_of_source, wanted

    given = config["init_sha256"]
    try:
        source = (find_teacher if key.startswith(TEACHER) else find_source)(config[KEY])
        state = state_of_source(source) if source.kind != "ensemble" else None
    except ConfigError:
        if found := given or _earlier.get(config[KEY]):
            return _noted(config, found)
        raise
    if source.kind == "ensemble":
        return _checked(config, key, digest_of(read_manifest(Path(source.text))))
    asked = wanted(config)
    name = json.dumps([asked, state and state.key], default=str)
    if name not in _known:
        _known[name] = recall_digest(state) or _find(asked, apart=apart and "torch" not in sys.modules)
    return _checked(config, key, _known[name])


def _checked(config: Mapping[str, Any], key: str, digest: str) -> str:
    """Return a digest, which is noted; raises ConfigError if the config has another one."""
    given = config["init_sha256"]
    if given not in (None, digest):
        raise ConfigError(
            f"{key}: got {given[:12]}..., but the tensors of {config['init_from']} have the SHA-256 {digest}; "
            "leave it out, or name the file that you mean"
        )
    return _noted(config, digest)


def _noted(config: Mapping[str, Any], digest: str) -> str:
    """Return a digest, which is noted for the command."""
    _found[config["init_from"]] = digest
    return digest


def _find(asked: Mapping[str, Any], *, apart: bool) -> str:
    """Return the digest of the tensors that part of a config names."""
    if apart:
        from runner.sweeps.ask_process import ask_process

        return ask_process(__name__, "_digests", [asked])[0]
    return _digests([asked])[0]


def _digests(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the SHA-256 of the tensors that each config starts from."""
    from runner.user_folders import set_library_folders

    set_library_folders()
    from runner.assemble.read_weights import digest_of_weights

    return [digest_of_weights(config) for config in configs]
