"""A benchmark as text, and its growth curve as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.benchmark import Benchmark, Classified, Rate
from popek.benchmark.comparing import WORSE, RatioChange

from .svg import LINE, MARGIN, SIZE, Figure, text, width_of

PLOT_WIDTH, PLOT_HEIGHT = 560.0, 260.0
TICKS = 5  # at most, on an axis


def benchmark(found: Benchmark) -> RenderableType:
    """What was measured."""
    parts: list[RenderableType] = []
    if found.classified is not None:
        parts += [_classified(found.classified), Text("")] if found.rates else [_classified(found.classified)]
    if found.settings:
        told = ", ".join(f"{count}: {seconds:.2f} s" for count, seconds in found.settings)
        parts += [Text(f"growth with open settings, one form: {told}"), Text("")]
    if found.rates:
        table = Table("what", "a second", "ratio", box=None, pad_edge=False, header_style="bold")
        table.columns[1].justify = "right"
        for rate in found.rates:
            value = Text(rate.missing, "dim") if rate.missing else Text(f"{rate.per_second:,.0f}")
            table.add_row(rate.unit, value, _beside(found, rate))
        parts.append(table)
    return Group(*parts)


def _beside(found: Benchmark, rate: Rate) -> str:
    """A rate beside its reference: how many times as often, or, for what takes long, how many times the time."""
    ratio = found.ratio(rate)
    if ratio is None:
        return ""
    beside = rate.beside.removeprefix("steps ").removeprefix("start ").capitalize()
    return (
        f"{1 / ratio:.1f} times the time of {beside}"
        if rate.name.startswith("start")
        else f"{ratio:.2f} × {beside}"
    )


def compared(found: Sequence[RatioChange]) -> RenderableType:
    """Ratios before and now."""
    table = Table("ratio", "before", "now", "", box=None, pad_edge=False, header_style="bold")
    for one in found:
        word = "worse" if one.worse else "better" if one.factor > WORSE else "as before"
        table.add_row(one.name, f"{one.before:.3g}", f"{one.now:.3g}", word)
    return Group(Text(""), table) if found else Text("nothing to compare: no ratio is in both")


def _classified(found: Classified) -> RenderableType:
    half = found.growth[(found.forms - 1) // 2]
    return Group(
        f"{found.machine}: {found.forms} forms classified in {found.seconds:.2f} s on one processor",
        f"total over solver time: {found.ratio:.2f}  (solver: {found.solver_seconds:.2f} s)",
        f"growth: the first half of the forms took {half:.2f} s, the second {found.seconds - half:.2f} s",
        "slowest: " + ", ".join(f"{form} {seconds:.2f} s" for form, seconds in found.slowest),
    )


def figure(found: Benchmark) -> Figure:
    """The growth curves, of forms in all and in the solver, and of open settings; below them the rates."""
    lines = [f"{rate.unit}: " + (rate.missing or f"{rate.per_second:,.0f} a second") for rate in found.rates]
    parts, bottom = [], MARGIN
    words = lines
    if found.classified is not None:
        parts.append(_growth(found.classified))
        bottom += PLOT_HEIGHT + 3 * LINE
        words = [f"{found.classified.machine}: {_said(found.classified)}", *lines]
    if found.settings:
        told = [(float(count), seconds) for count, seconds in found.settings]
        name = f"of one form: {told[-1][1]:.2f} s"
        title = "seconds until it is said when a form is critical"
        parts.append(_plot(bottom, title, "open settings", [("blue", name, [(0.0, 0.0), *told])]))
        bottom += PLOT_HEIGHT + 3 * LINE
        words = [*words, f"{title}, with {found.settings[-1][0]} open settings: {told[-1][1]:.2f} s"]
    for number, line in enumerate(lines):
        parts.append(text(MARGIN, bottom + number * LINE + SIZE, line))
    width = max(PLOT_WIDTH + 2 * MARGIN, width_of(lines) + 2 * MARGIN)
    return Figure("".join(parts), width, bottom + len(lines) * LINE + MARGIN, "\n".join(words))


def _said(found: Classified) -> str:
    return f"{found.forms} forms in {found.seconds:.2f} s, {found.solver_seconds:.2f} s of it in the solver"


def _growth(found: Classified) -> str:
    """Seconds over forms: two curves on one pair of axes."""
    curves = [
        (kind, f"{name}: {seconds[-1]:.2f} s", list(enumerate((0.0, *seconds))))
        for kind, name, seconds in (
            ("blue", "in all", found.growth),
            ("red", "in the solver", found.solver_growth),
        )
    ]
    return _plot(MARGIN, f"{found.machine}: seconds after each form", "instruction forms", curves)


def _plot(
    begin: float, title: str, across_is: str, curves: Sequence[tuple[str, str, Sequence[tuple[float, float]]]]
) -> str:
    """Seconds over a number: curves on one pair of axes, each with its kind and name.

    Args:
        begin: where it is, from the top.
    """
    left, top = MARGIN + 52, begin + 2 * LINE
    right, bottom = PLOT_WIDTH, begin + PLOT_HEIGHT
    most = max(x for _, _, points in curves for x, _ in points)
    longest = max(y for _, _, points in curves for _, y in points)
    step = nice_step(longest)
    highest = max(math.ceil(longest / step), 1) * step
    across, up = (right - left) / max(1, most), (bottom - top) / highest
    parts = [text(MARGIN, begin + SIZE, title, "head")]
    for number in range(round(highest / step) + 1):
        y = bottom - number * step * up
        parts.append(
            f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" stroke-dasharray="1 4"/>'
        )
        parts.append(text(left - 6, y + SIZE * 0.35, f"{number * step:g} s", "quiet", "end"))
    for count in range(0, round(most) + 1, max(1, round(nice_step(most)))):
        parts.append(text(left + count * across, bottom + LINE, str(count), "quiet", "middle"))
    parts.append(text(right, bottom + 2 * LINE, across_is, "quiet", "end"))
    for row, (kind, name, points) in enumerate(curves, 1):
        parts.append(_curve([(left + x * across, bottom - y * up) for x, y in points], kind))
        y = top + row * LINE
        parts.append(f'<path class="{kind}" d="M{left + 10:.1f},{y - 4:.1f}h18" stroke-width="2"/>')
        parts.append(text(left + 34, y, name))
    return "".join(parts)


def _curve(points: Sequence[tuple[float, float]], kind: str) -> str:
    path = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path class="{kind}" d="M{path}" stroke-width="2"/>'


def nice_step(highest: float) -> float:
    """The distance of ticks, one of 1, 2 and 5 times a power of ten, so that there are at most `TICKS`."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest / TICKS))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * TICKS >= highest)
