"""Which instructions tell by themselves: one step on f(S) against one step on S, for every S.

`red_pill` tries programs one by one.  Of programs with a single instruction a solver can say more: whether
*any* guest state, operands and place of the virtual machine make what the program sees differ.  Where it says
no, a red pill that needs the instruction has two instructions at least.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from popek.checks.classify import Classifier
from popek.checks.runs import conjunction, probe
from popek.checks.subject import Subject
from popek.checks.verdict import Question, Truth
from popek.kernel.instruction import Instruction
from popek.kernel.state import Role, State
from popek.kernel.technique import Technique
from popek.kernel.words import FALSE, Word, any_of
from popek.solving.solver import Answer

from .mapped import Mapped, mapped

S = TypeVar("S", bound=State)

VISIBLE = (Role.PC, Role.GENERAL)


def tells_at_once(subject: Subject[S]) -> Mapping[str, Truth]:
    """Per form: can one instruction, run directly, show the program that it is in a virtual machine?

    What a program sees is its storage, its registers and where it is.  What traps is interpreted and shows
    nothing.

    Raises:
        PathBudgetError: an instruction has too many paths.
    """
    classifier = Classifier(subject)
    return {form: _tells(classifier, one) for form, one in subject.machine.instructions.items()}


def _tells(classifier: Classifier[S], instruction: Instruction) -> Truth:
    general = classifier.subject.explore(instruction)
    runs = mapped(classifier, instruction, general)
    differ = [
        when & conjunction(also) & _shows(classifier.technique, runs, there, here)
        for when, there in runs.completions
        for also, here in runs.here.completions()
    ]
    shown = any_of([runs.completes_there & runs.traps_here, *differ])
    answer, _, _ = Question(f"{instruction.form} tells at once", [*runs.assumed, shown]).ask(
        classifier.subject.effort
    )
    if answer is Answer.SAT:
        return Truth.YES
    unsure = answer is Answer.UNKNOWN or general.not_modelled.value != 0
    return Truth.UNKNOWN if unsure else Truth.NO


def _shows(technique: Technique[S], runs: Mapped[S], there: S, here: S) -> Word:
    """What the program sees after the run on f(S) differs from what it sees after the run on S."""
    kept = {*technique.owned, *technique.shadowed, *technique.replaced}
    seen = [leaf.name for leaf in here.leaves if leaf.role in VISIBLE and leaf.name not in kept]
    differ = [there[name] != here[name] for name in seen]
    for slot in here.layout:
        if slot.address and slot.role is Role.MEMORY:
            content = here.memories()[slot.name]
            where = probe(content)
            real = technique.guest_address(runs.private, where)
            owns = technique.owns_address
            owned = FALSE if owns is None else owns(runs.guest, runs.private, real)
            differ.append(~owned & (there.memories()[slot.name].load(real) != content.load(where)))
    return any_of(differ)
