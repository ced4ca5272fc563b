"""Covering arrays: few configurations in which every pair of settings of any two factors occurs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Configuration = dict[str, Any]


def _pairs(configuration: tuple[int, ...]) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    return set(itertools.combinations(enumerate(configuration), 2))


def full_product(
    factors: Mapping[str, Sequence[Any]], valid: Callable[[Configuration], bool] = lambda _: True
) -> list[Configuration]:
    """Every valid configuration."""
    every = (dict(zip(factors, chosen, strict=True)) for chosen in itertools.product(*factors.values()))
    return [configuration for configuration in every if valid(configuration)]


def pairwise(
    factors: Mapping[str, Sequence[Any]], valid: Callable[[Configuration], bool] = lambda _: True
) -> list[Configuration]:
    """Valid configurations in which every pair that any valid configuration has occurs, chosen greedily.

    Each step takes the configuration with the most pairs still missing, the first of them in product order.
    """
    settings = list(factors.values())

    def named(code: tuple[int, ...]) -> Configuration:
        return {name: values[i] for name, values, i in zip(factors, settings, code, strict=True)}

    candidates = {
        code: _pairs(code) for code in itertools.product(*(range(len(s)) for s in settings)) if valid(named(code))
    }
    missing = set().union(*candidates.values())
    chosen = []
    while missing:
        best = max(candidates, key=lambda code: len(candidates[code] & missing))
        missing -= candidates.pop(best)
        chosen.append(named(best))
    return chosen
