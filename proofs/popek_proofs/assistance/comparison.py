"""Kinds of hardware assistance side by side: the same questions, asked of each declaration.

A `Query` names no processor; what it says of one is derived from its declaration, never written down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import attrs

from popek.assistance.desk import Desk, desk_of
from popek.assistance.requirements import Requirement
from popek.assistance.synthesis import Synthesis, processor_of, synthesize
from popek.checks.runs import explore_instruction
from popek.checks.subject import Subject
from popek.checks.survey import Request, Surveyor
from popek.checks.verdict import Truth
from popek.kernel.assistance import Processor, hardware_of
from popek.kernel.configuration import default_configuration
from popek.kernel.machine import Machine, UnknownNameError
from popek.kernel.outcome import Next
from popek.kernel.state import Role
from popek.kernel.technique import Technique
from popek.kernel.words import any_of
from popek.machines import assistance
from popek.solving.asking import assume
from popek.solving.solver import Answer
from popek.work import results
from popek_proofs.eight_problems import problems as eight_problems
from popek_proofs.eight_problems.search import Asking

Progress = Callable[[], None]


@attrs.frozen(eq=False, slots=False)
class Compared:
    """One kind of hardware assistance, with what was already found.

    Attributes:
        desk: the declaration at work.
        forms: those that are asked about; all that the assistance decides about by default.
    """

    desk: Desk[Any]
    forms: Sequence[str] = attrs.field(default=attrs.Factory(lambda self: self.desk.forms, takes_self=True))

    @property
    def name(self) -> str:
        """The name of the technique."""
        return self.desk.assistance.name

    @property
    def title(self) -> str:
        """In words."""
        return self.desk.assistance.title

    @cached_property
    def machine(self) -> Machine[Any]:
        """The machine on which the technique is found."""
        return hardware_of(self.desk.assistance)

    @cached_property
    def technique(self) -> Technique[Any]:
        """The technique."""
        return self.machine.technique(self.name)

    @cached_property
    def before(self) -> Machine[Any]:
        """The machine without it."""
        return self.desk.assistance.before[0]()

    @cached_property
    def processor(self) -> Processor:
        """The processor whose controls are chosen: the usual one."""
        return processor_of(self.desk)

    def requirements(self, progress: Progress = lambda: None) -> Sequence[Requirement]:
        """What the forms require of a VMM that owns the usual; worked out once."""
        found = self.__dict__.get("_requirements")
        if found is None:
            profile, made = self.desk.assistance.owner(lacks=self.processor.lacks), []
            for form in self.forms:
                made.append(self.desk.required(form, profile))
                progress()
            found = self.__dict__["_requirements"] = tuple(made)
        return found

    @cached_property
    def choice(self) -> Synthesis:
        """The best setting, from what the forms require."""
        return self.choose(self.requirements())

    def choose(self, requirements: Sequence[Requirement]) -> Synthesis:
        """The best setting for these requirements."""
        found = synthesize(self.desk, self.processor, requirements=requirements)
        if found.answer is not Answer.SAT:
            raise RuntimeError(f"no controls of {self.processor.name} are faithful and safe")
        return found


# -- the questions ------------------------------------------------------------------------------------------


@attrs.frozen
class Cell:
    """An answer: in a few words, and as data."""

    text: str
    value: Any


@attrs.frozen
class Query:
    """A question that any kind of assistance can be asked.

    Attributes:
        name: stable, as the command line spells it.
        title: the heading of its row.
        statement: the question.
        answer: the answer for one kind of assistance.
    """

    name: str
    title: str
    statement: str
    answer: Callable[[Compared, Progress], Cell]


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _mode_bit(assistance: Compared, progress: Progress) -> Cell:
    """Mode leaves that the map sets and the guest, which has no such assistance, finds clear."""
    machine, technique = assistance.machine, assistance.technique
    guest, private = machine.state.symbolic(), machine.state.symbolic("'")
    hardware = technique.map(guest, private)
    found = [
        leaf.name
        for leaf in machine.state.leaves
        if leaf.role is Role.MODE and hardware[leaf.name].concrete and hardware[leaf.name].value == 1
    ]
    return Cell(" ".join(f"{name} = 1" for name in found), found)


def _exits(assistance: Compared, progress: Progress) -> Cell:
    """How many forms exit: always, as the controls say, or never."""
    counts = {"always": 0, "settable": 0, "never": 0}
    for item in assistance.requirements(progress):
        every = 1 << len(item.knobs)
        if not item.exits:
            counts["never"] += 1
        elif len(item.exits) == every and not item.completes:
            counts["always"] += 1
        else:
            counts["settable"] += 1
    never = counts["never"] + len(assistance.desk.machine.instructions) - len(assistance.forms)
    text = f"{counts['always']} always, {counts['settable']} in some states or settings, {never} never"
    return Cell(text, {**counts, "never": never})


def _controls(assistance: Compared, progress: Progress) -> Cell:
    """The controls on which what becomes of an instruction depends."""
    knobs = dict.fromkeys(name for item in assistance.requirements(progress) for name in item.knobs)
    return Cell(f"{len(knobs)}: {_listed(list(knobs))}", list(knobs))


def _weakest(assistance: Compared, progress: Progress) -> Cell:
    """Forms that are not faithful and safe whatever the controls."""
    found = {
        item.form: item.condition(item.sound)
        for item in assistance.requirements(progress)
        if item.condition(item.sound) != "always"
    }
    conditions = len(set(found.values()) - {"never"})
    return Cell(f"{len(found)} forms, {conditions} different conditions", found)


def _best(assistance: Compared, progress: Progress) -> Cell:
    """The sound setting with the fewest exits."""
    assistance.requirements(progress)
    choice = assistance.choice
    return Cell(
        f"{len(choice.exits)} forms exit with {_listed(choice.on, 20)}",
        {"on": list(choice.on), "exits": list(choice.exits)},
    )


def _open(assistance: Compared, progress: Progress) -> Cell:
    """Forms that no setting makes faithful and safe."""
    assistance.requirements(progress)
    return Cell(_listed(assistance.choice.open) or "nothing", list(assistance.choice.open))


def _one_each(machine: Machine[Any]) -> list[str]:
    """One form of each instruction: the first."""
    first: dict[str, str] = {}
    for form, instruction in machine.instructions.items():
        first.setdefault(instruction.mnemonic, form)
    return list(first.values())


def _critical_of(
    machine: Machine[Any], technique: str, forms: Sequence[str] | None, progress: Progress
) -> dict[str, list[str]]:
    surveyor = Surveyor(Request(Subject.of(machine, technique), components=False))
    found: dict[str, list[str]] = {"yes": [], "unknown": []}
    for form in _one_each(machine) if forms is None else forms:
        row = surveyor.row(form)
        critical = row.classes["critical"]
        if critical is not Truth.NO and row.mnemonic not in found[critical.value]:
            found[critical.value].append(row.mnemonic)
        progress()
    return found


def _critical_cell(found: Mapping[str, list[str]]) -> Cell:
    text = f"{len(found['yes'])}: {_listed(found['yes'])}" if found["yes"] else "none"
    return Cell(text + (f"; unknown: {_listed(found['unknown'])}" if found["unknown"] else ""), dict(found))


def _critical_before(assistance: Compared, progress: Progress) -> Cell:
    """The critical set of the machine without the assistance, deprivileged; by one form of each instruction."""
    return _critical_cell(
        _critical_of(assistance.before, assistance.desk.assistance.before[1], None, progress)
    )


def _critical(assistance: Compared, progress: Progress) -> Cell:
    """The critical set under the technique with its default settings, by the letter of Theorem 1."""
    return _critical_cell(_critical_of(assistance.machine, assistance.name, assistance.forms, progress))


def _masking(assistance: Compared, progress: Progress) -> list[str]:
    """Forms that complete in the guest's kernel and change its interrupt flag."""
    machine = assistance.before
    flag = machine.interrupt_masks[0]
    configuration = default_configuration(machine)
    found = []
    for instruction in machine.instructions.values():
        run = explore_instruction(machine, instruction, configuration=configuration)
        start, old = run.before, run.before[flag]
        changed = [
            path.condition & (path.result.state[flag] != old)
            for path in run.paths
            if isinstance(path.result, Next) and path.result.state[flag].term is not old.term
        ]
        allowed = (
            machine.supervisor(start),
            machine.invariant(start),
            instruction.valid(run.operands),
            configuration.holds(machine, start),
        )
        if changed and assume(allowed)([any_of(changed)]) is not False:
            found.append(instruction.form)
        progress()
    return found


def _interrupts(assistance: Compared, progress: Progress) -> Cell:
    """Of the forms that change the interrupt flag, those that exit with the best setting."""
    if not assistance.before.interrupt_masks:
        return Cell("not asked: the machine declares no interrupt mask", None)
    assistance.requirements(progress)
    masking = _masking(assistance, progress)
    exits = [form for form in masking if form in assistance.choice.exits]
    text = f"{len(masking)} forms change {assistance.before.interrupt_masks[0]}; may exit: {_listed(exits) or 'none'}"
    return Cell(text, {"change_the_flag": masking, "exit": exits})


def _theorem_1(assistance: Compared, progress: Progress) -> Cell:
    """Whether every form exits or does to the guest's state what it should, under the best setting."""
    assistance.requirements(progress)
    if assistance.choice.undecided:
        return Cell("unknown", "unknown")
    left = assistance.choice.open
    return Cell(f"refuted by {len(left)} forms that stay open", "refuted") if left else Cell("holds", "holds")


def _problem(name: str) -> Callable[[Compared, Progress], Cell]:
    """One of the eight problems of ring deprivileging, asked of the technique, with one form of each instruction."""

    def answer(assistance: Compared, progress: Progress) -> Cell:
        asking = Asking(
            Subject.of(assistance.machine, assistance.technique),
            tuple(assistance.machine.instructions[form] for form in _one_each(assistance.machine)),
        )
        (found,) = eight_problems.ask(
            eight_problems.find([name]), asking, progress=lambda done, total: progress()
        )
        words = {
            Truth.YES: "present",
            Truth.NO: "absent",
            Truth.UNKNOWN: "unknown",
            Truth.NOT_ASKED: "not asked",
        }
        present = [item for item in found.answers if item.present is not Truth.NO]
        why = "; ".join(
            f"{item.question}: {words[item.present]}{' (' + ', '.join(item.forms) + ')' if item.forms else ''}"
            for item in present
        )
        text = words[found.present] + (f": {why}" if why else "")
        return Cell(text, {"present": found.present.value, "forms": [f for i in present for f in i.forms]})

    return answer


QUERIES: Final[Mapping[str, Query]] = {
    query.name: query
    for query in (
        Query("mode-bit", "mode bit", "what tells the guest from the VMM", _mode_bit),
        Query("exits", "exits", "how many forms give the VMM control", _exits),
        Query("controls", "configuration", "which control bits decide about an instruction", _controls),
        Query(
            "address-space",
            "address space",
            "does the VMM need a part of the guest's address space",
            _problem("address-space-compression"),
        ),
        Query(
            "interrupts",
            "interrupts",
            "which of the forms that mask and unmask interrupts exit under the best setting",
            _interrupts,
        ),
        Query(
            "ring-compression",
            "rings",
            "do the guest's kernel and its programs share one real level",
            _problem("ring-compression"),
        ),
        Query(
            "critical-before", "critical before", "critical when deprivileged without it", _critical_before
        ),
        Query("critical", "critical by the letter", "critical with the default settings", _critical),
        Query(
            "weakest-conditions",
            "ask something of the controls",
            "how many forms are not faithful and safe under every setting",
            _weakest,
        ),
        Query("best", "fewest exits", "the sound setting that exits least", _best),
        Query("open", "stays open", "what no setting makes faithful and safe", _open),
        Query(
            "theorem-1",
            "Theorem 1, as restored",
            "every form exits, or does to the guest's state what it should",
            _theorem_1,
        ),
    )
}
"""The questions by name, in the order of the table's rows."""


# -- the table ----------------------------------------------------------------------------------------------


@attrs.frozen
class Table:
    """The answers: for each query, one cell for each kind of assistance."""

    assistances: tuple[Compared, ...]
    rows: tuple[tuple[Query, tuple[Cell, ...]], ...]

    def to_json(self) -> dict[str, Any]:
        """`popek/hardware-assistance/1`."""
        return {
            "schema": "popek/hardware-assistance/1",
            "assistances": [
                {
                    "name": item.name,
                    "title": item.title,
                    "machine": item.machine.name,
                    "technique": item.name,
                    "source": item.desk.assistance.source,
                }
                for item in self.assistances
            ],
            "queries": [
                {
                    "name": query.name,
                    "title": query.title,
                    "statement": query.statement,
                    "answers": {
                        item.name: {"text": cell.text, "value": cell.value}
                        for item, cell in zip(self.assistances, cells, strict=True)
                    },
                }
                for query, cells in self.rows
            ],
        }


def find_queries(names: Sequence[str]) -> list[Query]:
    """Queries by name; all of them when none is named.

    Raises:
        UnknownNameError: with near matches.
    """
    for name in names:
        if name not in QUERIES:
            raise UnknownNameError("question", name, QUERIES)
    return [QUERIES[name] for name in dict.fromkeys(names)] or list(QUERIES.values())


def compare(
    assistances: Sequence[Compared],
    queries: Sequence[Query] = tuple(QUERIES.values()),
    *,
    found_as: Sequence[str] = (),
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    """Ask each question of each kind of assistance.

    Args:
        found_as: the names or files by which other processes find the assistances.
        jobs: processes; 0 for one per processor.
        progress: called with the number of answers that are there and of all.
    """
    if found_as:
        wanted = tuple(query.name for query in queries)
        columns = results(_columns, (wanted,), tuple(found_as), jobs=jobs)
    else:
        columns = (_column(item, queries, lambda: None) for item in assistances)
    cells: list[list[Cell]] = []
    for column in columns:
        cells.append(column)
        if progress is not None:
            progress(len(cells) * len(queries), len(queries) * len(assistances))
    rows = [(query, tuple(column[row] for column in cells)) for row, query in enumerate(queries)]
    return Table(tuple(assistances), tuple(rows))


def _column(item: Compared, queries: Sequence[Query], progress: Progress) -> list[Cell]:
    return [query.answer(item, progress) for query in queries]


def _columns(wanted: Sequence[str]) -> Callable[[str], list[Cell]]:
    queries = find_queries(wanted)
    return lambda name: _column(Compared(desk_of(assistance(name))), queries, lambda: None)
