"""One kind of hardware assistance at work: its machine, runs and requirements, each made once.

A `Duty` is the obligation of one instruction form under an arrangement: what may fail, and on which controls it
depends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

import attrs

from popek.checks.obligation import Obligation
from popek.checks.runs import Run, explore_instruction, probe
from popek.kernel import terms
from popek.kernel.assistance import Arrangement, Assistance, AssistanceError, Control, Mode
from popek.kernel.configuration import Configuration
from popek.kernel.exploration import Path
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine, UnknownNameError
from popek.kernel.outcome import Next, Trap
from popek.kernel.state import State
from popek.kernel.words import Word, any_of
from popek.solving.asking import Ask, assume
from popek.solving.solver import Solver

from .requirements import QUESTIONS, Requirement, weakest

S = TypeVar("S", bound=State)

PROBE = "probed address in"


@attrs.frozen(eq=False, slots=False)
class Duty(Generic[S]):
    """One instruction on the guest's machine and on the hardware.

    Attributes:
        obligation: the two runs.
        assumed: conditions under which they are compared.
        controls: those of the assistance.
        desk: who made it.
        profile, masks: what the VMM owns, and registers that are as they are.
    """

    obligation: Obligation[S]
    assumed: tuple[Word, ...]
    arrangement: Arrangement[S]
    desk: Desk[S]
    profile: Any
    masks: Mapping[str, int]
    translated: Solver

    @property
    def instruction(self) -> Instruction:
        """The form."""
        return self.obligation.instruction

    @cached_property
    def ask(self) -> Ask:
        """Ask under what is assumed."""
        return assume(self.assumed, self.translated)

    @cached_property
    def unfaithful(self) -> Word:
        """It does not exit and fails fidelity (width 1)."""
        due = self.obligation
        ends = due.kept(due.hardware)
        return any_of(breach.when for breach in (*due.unlike(ends), *due.faults()))

    @cached_property
    def unsafe(self) -> Word:
        """It completes and changes what the VMM owns (width 1)."""
        due = self.obligation
        return any_of(breach.when for breach in due.changes(due.kept(due.hardware)))

    @cached_property
    def completes(self) -> Word:
        """It completes on the hardware for the guest's kernel (width 1)."""
        hardware = self.obligation.hardware
        return self.obligation.technique.deprivileged(hardware.before) & hardware.completes

    @cached_property
    def exits(self) -> Word:
        """It ends in an exit (width 1)."""
        is_exit = self.desk.assistance.is_exit
        return any_of(
            path.condition
            for path in self.obligation.hardware.paths
            if isinstance(path.result, Trap) and is_exit(path.result)
        )

    @cached_property
    def undecided(self) -> Word:
        """The model does not say what happens on the hardware, or on the guest's machine while it does not exit."""
        hardware, native = self.obligation.hardware, self.obligation.native
        return hardware.not_modelled | (native.not_modelled & ~self.exits)

    @cached_property
    def knobs(self) -> Mapping[str, Word]:
        """The controls that the run depends on: those its conditions and its results mention."""
        hardware, private = self.obligation.hardware, self.obligation.private
        start = hardware.before
        leaves = [leaf.name for leaf in start.leaves]
        roots = [condition for path in hardware.paths for condition in path.conditions]
        for path in hardware.paths:
            if isinstance(path.result, Next):
                done = path.result.state
                roots += [done[n].term for n in leaves if done[n].term is not start[n].term]
                roots += [
                    m.load(probe(m, f"{PROBE} {n}")).term for n, m in done.memories().items() if m.stores
                ]
        used = set(terms.variables_of(roots))
        return {
            control.name: control.symbol if control.holds is None else control.holds(start, private)
            for control in self.desk.assistance.controls
            if control.mark in used
        }

    def under(self, setting: Mapping[str, int]) -> list[Word]:
        """The conditions that say a setting of the knobs."""
        return [self.knobs[name] == value for name, value in setting.items() if name in self.knobs]

    def image(self, guest: S, private: S, setting: Mapping[str, int]) -> S:
        """The hardware state from a guest's state and a VMM's, with values for the controls (0 by default)."""
        return self.desk.arrangement(self.profile, setting, self.masks, default=0).image(guest, private)


class Desk(Generic[S]):
    """An assistance with everything that was made for it."""

    def __init__(self, assistance: Assistance[S]) -> None:
        self.assistance = assistance
        self._runs: dict[tuple[str, str], Run[S]] = {}
        self._required: dict[tuple[str, Any, str], Requirement] = {}
        self._translated: tuple[str, Solver] = ("", Solver())

    @cached_property
    def machine(self) -> Machine[S]:
        """The machine of the questions."""
        return self.assistance.machine()

    @cached_property
    def forms(self) -> tuple[str, ...]:
        """The forms that the assistance decides about."""
        governed = self.assistance.governed
        return tuple(self.machine.instructions) if governed is None else tuple(governed())

    @cached_property
    def plain(self) -> tuple[S, S]:
        """What guest and VMM look like where nothing is said of them."""
        plain = self.assistance.plain
        return (self.machine.state.reset(), self.machine.state.reset()) if plain is None else plain()

    @cached_property
    def owner_of_all(self) -> Any:
        """The profile of a VMM that owns everything."""
        return self.assistance.owner(self.assistance.ownable)

    def representatives(self, forms: Iterable[str] | None = None) -> tuple[str, ...]:
        """One form of each mnemonic, but of those that are told apart."""
        seen: dict[tuple[str, str], str] = {}
        apart = self.assistance.told_apart
        for form in self.forms if forms is None else forms:
            mnemonic = self.machine.instructions[form].mnemonic
            seen.setdefault((mnemonic, form if apart(mnemonic) else ""), form)
        return tuple(seen.values())

    def find(self, names: Iterable[str]) -> list[str]:
        """The forms that names mean: forms or mnemonics.

        Raises:
            UnknownNameError: with near matches.
        """
        return list(dict.fromkeys(i.form for name in names for i in self.machine.find(name)))

    def mode(self, name: str = "") -> Mode[S]:
        """An operating mode of the guest, the first one by default.

        Raises:
            UnknownNameError: with near matches.
        """
        modes = self.assistance.modes
        if not name:
            return next(iter(modes.values()))
        if name not in modes:
            raise UnknownNameError(f"mode of {self.assistance.name}", name, modes)
        return modes[name]

    def run(self, form: str, mode: str = "") -> Run[S]:
        """Every path of a form in a mode, from a state that may be anything."""
        chosen = self.mode(mode)
        key = form, chosen.name
        if key not in self._runs:
            configuration = Configuration(chosen.settings) if chosen.settings else None
            found = explore_instruction(
                self.machine, self.machine.instructions[form], configuration=configuration
            )
            self._runs[key] = found.without_assignments()
        return self._runs[key]

    def arrangement(
        self,
        profile: Any,
        setting: Mapping[str, int],
        masks: Mapping[str, int] | None = None,
        default: int | None = None,
    ) -> Arrangement[S]:
        """Guest and VMM with numbers for some controls, and symbols (or a default) for the others."""

        def word(control: Control[S]) -> Word:
            value = setting.get(control.name, default)
            return control.symbol if value is None else Word(1, value)

        controls = {c.name: word(c) for c in self.assistance.controls if c.holds is None}
        return self.assistance.arrange(profile, controls, masks or {})

    def duty(
        self,
        form: str,
        profile: Any,
        fixed: Mapping[str, int] | None = None,
        masks: Mapping[str, int] | None = None,
        mode: str = "",
    ) -> Duty[S]:
        """What one form owes under a profile.

        Args:
            fixed: controls by name, where they are not left open.
            masks: registers that are as they are, whatever the VMM owns.

        Raises:
            AssistanceError: there is no guest in this mode under the profile.
        """
        chosen = self.mode(mode)
        refused = chosen.refused(profile)
        if refused:
            raise AssistanceError(refused)
        machine, run = self.machine, self.run(form, mode)
        instruction = machine.instructions[form]
        put = self.arrangement(profile, {**(fixed or {}), **chosen.fixed}, masks)
        start = put.start(run.before)
        mapped = put.image(start, put.private)
        native, hardware = run.at(start), run.at(mapped)
        if instruction.mnemonic in put.lacks:
            native = Run(start, (Path((), Trap(put.undefined, None, False, start)),), run.operands)
        obligation = Obligation(machine, put.technique, instruction, native, hardware, put.private)
        assumed = (
            machine.invariant(start),
            machine.invariant(mapped),
            instruction.valid(run.operands),
            put.technique.guest(start),
            put.technique.private(start, put.private),
        )
        return Duty(obligation, assumed, put, self, profile, masks or {}, self._translation(form))

    def _translation(self, form: str) -> Solver:
        """What all questions about a form share, while they are about this form."""
        if self._translated[0] != form:
            self._translated = (form, Solver())
        return self._translated[1]

    def required(self, form: str, profile: Any, mode: str = "") -> Requirement:
        """What a form asks of the controls."""
        key = form, profile, self.mode(mode).name
        if key not in self._required:
            due = self.duty(form, profile, mode=mode)
            questions = {name: getattr(due, name) for name in QUESTIONS}
            self._required[key] = weakest(due.instruction, due.knobs, questions, due.ask)
        return self._required[key]


_DESKS: dict[int, tuple[Assistance[Any], Desk[Any]]] = {}


def desk_of(assistance: Assistance[S]) -> Desk[S]:
    """The desk of an assistance, made once."""
    known = _DESKS.get(id(assistance))
    if known is None:
        known = _DESKS[id(assistance)] = (assistance, Desk(assistance))
    return known[1]
