"""Parameter groups: which tensors decay, and which rules change their learning rate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from torch import nn
from torch.optim import Optimizer

from runner.errors import ConfigError, unknown
from runner.schema import Duration, Range, check

NoDecay = list[Literal["bias", "norm"]]
Rules = list[dict[str, Annotated[float, Range(0)] | str]]

Settled = tuple[str, dict[str, float], dict[str, str]]  # expression, factors, and {until: duration} or nothing

FACTORS = ("lr", "weight_decay")
EVERY: Settled = ("", dict.fromkeys(FACTORS, 1.0), {})  # what no rule takes


def groups(
    model: nn.Module, *, lr: float, weight_decay: float, no_decay: NoDecay, rules: Rules
) -> list[dict[str, Any]]:
    """Return the trainable tensors of a model as groups for a torch optimizer, each once.

    Group `decay` has the weight decay, group `no_decay` (biases, norms, as `no_decay` says) none. A rule is
    `{match: regex, lr: factor, weight_decay: factor, until: duration}` (factors 1 unless given); the first one that is
    found in a tensor's name takes it into groups of its own, `decay <match>` and `no_decay <match>`. With `until` its
    schedule is over by then and it rests: `Learner.set_lr` does both. PReLU's slopes, class tokens and positions decay
    unless a rule gives them weight_decay 0. Raises ConfigError for a rule that takes no tensor, and for a model
    without trainable tensors.
    """
    settled = [settle(i, rule) for i, rule in enumerate(rules)]
    found: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    for name, parameter, words in trainable(model):
        match, factors, until = next((rule for rule in settled if re.search(rule[0], name)), EVERY)
        kept = not words & set(no_decay)
        label = f"{'decay' if kept else 'no_decay'} {match}".strip()
        decay = weight_decay * factors["weight_decay"] * kept
        group = {"name": label, "params": [], "lr": lr * factors["lr"], "weight_decay": decay, **until}
        found.setdefault(label, group)["params"].append(parameter)
        used.add(match)
    for i, (match, *_) in enumerate(settled):
        if match not in used:
            raise ConfigError(f"optim.rules[{i}].match: '{match}' takes no trainable tensor of the model")
    if not found:
        raise ConfigError("optim: the model has no trainable tensor")
    return [found[label] for label in sorted(found)]


def settle(index: int, rule: dict[str, float | str]) -> Settled:
    """Return the expression of a rule, its factors and its end, checked."""
    key = f"optim.rules[{index}]"
    for name in rule:
        if name not in ("match", *FACTORS, "until"):
            raise unknown(f"{key}.{name}", "key", name, ("match", *FACTORS, "until"))
    match = rule.get("match")
    if not isinstance(match, str) or not match:
        raise ConfigError(f"{key}.match: got {match!r}, must be a regular expression for names of tensors")
    try:
        re.compile(match)
    except re.error as error:
        raise ConfigError(f"{key}.match: '{match}' is no regular expression: {error}") from error
    factors = {}
    for name in FACTORS:
        factor = rule.get(name, 1.0)
        if isinstance(factor, str):
            raise ConfigError(f"{key}.{name}: got '{factor}', must be a number >= 0")
        factors[name] = factor
    until = {"until": check(f"{key}.until", rule["until"], Duration)} if "until" in rule else {}
    return match, factors, until


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, set[str]]]:
    """Yield name, tensor and words (`bias`, `norm`) of what is to be trained; a tied tensor once, by its first name."""
    seen: set[nn.Parameter] = set()
    for path, module in model.named_modules():
        norm = {"norm"} if "Norm" in type(module).__name__ else set()
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield f"{path}.{name}".lstrip("."), parameter, norm | ({"bias"} if name.endswith("bias") else set())


def describe(optimizer: Optimizer) -> list[str]:
    """Return one printable line per group: its tensors, parameters, learning rate and weight decay."""
    return [
        f"{group['name']}: {len(group['params'])} tensors, {sum(p.numel() for p in group['params']):,} parameters, "
        f"lr {group['lr']:g}, weight decay {group['weight_decay']:g}"
        + (f", resting from step {group['until']} on" if "until" in group else "")
        for group in optimizer.param_groups
    ]
