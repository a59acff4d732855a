"""The SHA-256 of the tensors that `init_from` names, put into a config: it identifies the run, not their path."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from runner.errors import ConfigError

# Digests that this process has found, by what was asked and the state of the files
_known: dict[str, str] = {}
# The digests in this command's configs, by `init_from`
_found: dict[str, str] = {}
# Of a sweep that is resumed, by `init_from`: its weights may have been removed since
_earlier: dict[str, str] = {}


def found_weights() -> dict[str, str]:
    """Return the SHA-256 of the weights in the configs of this command, by the value of `init_from`."""
    return dict(_found)


def accept_earlier(digests: Mapping[Any, Any]) -> None:
    """Let weights that are gone have the SHA-256 that an earlier command found, by the value of `init_from`."""
    _earlier.clear()
    _found.clear()
    _earlier.update({str(text): found for text, found in digests.items() if isinstance(found, str)})


def with_weights_identified(config: dict[str, Any], *, apart: bool = False) -> dict[str, Any]:
    """Return a config with `init_sha256`; the same config if it has no `init_from`.

    Args:
        config: A checked config.
        apart: Read files in another process, because this one must not import torch.

    Raises:
        ConfigError: There are no such weights, or their SHA-256 is not the one that the config has.
        CheckpointError, DataError: The file is damaged, or published weights cannot be downloaded.
    """
    if config["init_from"] is None:
        return config
    # Late: few command lines need it
    from runner.weight_sources import KEY, find_source, recall_digest, state_of_source, wanted

    try:
        source = find_source(config[KEY])
        state = state_of_source(source)
    except ConfigError:
        if found := config["init_sha256"] or _earlier.get(config[KEY]):
            return _with_digest(config, found)
        raise
    asked = wanted(config)
    name = json.dumps([asked, state and state.key], default=str)
    if name not in _known:
        _known[name] = recall_digest(state) or _find(asked, apart=apart and "torch" not in sys.modules)
    digest, given = _known[name], config["init_sha256"]
    if given not in (None, digest):
        raise ConfigError(
            f"init_sha256: got {given[:12]}..., but the tensors of {config[KEY]} have the SHA-256 {digest}; "
            "leave it out, or name the file that you mean"
        )
    return _with_digest(config, digest)


def _with_digest(config: dict[str, Any], digest: str) -> dict[str, Any]:
    """Return a config with the digest of its weights."""
    _found[config["init_from"]] = digest
    return {**config, "init_sha256": digest}


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
