"""Parameter groups: which parameters decay, at what learning rate, and in which steps they are trained."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import nn

from runner.engine.stage_plan import StageRule
from runner.engine.weights import KINDS, Kind, named_kinds
from runner.engine.width import SAME_WIDTH, WidthFactor
from runner.errors import MOST_CHOICES, ConfigError, brief, shown
from runner.registry import shared_knobs
from runner.relations import Fields, InRun, OfLength, Regular, Window
from runner.roles import Role
from runner.schema import Duration, NonNegative, Positive, TagName
from runner.spelling import nearest

_NoDecay = list[Kind]
_Pair = OfLength(2, "[from, until], each a duration or null ([100%,null] freezes in all steps)")
_Rule = Annotated[
    dict[str, Any],
    Fields(
        types=(
            ("match", Annotated[str, Regular("a regular expression for names of tensors")]),
            ("lr", NonNegative),
            ("weight_decay", NonNegative),
            ("active", Annotated[list[Duration | None], _Pair, Window()]),
            ("until", Annotated[Duration, InRun(end=True)]),
            ("name", Annotated[TagName, Role.OBSERVATION]),
        ),
        needed=("match",),
        one_of=("until", "active"),
    ),
]
_Rules = list[_Rule]
# One parameter group of a torch optimizer
_Group = dict[str, Any]

# Label of the parameters that no rule matches
_DEFAULT = "default"
_WHOLE_MODEL = StageRule("", 0, 1.0, {})
# Characters of an expression that a label leaves out
_SEPARATORS = re.compile(r"[^A-Za-z0-9.-]+")


@dataclass(frozen=True)
class _ResolvedRule:
    """A rule with its defaults filled in; `extra` are entries that only some groups have."""

    match: str
    lr: float
    weight_decay: float
    label: str
    extra: dict[str, Any]


@shared_knobs
class Groups:
    """The parameters of a model in groups, from the knobs that all optimizers share; an optimizer asks for `groups`.

    Args:
        model: the model to train. Parameters with `requires_grad=False` are left out.
        stage_rules: what `transfer` does to each parameter, by name. The factors on learning rates of a stage and of
            a rule multiply. A window belongs to one of the two.
        width_factors: what `init=mup` multiplies the learning rate and the weight decay of each parameter by, by name.
        lr: learning rate of a group without a rule, > 0.
        weight_decay: weight decay of the parameters that decay, >= 0; L2 or decoupled, as the optimizer defines it.
        no_decay: the parameters without weight decay: `bias`, `norm` (weights and biases of normalization layers),
            `prelu` (slopes), `position` (learned positions), `token` (class tokens), `scale` (layer scale and other
            factors on channels). The weights of layers are none of these and always decay.
        rules: `{match, lr, weight_decay, active, name}`. The first rule whose regular expression `match` is found in
            a parameter's name applies. `lr` and `weight_decay` are factors, 1 unless given. `active: [from, until]`
            are durations, null for an open end: outside of that window the parameters are frozen
            (`runner.engine.schedules.Freezing`), inside it they go through the whole schedule. `until: x` is short
            for `active: [null, x]`. `name` labels the group in the log; by default it is made from `match`.

    Raises:
        ConfigError: a rule matches no parameter that earlier rules leave, two rules have one name, a rule has a window
            where `transfer` has one, or the model has no trainable parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        stage_rules: Mapping[str, StageRule] | None,
        width_factors: Mapping[str, WidthFactor] | None,
        *,
        lr: Positive,
        weight_decay: NonNegative,
        no_decay: _NoDecay,
        rules: _Rules,
    ) -> None:
        self.model, self.lr, self.weight_decay = model, lr, weight_decay
        self._stage_rules, self._width_factors = stage_rules or {}, width_factors or {}
        self._no_decay = set(no_decay)
        self._trainable = [each for each in named_kinds(model) if each[1].requires_grad]
        self._rules = [_resolve(rule, label) for rule, label in zip(rules, _labels(rules), strict=True)]

    def param_groups(self, lr: float | None = None) -> list[dict[str, Any]]:
        """Return the trainable parameters, each once, as groups for a torch optimizer; `lr` replaces the knob.

        A group has `name` (`decay`, `no_decay`, or these with the rule's expression), `label` (for the log), `decays`
        (False for what `no_decay` excludes), `kinds` (what it holds besides weights, as text) and, where a rule has it,
        `active`.
        """
        base = self.lr if lr is None else lr
        groups, order = dict[str, _Group](), dict[str, int]()
        default = _ResolvedRule("", 1.0, 1.0, _DEFAULT, {})
        used: set[str] = set()
        for name, parameter, kinds in self._trainable:
            rule = next((rule for rule in self._rules if re.search(rule.match, name)), default)
            stage = self._stage_rules.get(name, _WHOLE_MODEL)
            width = self._width_factors.get(name, SAME_WIDTH)
            decays = not kinds & self._no_decay
            scaled = width.title(decays=decays and self.weight_decay > 0)
            title = " ".join(filter(None, ("decay" if decays else "no_decay", rule.match, stage.stage, scaled)))
            first = rule.label if rule is not default or not stage.stage else ""
            label = "-".join(filter(None, (first, stage.stage, width.label)))
            lr = base * rule.lr * stage.lr * width.lr
            group = {"name": title, "params": [], "lr": lr, "label": label, "decays": decays}
            group["weight_decay"] = self.weight_decay * rule.weight_decay * decays * width.weight_decay
            if "active" in rule.extra and stage.entries:
                raise self._two_windows(rule, stage.stage)
            groups.setdefault(title, {**group, **rule.extra, **stage.entries})["params"].append(parameter)
            order[title] = stage.order
            used.add(rule.match)
        for i, rule in enumerate(self._rules):
            if rule.match not in used:
                raise self._unused(i, rule.match)
        if not groups:
            raise ConfigError("optim: the model has no trainable parameter")
        return [self._with_kinds(groups[title]) for title in sorted(groups, key=lambda title: (order[title], title))]

    def _two_windows(self, rule: _ResolvedRule, stage: str) -> ConfigError:
        """Return the error for a rule with a window on parameters of a stage that `transfer` trains at its own time."""
        number = next(i for i, each in enumerate(self._rules) if each is rule)
        return ConfigError(
            f"optim.rules[{number}].active: got {shown(rule.extra['active'])}, but transfer= says when the stage "
            f"'{stage}' is trained; leave one of the two out (transfer=none trains it from the start)"
        )

    def _unused(self, number: int, match: str) -> ConfigError:
        """Return the error for a rule that applies to no parameter."""
        key = f"optim.rules[{number}].match"
        names = [name for name, _, _ in self._trainable if re.search(match, name)]
        if not names:
            return _unmatched(key, match, [name for name, _, _ in self._trainable])
        first = [next(i for i, rule in enumerate(self._rules) if re.search(rule.match, name)) for name in names]
        others = " and ".join(f"optim.rules[{i}]" for i in sorted(set(first)))
        return ConfigError(
            f"{key}: got '{match}', but {others} has all parameters that it matches; "
            "the first rule that matches counts, so this one would do nothing"
        )

    def split(
        self, chosen: Container[nn.Parameter], words: tuple[str, str], lr: float | None = None
    ) -> list[dict[str, Any]]:
        """Return each group in two parts, named by `words`: the `chosen` parameters and the others.

        The entry `orthogonal` is True for the chosen ones. `lr` replaces the knob for the others, and then the labels
        of both parts differ too.
        """
        parts: list[_Group] = []
        for group, other in zip(self.param_groups(), self.param_groups(lr), strict=True):
            for word, orthogonal, source in ((words[0], True, group), (words[1], False, other)):
                members = [p for p in group["params"] if (p in chosen) is orthogonal]
                name, label = f"{word} {group['name']}", group["label"]
                if lr is not None:
                    label = word if label == _DEFAULT else f"{word}-{label}"
                if members:
                    part = {**source, "name": name, "label": label, "params": members, "orthogonal": orthogonal}
                    parts.append(self._with_kinds(part))
        return parts

    def _with_kinds(self, group: _Group) -> _Group:
        """Return a group with what it holds besides weights of layers: `2 bias, 4 norm`."""
        kinds_of = {parameter: kinds for _, parameter, kinds in self._trainable}
        # A norm's bias counts as a norm
        first = [next((kind for kind in ("norm", *KINDS) if kind in kinds_of[p]), None) for p in group["params"]]
        counts = Counter(kind for kind in first if kind)
        return {**group, "kinds": ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if kind in counts)}


def _unmatched(key: str, expression: str, names: Sequence[str]) -> ConfigError:
    """Return the error for an expression that matches no parameter, with the names that are most like it first."""
    words = [word.lower() for word in re.findall(r"[A-Za-z]{2,}|\d+", expression)]
    # The name that has most words of the expression, then the one that is spelled most like it
    ranked = sorted(nearest(expression, names), key=lambda name: -sum(word in name.lower() for word in words))
    more = f", ... {len(ranked) - MOST_CHOICES} more" if len(ranked) > MOST_CHOICES else ""
    listed = f"; the model has {', '.join(ranked[:MOST_CHOICES])}{more}" if ranked else ""
    return ConfigError(f"{key}: '{brief(expression)}' matches no trainable parameter of the model{listed}")


def unmatched_kinds(model: nn.Module, no_decay: _NoDecay) -> list[str]:
    """Return the kinds in `no_decay` of which a model has no trainable parameter."""
    present = {kind for _, parameter, kinds in named_kinds(model) if parameter.requires_grad for kind in kinds}
    return [kind for kind in no_decay if kind not in present]


def _resolve(rule: _Rule, label: str) -> _ResolvedRule:
    """Return a rule with its defaults filled in."""
    active = [None, rule["until"]] if "until" in rule else rule.get("active", [None, None])
    extra = {} if active == [None, None] else {"active": list(active)}
    return _ResolvedRule(rule["match"], rule.get("lr", 1.0), rule.get("weight_decay", 1.0), label, extra)


def _labels(rules: _Rules) -> list[str]:
    """Return a unique label for each rule: its name, or one made from its expression.

    Raises:
        ConfigError: Two rules have one name.
    """
    taken = [_DEFAULT]
    for i, rule in enumerate(rules):
        if (name := rule.get("name")) in taken:
            raise ConfigError(f"optim.rules[{i}].name: got '{name}', must be another one: it is taken")
        taken += [name] if name else []
    labels = []
    for rule in rules:
        slug = _SEPARATORS.sub("_", rule["match"]).strip("_") or "rule"
        numbered = (f"{slug}_{number}" if number > 1 else slug for number in itertools.count(1))
        labels.append(rule.get("name") or next(label for label in numbered if label not in taken))
        taken.append(labels[-1])
    return labels
