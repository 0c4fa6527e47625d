"""Theorem 3: a hybrid virtual machine monitor can be built if every user-sensitive instruction is privileged.

Popek and Goldberg 1974, hybrid virtual machines.  A hybrid monitor interprets every instruction
that is executed in *virtual supervisor mode*; in virtual user mode the hardware runs the guest as before.  So
only runs in user mode matter: an instruction is user sensitive if it is control sensitive in some state with
M = u, or location sensitive for two states with M = u.  PDP-10 `JRST 1`, which enters user mode and is a
plain jump there, is sensitive and not user sensitive.

`user-commutes` is Theorem 1's `innocuous-commutes` for virtual user mode, with weaker hypotheses.
`regains-control` shows that the monitor notices when virtual supervisor mode begins: no run that completes on
the hardware ends in it.  `control-stays`, `step`, `sequences-base` and `sequences-step` are as in `theorem1`.
`weaker-than-theorem1` shows that the premise of Theorem 1 implies that of Theorem 3.
"""

from __future__ import annotations

from popek.solving.formula import BOOL, Expr, Function, conj, disj, equal, exists, forall, implies, ite

from .proposition import Proposition, TheoremHypothesis
from .small_machine import SmallScope
from .theorem1 import (
    ONE_INSTRUCTION,
    STAYS_OR_GOES_TO_THE_DISPATCHER,
    is_privileged,
    monitor,
    sequence_propositions,
)
from .vocabulary import (
    BARE_STAYS,
    CONFINED,
    FETCHED_FROM_WINDOW,
    INSTRUCTION,
    MAP_BASE,
    MAP_REST,
    MAP_USER,
    MAP_VECTOR,
    MAP_WINDOW,
    NOT_BEHAVIOUR_SENSITIVE,
    NOT_CONTROL_SENSITIVE,
    REFERENCES_RELOCATED,
    STATE,
    STATES,
    TRAP,
    TWIN,
    VECTOR_OUTSIDE,
    I,
    S,
    T,
    alike,
    bare,
    completes,
    execute,
    f,
    fetch,
    i,
    keeps_resources,
    privileged,
    stops,
    traps,
    unshown,
    user,
)

SOURCE = "Popek and Goldberg 1974, Theorem 3"


def user_control_innocent(instruction: Expr) -> Expr:
    """Not user-control sensitive: a run in user mode that completes changes neither M nor R."""
    after = execute(instruction, S)
    return forall([S], implies(conj(user(S), completes(instruction, S)), keeps_resources(S, after)))


def user_location_innocent(instruction: Expr) -> Expr:
    """Not user-location sensitive: in user mode the place in storage does not show in e|r and P."""
    return unshown(instruction, user(S), user(T))


NOT_USER_CONTROL_SENSITIVE = TheoremHypothesis(
    "not-user-control-sensitive",
    "i is not control sensitive in user mode: where it completes there, M and R stay",
    user_control_innocent(i),
)
NOT_USER_LOCATION_SENSITIVE = TheoremHypothesis(
    "not-user-location-sensitive",
    "i is not location sensitive in user mode: states of user mode that differ only in the place of e|r "
    "give the same e|r and P",
    user_location_innocent(i),
)
TRAPS_ANYWHERE = TheoremHypothesis(
    "user-traps-anywhere",
    "whether i traps in user mode does not depend on the place of e|r (tacit in the paper)",
    forall([S, T], implies(conj(alike(S, T), user(S), user(T), traps(i, S)), traps(i, T))),
)

USER_COMMUTES = Proposition(
    "theorem3.user-commutes",
    "where S is in user mode, an instruction that is not user sensitive and completes on f(S) completes on "
    "S, and i(f(S)) = f(i(S))",
    SOURCE,
    (
        NOT_USER_CONTROL_SENSITIVE,
        NOT_USER_LOCATION_SENSITIVE,
        REFERENCES_RELOCATED,
        TRAPS_ANYWHERE,
        CONFINED,
        STATES,
        MAP_WINDOW,
        MAP_USER,
        MAP_BASE,
        MAP_REST,
        BARE_STAYS,
    ),
    conclusion=forall(
        [S],
        implies(
            conj(bare(S), user(S), completes(i, f(S))),
            conj(completes(i, S), equal(execute(i, f(S)), f(execute(i, S)))),
        ),
    ),
    occasion=exists([S], conj(bare(S), user(S), completes(i, f(S)), ~equal(execute(i, S), S))),
    scope=ONE_INSTRUCTION,
)

REGAINS_CONTROL = Proposition(
    "theorem3.regains-control",
    "an instruction that completes on f(S) in virtual user mode leaves the virtual machine in user mode: "
    "where virtual supervisor mode begins, the monitor has control",
    SOURCE,
    (NOT_USER_CONTROL_SENSITIVE, REFERENCES_RELOCATED, TRAPS_ANYWHERE, MAP_WINDOW, MAP_USER),
    conclusion=forall([S], implies(conj(bare(S), user(S), completes(i, f(S))), user(execute(i, S)))),
    occasion=exists([S], conj(bare(S), user(S), completes(i, f(S)))),
    scope=ONE_INSTRUCTION,
)

CONTROL_STAYS = Proposition(
    "theorem3.control-stays",
    "after any instruction on f(S) either the dispatcher has control, or M, R, everything outside the "
    "bounds and the dispatcher's PSW in E[1] are as they were",
    SOURCE,
    (
        TheoremHypothesis(
            "user-control-sensitive-are-privileged",
            "i is privileged if it is control sensitive in user mode",
            disj(user_control_innocent(i), privileged(i)),
        ),
        TWIN,
        REFERENCES_RELOCATED,
        TRAP,
        CONFINED,
        MAP_USER,
        MAP_VECTOR,
        VECTOR_OUTSIDE,
    ),
    conclusion=STAYS_OR_GOES_TO_THE_DISPATCHER,
    occasion=exists([S], conj(bare(S), completes(i, f(S)))),
    scope=ONE_INSTRUCTION,
)

user_innocuous = Function("user_innocuous", (INSTRUCTION,), BOOL)
noted_user = Function("noted_user", (STATE,), BOOL)
interpreted = Function("interpreted", (STATE,), STATE)


def hybrid_step(state: Expr) -> Expr:
    """One step of the hybrid virtual machine: interpreted in virtual supervisor mode, else the hardware's."""
    instruction = fetch(state)
    on_hardware = execute(instruction, state)
    direct = ite(completes(instruction, state), on_hardware, monitor(on_hardware))
    return ite(noted_user(state), direct, interpreted(state))


STEP = Proposition(
    "theorem3.step",
    "one step of the hybrid virtual machine from f(S) leads to f of one step of the bare machine from S",
    SOURCE,
    (
        TheoremHypothesis(
            "user-sensitive-are-privileged",
            "every instruction is privileged or not user sensitive: the premise of Theorem 3",
            forall([I], disj(user_innocuous(I), is_privileged(I))),
        ),
        FETCHED_FROM_WINDOW,
        MAP_WINDOW,
        TheoremHypothesis(
            "virtual-mode-is-noted",
            "the monitor notes the virtual M",
            forall([S], implies(bare(S), equal(noted_user(f(S)), user(S)))),
        ),
        TheoremHypothesis(
            "supervisor-mode-is-interpreted",
            "in virtual supervisor mode every instruction is interpreted",
            forall([S], implies(conj(bare(S), ~user(S)), equal(interpreted(f(S)), f(execute(fetch(S), S))))),
        ),
        TheoremHypothesis(
            "user-innocuous-commute",
            "in virtual user mode instructions that are not user sensitive commute with f",
            forall(
                [I, S],
                implies(
                    conj(user_innocuous(I), bare(S), user(S), completes(I, f(S))),
                    equal(execute(I, f(S)), f(execute(I, S))),
                ),
            ),
            by="theorem3.user-commutes",
        ),
        TheoremHypothesis(
            "privileged-stop",
            "privileged instructions do not complete on f(S)",
            forall([I, S], implies(conj(is_privileged(I), bare(S)), stops(I, f(S)))),
            by="theorem1.privileged-reaches-dispatcher",
        ),
        TheoremHypothesis(
            "traps-are-interpreted",
            "after the fetched instruction has trapped on f(S) the monitor resumes the virtual machine in f(i(S))",
            forall(
                [S],
                implies(
                    conj(bare(S), stops(fetch(S), f(S))),
                    equal(monitor(execute(fetch(S), f(S))), f(execute(fetch(S), S))),
                ),
            ),
            by="theorem1.interpreter-restores-map",
        ),
    ),
    conclusion=forall([S], implies(bare(S), equal(hybrid_step(f(S)), f(execute(fetch(S), S))))),
    occasion=exists(
        [S, T],
        conj(bare(S), bare(T), user(S), ~user(T), completes(fetch(S), f(S)), completes(fetch(T), f(T))),
    ),
    scope=SmallScope({INSTRUCTION: 2}),
)

WEAKER = Proposition(
    "theorem3.weaker-than-theorem1",
    "an instruction that is not sensitive is not user sensitive: a machine that meets the premise of "
    "Theorem 1 meets that of Theorem 3",
    SOURCE,
    (NOT_CONTROL_SENSITIVE, NOT_BEHAVIOUR_SENSITIVE),
    conclusion=conj(user_control_innocent(i), user_location_innocent(i)),
    occasion=exists([S], conj(user(S), completes(i, S))),
    scope=ONE_INSTRUCTION,
)

SEQUENCES_BASE, SEQUENCES_STEP = sequence_propositions(
    "theorem3", SOURCE, Function("hybrid_step", (STATE,), STATE), Function("bare_step", (STATE,), STATE)
)

PROPOSITIONS = (
    WEAKER,
    USER_COMMUTES,
    REGAINS_CONTROL,
    CONTROL_STAYS,
    STEP,
    SEQUENCES_BASE,
    SEQUENCES_STEP,
)
