"""Two benchmarks, compared by their ratios: those do not depend on the machine and its load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from popek.errors import PopekError

from . import Benchmark

WORSE: Final = 1.25
"""A ratio that is worse by more than this factor is reported as worse."""


class BenchmarkFileError(PopekError):
    """A file that holds no benchmark."""


@attrs.frozen
class RatioChange:
    """A ratio before and now.

    Attributes:
        name: of the rate; `total over solver` for classifying.
        before, now: the ratios.
        factor: how much better it is now; below 1 where it is worse.
    """

    name: str
    before: float
    now: float
    factor: float

    @property
    def worse(self) -> bool:
        """Whether it is worse by more than chance."""
        return self.factor * WORSE < 1


def read_benchmark(file: Path) -> Mapping[str, Any]:
    """What `popek bench --json` printed.

    Raises:
        BenchmarkFileError: it is something else.
    """
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise BenchmarkFileError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("schema") != "popek/benchmark/1":
        raise BenchmarkFileError(f"{file}: expected what popek bench --json printed")
    return found


def changes(before: Mapping[str, Any], now: Benchmark) -> list[RatioChange]:
    """Every ratio that both have."""
    found = []
    total = before.get("total_over_solver")
    if total and now.classified is not None and before.get("machine") == now.classified.machine:
        ratio = round(now.classified.ratio, 3)
        found.append(RatioChange("total over solver", total, ratio, total / ratio))
    rates = before.get("rates") or {}
    for rate in now.rates:
        old, ratio_now = (rates.get(rate.name) or {}).get("ratio"), now.ratio(rate)
        if old and ratio_now:
            found.append(RatioChange(rate.name, old, ratio_now, ratio_now / old))
    return found


__all__ = ["BenchmarkFileError", "RatioChange", "changes", "read_benchmark"]
