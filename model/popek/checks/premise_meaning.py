"""What the symbols of premises are of one machine and technique, and of one instruction (see `premise_reading`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from popek.kernel.outcome import Next, Trap
from popek.kernel.state import Role, State
from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word, all_of, any_of, symbol
from popek.solving.formula import Expr, walk

from .frames import copied, unlike_the_image
from .obligation import unlike_notes, with_the_time_of
from .premise_reading import Holds, Values, WayToFail
from .premise_texts import PRIVATE, STATE
from .runs import PROBE, Run, differing, handed_over, probe

if TYPE_CHECKING:
    from popek.kernel.machine import Machine
    from popek.kernel.technique import Technique

    from .premises import Premises

S = TypeVar("S", bound=State)


@attrs.frozen(eq=False)
class Stopped(Generic[S]):
    """Where a run has stopped: T of `stops m S c T`."""

    before: S
    conditions: tuple[Term, ...]
    trap: Trap[S]


class OfMachine(Generic[S]):
    """Of a machine and a technique: S is a guest and P what the control program keeps; S' another guest.

    Args:
        premises: of which machine and technique.
    """

    def __init__(self, premises: Premises[S]) -> None:
        self.p = premises
        self._images: dict[tuple[S, S], S] = {}
        self.chosen: tuple[S, ...] = ()  # the states that a premise speaks of beside S and P

    @property
    def machine(self) -> Machine[S]:
        """Of which they are."""
        return self.p.machine

    @property
    def technique(self) -> Technique[S]:
        """Of which they are."""
        return self.p.technique

    @cached_property
    def at_another_time(self) -> S | None:
        """S with other clocks; None where it has none."""
        guest = self.p.guest
        fresh = {n: symbol(n + "'", guest[n].width) for n in self.p.clocks if not guest[n].concrete}
        return guest.with_changes(dict(fresh)) if fresh else None

    @cached_property
    def noted_the_same(self) -> S:
        """Another guest of which the control program notes the same."""
        return self.p.noted(self.p.guest, "'")

    @cached_property
    def inner(self) -> S:
        """What another control program keeps."""
        return self.p.another_private("inside")

    # -- variables --------------------------------------------------------------------------------

    def values(self, variables: tuple[Expr, ...], body: Expr) -> Values | None:
        """Of the variables that a premise speaks of all of."""
        related = {expr.name for expr in walk([body]) if expr.op == "apply"}
        by_clocks = "same" in related and not _noted_alike(body)
        chosen: dict[str, object] = {}
        for one in variables:
            if one.sort == PRIVATE:
                chosen[one.name] = self.p.private if one.name == "p" else self.inner
            elif one.sort == STATE and one.name == "S":
                chosen[one.name] = self.p.guest
            elif one.sort == STATE and one.name == "S'" and len(_sorts(variables, STATE)) > 1:
                chosen[one.name] = self.at_another_time if by_clocks else self.noted_the_same
        others = (value for name, value in chosen.items() if name not in ("S", "p"))
        self.chosen = tuple(value for value in others if value is not None)  # type: ignore[misc]
        return None if any(value is None for value in chosen.values()) else chosen

    def state(self, expr: Expr, values: Values) -> S:
        """What a term of sort state is."""
        if expr.op == "var":
            found: S = values[expr.name]
            return found
        assert expr.name == "image", expr
        guest, private = (values[arg.name] for arg in expr.args)
        if guest is self.p.guest and private is self.p.private:
            return self.p.image
        if (guest, private) not in self._images:
            self._images[guest, private] = self.technique.map(guest, private)
        return self._images[guest, private]

    # -- hypotheses -------------------------------------------------------------------------------

    def holds(self, atom: Expr, values: Values) -> Iterator[Holds]:
        """The ways in which a hypothesis holds."""
        if atom.op == "=":
            assert {arg.name for arg in atom.args} == {"note"}, atom  # S' was chosen so
            yield Holds()
            return
        first, second = atom.args
        if atom.name == "ok":
            guest, private = self.state(first, values), values[second.name]
            assumed = guest is self.p.guest and private is self.p.private  # of every question
            yield Holds(also=TRUE if assumed else all_of(self.p.ok(guest, private)))
        elif atom.name == "fits":
            image, private = self.state(first, values), values[second.name]
            parts = (self.machine.invariant(private), self.p.subject.holds(private))
            yield Holds(also=all_of([self.technique.private(image, private), *parts]))
        elif first.op == "var":  # S' was chosen so
            yield Holds()
        else:
            yield Holds(also=self.p.alike(self.state(first, values), self.state(second, values)))

    def ends(self, atom: Expr, values: Values) -> Iterator[Holds]:
        """No run is part of what is asked once."""
        raise NotImplementedError(atom)

    # -- conclusions ------------------------------------------------------------------------------

    def fails(self, atom: Expr, values: Values) -> Iterator[WayToFail]:
        """The ways in which a conclusion fails."""
        if atom.name == "ok":
            guest, private = self.state(atom.args[0], values), values[atom.args[1].name]
            if guest is not self.p.guest:
                how = "what it makes of a guest is no guest any more"
                yield WayToFail(how, (), ~all_of(self.p.ok(guest, private)))
        elif atom.name == "deprivileged":
            state = self.state(atom.args[0], values)
            there = self.p.subject.of_the_image.holds(self.machine, state) & self.machine.invariant(state)
            how = "the image of a guest is no state of the hardware, or a supervisor's"
            yield WayToFail(how, (), ~there | self.machine.supervisor(state))
        elif atom.name == "same":
            yield from self._not_the_same(*(self.state(arg, values) for arg in atom.args))
        else:
            left, right = atom.args
            if left.name == "owned":
                mine, theirs = (self.state(arg.args[1], values) for arg in atom.args)
                how = "what the control program owns depends on more of the guest than it notes"
                yield WayToFail(how, (), self.p.owned_apart(mine, theirs, values["S"], values["S'"]))
            elif left.name == "note":
                before, after = (self.state(arg.args[0], values) for arg in (right, left))
                of_two_guests = left.args[0].name in values  # and not of one before and after a run
                clocks = self.p.clocks if of_two_guests else ()
                changed = list(self._changed(before, after, clocks))
                yield WayToFail(
                    "completes on the hardware, and changes natively what the control program notes",
                    (),
                    any_of((*changed, *self._shadowed_cells(before, after))),
                    parts=lambda: [any_of(changed), *copied(self.technique, (before, after))],
                )
            else:
                guest, private = (values[arg.name] for arg in right.args)
                yield from self._elsewhere(self.state(left, values), guest, private)

    def _not_the_same(self, a: S, b: S) -> Iterator[WayToFail]:
        if b is self.noted_the_same:
            yield WayToFail("two guests of which the same is noted have one image", (), self.p.apart(a, b))
            return
        how = "does something else where a clock shows another time"
        for case in differing([((), (), a, b)], ignoring=self.p.clocks, time_is_state=True):
            yield WayToFail(how, (), any_of(case.unlike.values()))

    def _elsewhere(self, ended: S, guest: S, private: S) -> Iterator[WayToFail]:
        """The hardware is not in the image of the guest's state after the run."""
        if self.p.clocks:
            private = with_the_time_of(self.technique, private, guest)
        expected = self.technique.map(guest, private)
        guests = self.p.guest, guest
        time_is_state = self.p.subject.time_is_state
        how = (
            "completes on the hardware elsewhere than in the image of where the guest's own machine completes"
        )
        for case in differing(
            [((), (), ended, expected)],
            ignoring=frozenset(),
            time_is_state=time_is_state,
            began=(self.p.image, self.p.image),
        ):
            parts = partial(unlike_the_image, self.technique, private, guests, ended, case.unlike)
            yield WayToFail(how, (), any_of(case.unlike.values()), parts=parts)

    def _changed(self, before: S, after: S, aside: Collection[str]) -> Iterator[Word]:
        for name in self.technique.shadowed:
            if name in aside:
                continue
            if name in before.memories():
                old, new = before.memories()[name], after.memories()[name]
                if old is not new:
                    where = probe(old, f"{PROBE} in {name}")
                    yield old.load(where) != new.load(where)
            else:
                yield unlike_notes(self.technique, name, before, after)

    def _shadowed_cells(self, before: S, after: S) -> Iterator[Word]:
        shadows = self.technique.shadows_address
        for slot in before.layout if shadows is not None else ():
            if shadows is not None and slot.address and slot.role is Role.MEMORY:
                old, new = before.memories()[slot.name], after.memories()[slot.name]
                where = probe(old, f"{PROBE} in {slot.name}")
                kept = shadows(before, where)
                yield kept != shadows(after, where)
                if old is not new:
                    yield kept & (old.load(where) != new.load(where))


class OfForm(OfMachine[S]):
    """Of one instruction form, too.

    Args:
        general: every path of it.
        native, hardware: those from S and from f(S, P).
        completions: how the run on the hardware completes and does not go in at an entry.
        direct: of which guests A1 is asked (width 1).
    """

    def __init__(
        self,
        premises: Premises[S],
        general: Run[S],
        native: Run[S],
        hardware: Run[S],
        completions: Callable[[], Sequence[tuple[tuple[Term, ...], S]]],
        direct: Word = TRUE,
    ) -> None:
        super().__init__(premises)
        self._general, self._native, self._hardware = general, native, hardware
        self._completions, self._direct = completions, direct

    def _run(self, state: S) -> Run[S]:
        if state is self.p.image:
            return self._hardware
        return self._native if state is self.p.guest else self._another

    @cached_property
    def _another(self) -> Run[S]:
        assert self.at_another_time is not None
        return self._general.at(self.at_another_time)

    def holds(self, atom: Expr, values: Values) -> Iterator[Holds]:
        """The ways in which a hypothesis holds."""
        left = atom.args[0]
        if atom.name == "stops":
            run, (_, cause, ended) = self._run(self.state(left, values)), atom.args
            for path in run.paths:
                if isinstance(path.result, Trap):
                    stopped = Stopped(run.before, path.conditions, path.result)
                    yield Holds(path.conditions, values={cause.name: path.result, ended.name: stopped})
        elif left.name == "direct":
            yield Holds(also=self._direct)
        elif left.name == "perform":
            state, (ended,) = self.state(left.args[1], values), atom.args[1].args
            ends = self._completions() if state is self.p.image else self._run(state).completions()
            for conditions, after in ends:
                yield Holds(conditions, values={ended.name: after})
        else:
            yield from super().holds(atom, values)

    def ends(self, atom: Expr, values: Values) -> Iterator[Holds]:
        """How a run ends: in a state, or with a trap.

        Where the model does not say, A1s asks.
        """
        left, right = atom.args
        state, (ended,) = self.state(left.args[1], values), right.args
        run = self._run(state)
        for path in run.paths:
            if isinstance(path.result, Next):
                after = path.result.state
                over = handed_over(self.machine, self.technique, state, after, self.p.private)
                if state is self.p.image and over.value != 0:
                    yield Holds((*path.conditions, over.term), fails=_NEEDLESS)
                if state is not self.p.image or over.value != 1:
                    yield Holds(path.conditions, values={ended.name: after})
            elif isinstance(path.result, Trap):
                how = f"completes on the hardware where the guest's own machine raises {path.result.vector}"
                if state is not self.p.guest:
                    how = _NEEDLESS if state is self.p.image else "completes or not as a clock says"
                yield Holds(path.conditions, fails=how)

    def fails(self, atom: Expr, values: Values) -> Iterator[WayToFail]:
        """The ways in which a conclusion fails."""
        if atom.op == "not":  # said i X <> None
            run = self._run(self.state(atom.args[0].args[0].args[1], values))
            yield WayToFail(
                "the model does not say what it does on the hardware", (), run.not_modelled, silent=True
            )
        elif atom.name == "ok" and atom.args[0].name == "deliver":
            stopped: Stopped[S] = values[atom.args[0].args[1].name]
            vector = stopped.trap.vector
            how = f"what {vector} makes of a guest is no guest any more"
            for conditions, after in self.p.delivered(stopped.before, stopped.conditions, stopped.trap):
                if after is None:
                    untold = f"the delivery of {vector} is not modelled"
                    yield WayToFail(untold, conditions, TRUE, silent=True)
                else:
                    yield WayToFail(how, conditions, ~all_of(self.p.ok(after, self.p.private)))
        elif atom.name == "same" and atom.args[0].name == "deliver":
            first, second = (values[arg.args[1].name] for arg in atom.args)
            theirs = self.p.delivered(second.before, second.conditions, second.trap)
            for conditions, a in self.p.delivered(first.before, first.conditions, first.trap):
                for others, b in theirs:
                    if a is not None and b is not None:  # A3 asks where the model does not say
                        for way in self._not_the_same(a, b):
                            yield attrs.evolve(way, given=(*conditions, *others))
        else:
            yield from super().fails(atom, values)


_NEEDLESS = "completes natively and traps on the hardware"


def _sorts(variables: tuple[Expr, ...], sort: str) -> list[Expr]:
    return [one for one in variables if one.sort == sort]


def _noted_alike(body: Expr) -> bool:
    """Whether it is a hypothesis that the same is noted of two guests."""
    while body.op == "=>":
        hypothesis, body = body.args
        if hypothesis.op == "=" and {arg.name for arg in hypothesis.args} == {"note"}:
            return True
    return False


__all__ = ["OfForm", "OfMachine", "Stopped"]
