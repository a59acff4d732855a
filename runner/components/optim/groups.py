"""Parameter groups: which tensors decay, and which rules change their learning rate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from torch import nn
from torch.optim import Optimizer

from runner.errors import ConfigError
from runner.relations import Fields, Regular
from runner.schema import Duration, NonNegative

NoDecay = list[Literal["bias", "norm"]]
Rule = Annotated[
    dict[str, Any],
    Fields(
        types=(
            ("match", Annotated[str, Regular("a regular expression for names of tensors")]),
            ("lr", NonNegative),
            ("weight_decay", NonNegative),
            ("until", Duration),
        ),
        needed=("match",),
    ),
]
Rules = list[Rule]

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
    settled = [settle(rule) for rule in rules]
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


def settle(rule: Rule) -> Settled:
    """Return the expression of a rule, its factors and its end."""
    factors = {name: rule.get(name, 1.0) for name in FACTORS}
    return rule["match"], factors, {"until": rule["until"]} if "until" in rule else {}


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
