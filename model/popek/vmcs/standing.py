"""Which rules of a set can fail alone, which never do, and which others shadow them; of any structure of fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs

from popek.kernel.words import Word
from popek.solving.optimize import Choices
from popek.solving.solver import Answer, Effort, Model


@attrs.frozen
class Answers:
    """What a rule set can do on one processor.

    Attributes:
        processor: its name.
        modes: whether all checks can pass, by guest mode; modes that the processor lacks are left out.
        alone: checks that a structure violates while it passes all others; each was replayed on integers.
        never: checks that nothing violates on this processor.
        shadowed: checks that are never violated alone, and the fewest others that see to that.
        unknown: checks that were not settled.
        outside: checks of the instruction and of lists in memory, which are no matter of fields.
        structure: what the rules are about: VMCS or VMCB.
    """

    processor: str
    modes: Mapping[str, bool]
    alone: tuple[str, ...]
    never: tuple[str, ...]
    shadowed: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]
    outside: tuple[str, ...]
    structure: str = "VMCS"

    def to_json(self) -> dict[str, Any]:
        """The answers as `popek vmcs|vmcb rules --json` prints them."""
        return {
            "schema": f"popek/{self.structure.lower()}-rules/1",
            "processor": self.processor,
            "satisfiable": dict(self.modes),
            "alone": list(self.alone),
            "never_violated": list(self.never),
            "shadowed": {name: list(others) for name, others in self.shadowed.items()},
            "unknown": list(self.unknown),
            "not_about_fields": list(self.outside),
        }


@attrs.frozen
class Standing:
    """How the rules of a set stand to each other; see `Answers`."""

    alone: tuple[str, ...]
    never: tuple[str, ...]
    shadowed: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]


def standing(
    asked: Sequence[str],
    violated: Mapping[str, Word],
    holds: Mapping[str, Word],
    replay: Callable[[Model], Collection[str]],
    effort: Effort,
) -> Standing:
    """Ask of each rule whether it can be violated while all others hold.

    Args:
        asked: ids of the rules, in their order.
        violated: where each is violated; a rule that is not in it is not settled.
        holds: where each holds on every processor.
        replay: the ids of what a model violates, on integers.
        effort: bounds, for each rule.
    """
    conditions = {f"-{name}": word for name, word in violated.items()} | dict(holds)
    choices = Choices(conditions, effort)
    alone: list[str] = []
    never: list[str] = []
    unknown: list[str] = []
    shadowed: dict[str, tuple[str, ...]] = {}
    for name in asked:
        if name not in violated:
            unknown.append(name)
            continue
        question = [f"-{name}", *(other for other in asked if other != name and other in holds)]
        match choices.check(question):
            case Answer.SAT:
                (alone if set(replay(choices.model())) == {name} else unknown).append(name)
            case Answer.UNSAT:
                by = tuple(other for other in choices.core(question) or () if other != f"-{name}")
                if by:
                    shadowed[name] = by
                else:
                    never.append(name)
            case Answer.UNKNOWN:
                unknown.append(name)
    return Standing(tuple(alone), tuple(never), shadowed, tuple(unknown))


__all__ = ["Answers", "Standing", "standing"]
