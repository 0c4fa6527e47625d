"""What is asked about: a machine under a technique, in a configuration; and how hard to try."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

import attrs

from popek.kernel.configuration import Configuration, configure, default_configuration
from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.state import State
from popek.kernel.technique import Technique
from popek.kernel.words import TRUE, Word, all_of
from popek.machines import machine as find_machine
from popek.solving.solver import Effort

from .delivery import Deliveries
from .runs import Run, explore_instruction

S = TypeVar("S", bound=State)
V = TypeVar("V")


@attrs.frozen(eq=False)
class Subject(Generic[S]):
    """A machine under a technique, in a configuration: what every question of `checks` is about.

    Attributes:
        machine: what is virtualized.
        technique: how; decides what "user mode" and "replaced" mean.
        configuration: settings that all runs share; they speak of the hardware, and of a guest's own machine.
        effort: bounds of each question, and the tally of solver time.
        time_is_state: clocks count as resources.
        found_as: the name or file by which another process finds the machine; None where it cannot.
    """

    machine: Machine[S]
    technique: Technique[S]
    configuration: Configuration
    effort: Effort = attrs.field(factory=Effort)
    time_is_state: bool = False
    found_as: str | None = None
    _known: dict[tuple[object, ...], Any] = attrs.field(factory=dict, init=False, repr=False)

    def once(self, what: str, make: Callable[..., V], *states: State) -> V:
        """What `make` gives for these states of symbols, made once: most forms start from the same symbols.

        Args:
            what: tells apart what is made of the same states.
        """
        key = (what, *(word.term for state in states for word in state.words().values()))
        if key not in self._known:
            self._known[key] = make(*states)
        found: V = self._known[key]
        return found

    @classmethod
    def of(
        cls,
        machine: str | Machine[Any],
        technique: str | Technique[Any] | None = None,
        configuration: Configuration | Iterable[str] | None = None,
        *,
        timeout: float = 0.0,
        effort: Effort | None = None,
        time_is_state: bool = False,
    ) -> Subject[Any]:
        """What a name, a file or a machine stands for.

        Args:
            technique: by name, or itself; the machine's first by default.
            configuration: itself, or NAME=VALUE settings beside the defaults; every setting at its default by default.
            timeout: seconds a single question may take; 0 for no bound but the solver's own.
            effort: instead of `timeout`.

        Raises:
            UnknownNameError, SettingError, MachineFileError: no such machine, technique or setting.
        """
        known = find_machine(machine)
        way = known.technique(technique) if technique is None or isinstance(technique, str) else technique
        if configuration is None:
            configuration = default_configuration(known)
        elif not isinstance(configuration, Configuration):
            configuration = configure(known, configuration)
        found_as = machine if isinstance(machine, str) else None
        return cls(known, way, configuration, effort or Effort(timeout=timeout), time_is_state, found_as)

    @cached_property
    def deliveries(self) -> Deliveries[S]:
        """Which kinds of trap the machine says how to deliver."""
        return Deliveries(self.machine, self.effort)

    def holds(self, state: S, *, mentioned: Container[str] | None = None) -> Word:
        """The condition (width 1) that a state has the settings; see `Configuration.holds`."""
        return self._holds(self.configuration.settings, state, mentioned)

    def holds_of_the_image(self, state: S, *, mentioned: Container[str] | None = None) -> Word:
        """The same of the hardware while a guest is on it."""
        return self._holds(self.of_the_image.settings, state, mentioned)

    def _holds(self, settings: Mapping[str, int], state: S, mentioned: Container[str] | None) -> Word:
        known: dict[str, Word] = self.once("settings", lambda state: {}, state)
        wanted = [name for name in self.concerned(mentioned) if name in settings]
        for name in wanted:
            if name not in known:
                one = Configuration({name: self.configuration.settings[name]})
                known[name] = one.holds(self.machine, state)
        return all_of(known[name] for name in wanted)

    def concerned(self, mentioned: Container[str] | None) -> tuple[str, ...]:
        """The settings that may matter to runs which mention these components; None: whatever they mention."""
        return tuple(
            name
            for name, concerns in self._concerns
            if not concerns or mentioned is None or any(component in mentioned for component in concerns)
        )

    @property
    def _concerns(self) -> list[tuple[str, tuple[str, ...]]]:
        found: list[tuple[str, tuple[str, ...]]] = self.once(
            "concerns",
            lambda: [(name, self.machine.setting(name).concerns) for name in self.configuration.settings],
        )
        return found

    @cached_property
    def of_the_guest(self) -> Configuration:
        """The settings of the guest's own machine."""
        free = dict.fromkeys(self.technique.hardware_settings)
        settings = {**self.configuration.settings, **free, **self.technique.guest_settings}
        return Configuration({name: value for name, value in settings.items() if value is not None})

    @cached_property
    def of_the_image(self) -> Configuration:
        """The settings of the hardware while a guest is on it: not what the guest has a say in."""
        own = [name for name, value in self.technique.guest_settings.items() if value is None]
        settings = self.configuration.settings
        return Configuration({name: settings[name] for name in settings if name not in own})

    def explore(
        self,
        instruction: Instruction,
        *,
        prefer: Callable[[S], Word] = lambda state: TRUE,
        traps: bool = True,
    ) -> Run[S]:
        """Every path of an instruction from any state; see `explore_instruction`.

        Raises:
            PathBudgetError: too many paths, or longer ones.
        """
        return explore_instruction(
            self.machine,
            instruction,
            self.effort,
            configuration=self.configuration,
            prefer=prefer,
            traps=traps,
        )

    def __str__(self) -> str:
        return f"{self.machine.name} under {self.technique.name} with {self.configuration}"

    def __reduce__(self) -> tuple[Any, ...]:
        """By name: semantics are functions, which do not travel."""
        if self.found_as is None or self.machine.technique(self.technique.name) is not self.technique:
            raise TypeError(f"{self}: was not found by name, so another process cannot find it")
        bounds = self.effort.rlimit, self.effort.timeout
        return _again, (
            self.found_as,
            self.technique.name,
            self.configuration,
            bounds,
            self.time_is_state,
        )


def _again(
    found_as: str,
    technique: str,
    configuration: Configuration,
    bounds: tuple[int, float],
    time_is_state: bool,
) -> Subject[Any]:
    effort = Effort(*bounds)
    return Subject.of(found_as, technique, configuration, effort=effort, time_is_state=time_is_state)


class Runs(Generic[S]):
    """The runs of a machine's forms from any state, each explored once."""

    def __init__(self, subject: Subject[S]) -> None:
        self.subject = subject
        self._runs: dict[str, Run[S] | None] = {}

    def of(self, instruction: Instruction) -> Run[S] | None:
        """Every path of a form; None where it has too many."""
        if instruction.form not in self._runs:
            try:
                self._runs[instruction.form] = self.subject.explore(instruction).without_assignments()
            except PathBudgetError:
                self._runs[instruction.form] = None
        return self._runs[instruction.form]
