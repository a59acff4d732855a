"""Fixed splits of whole groups, such as patients, as stratified as the groups allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.engine.randomness import keys

# A smaller change of the distance is a rounding error
_LEAST_GAIN = 1e-6
# Groups of which the search starts several times, and number of starts: few groups have many local optima
_FEW_GROUPS, _STARTS = 100, 8
# Groups, and groups times classes, of which pairs are exchanged: many groups come near enough one by one
_MOST_FOR_PAIRS, _MOST_CELLS = 500, 50_000
# Passes over all groups
_MOST_PASSES = 8
# Exchanges that are tried for one that leaves each class outside
_MOST_TRIED = 100


def stratified_group_split(labels: Tensor, groups: Sequence[str], count: int) -> tuple[Tensor, Tensor]:
    """Return the positions of about `count` examples, of whole groups, and of all others; both ascending.

    The part has nearly the same share of each class. Groups enter or leave it in a pseudo-random order of their names,
    then in pairs, as long as this reduces the sum over classes of (examples - wanted)^2 / wanted. A class never enters
    the part whole. It is empty if no group can be set aside.
    """
    names = sorted(set(groups))
    number_of = {name: number for number, name in enumerate(names)}
    members = torch.tensor([number_of[group] for group in groups])
    choices = []
    for start in range(_STARTS if len(names) <= _FEW_GROUPS else 1):
        choice = _GroupChoice(members.tolist(), labels.tolist(), len(names), count / len(labels))
        choice.run(keys(start, "split", each=names).argsort(stable=True).tolist())
        choices.append(choice)
    # Rounded, so that the first of equal choices is taken on every machine
    best = min(choices, key=lambda choice: (choice.chosen == 0, round(choice.distance(), 6)))
    aside = torch.tensor(best.inside)[members]
    return aside.nonzero().flatten(), (~aside).nonzero().flatten()


class _GroupChoice:
    """Chooses groups, given the group and the label of each example and the share of each class that is wanted."""

    def __init__(self, members: Sequence[int], labels: Sequence[int], groups: int, share: float) -> None:
        self._counts: list[list[tuple[int, int]]] = [[] for _ in range(groups)]
        for (group, label), number in sorted(Counter(zip(members, labels, strict=True)).items()):
            self._counts[group].append((label, number))
        self._sizes = [0] * (max(labels) + 1)
        for label, number in Counter(labels).items():
            self._sizes[label] = number
        self._wanted = [share * size for size in self._sizes]
        self._has = [0] * len(self._sizes)
        self.inside = [False] * groups
        self.chosen = 0

    def run(self, order: list[int]) -> None:
        """Choose groups in this order until no change reduces the distance."""
        for _ in range(_MOST_PASSES):
            if not sum(self._try(group) for group in order):
                break
        possible = [] if self.chosen else [group for group in order if self._leaves_examples(group)]
        if possible:
            # All groups are larger than the part: the one that comes nearest
            self._flip(min(possible, key=self._change))
        if self.chosen and len(order) <= _MOST_FOR_PAIRS and len(order) * len(self._sizes) <= _MOST_CELLS:
            table = self._table()
            while self._exchange(table, np.array(order)):
                pass

    def distance(self) -> float:
        """Return the distance of the part from what is wanted."""
        terms = zip(self._has, self._wanted, strict=True)
        return sum((has - wanted) ** 2 / wanted for has, wanted in terms if wanted)

    def _try(self, group: int) -> bool:
        """Move a group into the part or out of it if this reduces the distance."""
        if (self.inside[group] and self.chosen == 1) or self._change(group) >= -_LEAST_GAIN:
            return False
        if not (self.inside[group] or self._leaves_examples(group)):
            return False
        self._flip(group)
        return True

    def _change(self, group: int) -> float:
        """Return the change of the distance if a group moves into the part or out of it."""
        sign = -1 if self.inside[group] else 1
        return sum(
            number * (number + 2 * sign * (self._has[label] - self._wanted[label])) / self._wanted[label]
            for label, number in self._counts[group]
        )

    def _leaves_examples(self, group: int) -> bool:
        """Return True if examples of each class stay outside the part when a group enters it."""
        return all(self._has[label] + number < self._sizes[label] for label, number in self._counts[group])

    def _flip(self, group: int) -> None:
        """Move a group into the part or out of it."""
        sign = -1 if self.inside[group] else 1
        self.inside[group] = not self.inside[group]
        self.chosen += sign
        for label, number in self._counts[group]:
            self._has[label] += sign * number

    def _table(self) -> NDArray[np.float64]:
        """Return the examples of each group and class (G + 1, K); the last row is that of no group."""
        table = np.zeros((len(self._counts) + 1, len(self._sizes)))
        for group, counts in enumerate(self._counts):
            for label, number in counts:
                table[group, label] = number
        return table

    def _exchange(self, table: NDArray[np.float64], order: NDArray[np.int64]) -> bool:
        """Exchange a group inside for one outside, or for none, where this reduces the distance most."""
        inside = np.array(self.inside)
        none = np.array([len(self._counts)])
        leaving, entering = np.append(order[inside[order]], none), np.append(order[~inside[order]], none)
        present = np.array(self._sizes) > 0
        weights = np.where(present, 1 / np.where(present, self._wanted, 1), 0)
        far = np.array(self._has) - self._wanted
        squares, slopes = (table**2 * weights).sum(1), 2 * (table * far * weights).sum(1)
        products = (table[leaving] * weights) @ table[entering].T
        gains = (squares - slopes)[leaving][:, None] + (squares + slopes)[entering][None] - 2 * products
        # Rounded, so that the order of equal exchanges does not depend on the machine
        gains = gains.round(6)
        for place in np.argsort(gains, axis=None, kind="stable")[:_MOST_TRIED]:
            out, into = leaving[place // len(entering)], entering[place % len(entering)]
            if gains.flat[place] >= -_LEAST_GAIN:
                return False
            has = self._has - table[out] + table[into]
            emptied = into == none[0] and self.chosen == 1
            if not emptied and (has < self._sizes)[present].all():
                for group in {int(out), int(into)} - {int(none[0])}:
                    self._flip(group)
                return True
        return False
