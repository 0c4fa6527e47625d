"""The controls that own what a VMM wants to own, exist on a processor, and exit least: MaxSAT over the controls.

Hard are the requirement of every instruction that a control decides about, what must reach the VMM whatever
instruction runs, and the processor's rules; each wish is that an instruction exits in no case in which some other
faithful and safe setting lets it run. What is not decided under one setting and is under another goes before all
exits: `undecided` is left to what no setting decides.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from popek.errors import PopekError
from popek.kernel.assistance import Missing, Processor
from popek.kernel.words import Word, all_of, any_of
from popek.solving.optimize import Choices, cheapest
from popek.solving.solver import Answer, Effort

from .desk import Desk
from .exits import excess
from .requirements import Requirement

_EXIT = 1_000  # outweighs the preference for few bits
_DECIDED = 1_000 * _EXIT  # outweighs every exit: what was shown goes before what may be


class WeightsError(PopekError):
    """A file of weights cannot be used; the message is one line."""


@attrs.frozen
class Synthesis:
    """The answer.

    Attributes:
        answer: SAT: the rest is filled in; UNSAT: see `core` and `missing`; UNKNOWN: out of effort.
        processor: its name.
        profile: with what the processor lacks hidden from the guest.
        controls: every control that was chosen, and its value.
        fields: how that is written down.
        exits: forms that may exit; `native`: forms that a control decides about and that never do.
        completes: forms that a control decides about and that the guest's kernel may complete.
        open: forms that no choice makes faithful and safe.
        undecided: forms that may be faithful and safe with these controls: nothing refutes it, nothing decides it.
        cautious: forms that exit although a setting that lets them run may be as good: that was not decided.
        core: what cannot all hold; none of it can be spared.
        missing: controls of the processor that something in the core needs.
        outcome: what the processor makes of the fields.
    """

    answer: Answer
    processor: str
    profile: Any
    controls: Mapping[str, int] = attrs.field(factory=dict)
    fields: Mapping[str, int] = attrs.field(factory=dict)
    exits: tuple[str, ...] = ()
    native: tuple[str, ...] = ()
    completes: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    cautious: tuple[str, ...] = ()
    core: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    outcome: str = ""

    @property
    def on(self) -> tuple[str, ...]:
        """The controls that are 1."""
        return tuple(name for name, value in self.controls.items() if value)

    def to_json(self) -> dict[str, Any]:
        """Without what the declaration alone knows."""
        found: dict[str, Any] = {
            "processor": self.processor,
            "feasible": {Answer.SAT: "yes", Answer.UNSAT: "no"}.get(self.answer, "unknown"),
        }
        if self.answer is Answer.SAT:
            found["fields"] = {name: hex(value) for name, value in self.fields.items()}
            found["controls"] = dict(self.controls)
            found["exits"], found["native"] = list(self.exits), list(self.native)
            found["completes"], found["open"] = list(self.completes), list(self.open)
            found["undecided"], found["cautious"] = list(self.undecided), list(self.cautious)
            found["outcome"] = self.outcome or None
        else:
            found["core"] = list(self.core)
            found["missing"] = [attrs.asdict(item) for item in self.missing]
        return found


def load_weights(path: str) -> Mapping[str, float]:
    """How often each mnemonic runs, from a TOML file of `MNEMONIC = number`.

    Raises:
        WeightsError: the file cannot be read, or is something else.
    """
    try:
        found = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise WeightsError(f"{path}: not TOML: {error}") from None
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise WeightsError(f"{path}: {name}: expected a number, 0 or more, not {value!r}")
    return {name: float(value) for name, value in found.items()}


def processor_of(desk: Desk[Any], name: str | None = None) -> Processor:
    """The processor whose controls are to be set.

    Raises:
        AssistanceError: there is none of this name.
    """
    declared = desk.assistance.processor
    if declared is not None:
        return declared(name)
    controls = {c.name: c.symbol for c in desk.assistance.controls if c.chosen}
    return Processor(name or "any processor", controls, bits=tuple(controls.values()))


def synthesize(
    desk: Desk[Any],
    processor: Processor,
    owns: Sequence[str] | None = None,
    *,
    assume: Mapping[str, int] | None = None,
    weights: Mapping[str, float] | None = None,
    circumstances: Mapping[str, int] | None = None,
    requirements: Sequence[Requirement] | None = None,
    forms: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    effort: Effort | None = None,
) -> Synthesis:
    """The controls with the fewest exits among those that are faithful and safe and exist.

    Args:
        owns, assume: as `Assistance.owner` takes them.
        weights: how often an instruction runs, by mnemonic; 1 when missing.
        circumstances: values of what is not chosen, beside the usual ones.
        requirements: where they are known.
        forms: the instructions; all that the assistance decides about by default.
    """
    profile = desk.assistance.owner(owns, assume=assume, lacks=processor.lacks)
    if requirements is None:
        wanted = desk.forms if forms is None else forms
        requirements = list(required(desk, wanted, profile, progress))
    usual = {**desk.assistance.circumstances, **(circumstances or {})}
    problem = _Problem(desk, processor, profile, requirements, weights or {}, usual)
    return problem.solve(effort or Effort(rlimit=200_000_000))


def required(
    desk: Desk[Any],
    forms: Sequence[str],
    profile: Any,
    progress: Callable[[int, int], None] | None = None,
    mode: str = "",
) -> Iterator[Requirement]:
    """The requirement of each form."""
    for done, form in enumerate(forms, 1):
        yield desk.required(form, profile, mode)
        if progress is not None:
            progress(done, len(forms))


class _Problem:
    """The controls to be chosen, and what must hold of them."""

    def __init__(
        self,
        desk: Desk[Any],
        processor: Processor,
        profile: Any,
        requirements: Sequence[Requirement],
        weights: Mapping[str, float],
        fixed: Mapping[str, int],
    ) -> None:
        self.desk, self.processor, self.profile = desk, processor, profile
        self.weights, self.fixed = weights, fixed
        self.requirements = requirements
        absent = {c.name: 0 for c in desk.assistance.controls if c.chosen and processor.missing(c.name)}
        self.open = (
            tuple(r for r in requirements if not r.possible({**fixed, **absent}))
            if desk.assistance.leaves_open
            else ()
        )
        self.necessities = desk.assistance.necessities(profile)

    def knob(self, name: str) -> Word:
        """A control as a condition (width 1)."""
        found = self.processor.controls.get(name)
        return Word(1, self.fixed[name]) if found is None else found

    def at(self, requirement: Requirement, settings: frozenset[tuple[int, ...]]) -> Word:
        """The controls have one of these settings (width 1)."""
        knobs = [self.knob(name) for name in requirement.knobs]
        return any_of(all_of(k == v for k, v in zip(knobs, values, strict=True)) for values in settings)

    def hard(self) -> dict[str, Word]:
        """Everything that must hold, by name."""
        closed = [r for r in self.requirements if r not in self.open]
        found = {f"instruction {r.form}": self.at(r, r.sound) for r in closed}
        found |= {n.name: self.knob(n.control) == 1 for n in self.necessities}
        return found | dict(self.processor.rules)

    def wishes(self) -> list[tuple[Word, int]]:
        """Nothing undecided that another setting decides; no exit that another spares; then few bits."""
        found = [
            (self.at(r, r.sound - r.undecided), _DECIDED) for r in self.requirements if r.sound & r.undecided
        ]
        seen = set()
        for requirement in self.requirements:
            if requirement.mnemonic in seen or len(requirement.sound) < 2:
                continue
            seen.add(requirement.mnemonic)
            spared = excess(self.desk.duty(requirement.form, self.profile), requirement, self.fixed)
            weight = round(_EXIT * self.weights.get(requirement.mnemonic, 1.0))
            if spared and weight:
                found.append((~self.at(requirement, spared), weight))
        return [*found, *((bit == 0, 1) for bit in self.processor.bits)]

    def solve(self, effort: Effort) -> Synthesis:
        """The cheapest choice, or why there is none."""
        hard = self.hard()
        if any(condition.value == 0 for condition in hard.values()):
            return self.reason({n: c for n, c in hard.items() if c.value == 0}, effort)
        found = cheapest(hard.values(), self.wishes(), effort)
        if found.model is None:
            if found.answer is Answer.UNSAT:
                return self.reason(hard, effort)
            return Synthesis(found.answer, self.processor.name, self.profile)
        model = found.model

        def number(word: Word) -> int:
            return model(word.term)

        values = {name: number(word) for name, word in self.processor.controls.items()}
        setting = {**self.fixed, **values}
        fields = self.processor.fields(self.profile, setting, number)
        exits = tuple(r.form for r in self.requirements if r.at(setting) in r.exits)
        undecided = tuple(r.form for r in self.requirements if r.at(setting) in r.undecided & r.sound)
        avoided = {r.form for r in self.requirements if r.undecided & r.sound}.difference(undecided)
        return Synthesis(
            Answer.SAT,
            self.processor.name,
            self.profile,
            values,
            fields,
            exits,
            tuple(r.form for r in self.requirements if r.knobs and r.form not in exits),
            tuple(r.form for r in self.requirements if r.knobs and r.at(setting) in r.completes),
            tuple(r.form for r in self.open),
            undecided,
            tuple(form for form in exits if form in avoided),
            outcome=self.processor.outcome(fields),
        )

    def reason(self, hard: Mapping[str, Word], effort: Effort) -> Synthesis:
        """What cannot all hold, and which control that wants for."""
        core = Choices(hard, effort).core(tuple(hard)) or tuple(hard)
        needs: dict[str, list[str]] = {}
        for requirement in self.requirements:
            if f"instruction {requirement.form}" in core:
                for place, name in enumerate(requirement.knobs):
                    if all(setting[place] for setting in requirement.sound):
                        needs.setdefault(name, []).append(requirement.form)
        for necessity in self.necessities:
            if necessity.name in core:
                needs.setdefault(necessity.control, []).append(necessity.name)
        missing = tuple(
            Missing(name, tuple(by), self.processor.missing(name))
            for name, by in needs.items()
            if self.processor.missing(name)
        )
        return Synthesis(Answer.UNSAT, self.processor.name, self.profile, core=core, missing=missing)
