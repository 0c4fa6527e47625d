"""Theorem 1: a virtual machine monitor can be built if every sensitive instruction is privileged.

Popek and Goldberg 1974, the virtual machine monitor, the virtual machine map and Theorem 1 with its three
lemmas, for any machine; see `vocabulary` for the symbols and `storage` for locations and bounds.

The three properties of a virtual machine monitor and where they are shown:

* equivalence: `innocuous-commutes` (the paper's Lemma 1), `privileged-reaches-dispatcher`,
  `entry-tells-the-guest` and `interpreter-restores-map` (Lemma 2), `step`, and for instruction sequences
  `sequences-base` and `sequences-step` (Lemma 3);
* resource control: `control-stays` and `control-program-invisible`, with `control-program-out-of-reach` and
  `allocator-keeps-apart` of `storage`;
* efficiency: `innocuous-direct`.

**Sequences.**  Let P(n) say that after n instructions the virtual machine is in f(s_n), where s_n is the
state of the bare machine after n.  `sequences-base` is P(0); `sequences-step` is "P(n) implies P(n + 1)"
for an arbitrary n.  By induction on the natural numbers P(n) holds for every n.  The induction principle is
the only part that is not itself a query.

**The paper's two exceptions** to equivalence.  Timing: the control program takes time, and a step of the
virtual machine is however many the hardware needs; no symbol here speaks of time (`theorem2` has to).
Resources: the virtual machine has w < q locations; it is compared with a bare machine of w, see
`smaller-machine` and `machine-is-smaller` in `storage`.

**Tacit hypotheses.**  Two hypotheses are not in the paper's statement.  `traps-in-user-mode-too`: an
instruction that traps in supervisor mode and completes in user mode is neither sensitive nor privileged by
the letter, since the definitions compare only runs that do not trap; yet trap and
emulate cannot virtualize it.  `references-relocated`: the definitions leave memory traps aside, so a machine
whose user mode checks other bounds passes them.  The machine model of the paper rules both out without saying
so; the tables show what happens where it does not.
"""

from __future__ import annotations

from popek.solving.formula import BOOL, Expr, Function, conj, disj, equal, exists, forall, implies, ite, var

from .proposition import Proposition, TheoremHypothesis
from .small_machine import SmallScope
from .vocabulary import (
    BARE_STAYS,
    CONFINED,
    DISPATCHER,
    FETCHED_FROM_WINDOW,
    INSTRUCTION,
    MAP_BASE,
    MAP_REST,
    MAP_USER,
    MAP_VECTOR,
    MAP_WINDOW,
    NOT_BEHAVIOUR_SENSITIVE,
    NOT_CONTROL_SENSITIVE,
    PRIVILEGED,
    PSW_MODE,
    REFERENCES_RELOCATED,
    STATE,
    STATES,
    TRAP,
    TRAPS_IN_USER_TOO,
    TWIN,
    VECTOR_OUTSIDE,
    I,
    S,
    T,
    alike,
    bare,
    base,
    bound,
    completes,
    control_innocent,
    dispatcher,
    execute,
    f,
    fetch,
    i,
    kept,
    new,
    old,
    pc,
    privileged,
    psw,
    rest,
    same,
    stops,
    storage_traps,
    traps,
    user,
    window,
)

SOURCE = "Popek and Goldberg 1974, Theorem 1"
ONE_INSTRUCTION = SmallScope({INSTRUCTION: 1})

# A step of the virtual machine: the hardware's, and where that traps, all the control program does.
monitor = Function("monitor", (STATE,), STATE)


def virtual_step(state: Expr) -> Expr:
    """From one state of the virtual machine to the next."""
    instruction = fetch(state)
    run = execute(instruction, state)
    return ite(completes(instruction, state), run, monitor(run))


INNOCUOUS_COMMUTES = Proposition(
    "theorem1.innocuous-commutes",
    "an innocuous instruction that completes on f(S) completes on S, and i(f(S)) = f(i(S))",
    "Popek and Goldberg 1974, Lemma 1",
    (
        NOT_CONTROL_SENSITIVE,
        NOT_BEHAVIOUR_SENSITIVE,
        REFERENCES_RELOCATED,
        TRAPS_IN_USER_TOO,
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
            conj(bare(S), completes(i, f(S))),
            conj(completes(i, S), equal(execute(i, f(S)), f(execute(i, S)))),
        ),
    ),
    occasion=exists([S], conj(bare(S), completes(i, f(S)), ~user(S), ~equal(execute(i, S), S))),
    scope=ONE_INSTRUCTION,
)

REACHES_DISPATCHER = Proposition(
    "theorem1.privileged-reaches-dispatcher",
    "a privileged instruction on f(S) gives control to the dispatcher in supervisor mode, with the PSW of "
    "f(S) in E[0] and all other storage as it was",
    "Popek and Goldberg 1974, Lemma 2",
    (PRIVILEGED, TWIN, REFERENCES_RELOCATED, TRAP, MAP_USER, MAP_VECTOR, PSW_MODE, DISPATCHER),
    conclusion=forall(
        [S],
        implies(
            bare(S),
            conj(
                stops(i, f(S)),
                equal(psw(execute(i, f(S))), dispatcher),
                ~user(execute(i, f(S))),
                equal(old(execute(i, f(S))), psw(f(S))),
                equal(kept(execute(i, f(S))), kept(f(S))),
            ),
        ),
    ),
    occasion=exists([S], conj(bare(S), ~storage_traps(i, f(S)))),
    scope=ONE_INSTRUCTION,
)

ENTRY_TELLS = Proposition(
    "theorem1.entry-tells-the-guest",
    "the state in which the dispatcher is entered tells which guest state was interrupted, so that an "
    "interpreter routine for i exists: it may be a table",
    "Popek and Goldberg 1974, Lemma 2",
    (
        TRAP,
        TheoremHypothesis(
            "map-is-one-to-one",
            "guest states are told apart by the PSW of f(S) and its storage other than E[0]",
            forall([S, T], implies(conj(bare(S), bare(T), same(f(S), f(T), psw, kept)), equal(S, T))),
            by="theorem1.map-is-one-to-one",
        ),
    ),
    conclusion=forall(
        [S, T],
        implies(
            conj(bare(S), bare(T), stops(i, f(S)), stops(i, f(T)), equal(execute(i, f(S)), execute(i, f(T)))),
            equal(S, T),
        ),
    ),
    occasion=exists([S, T], conj(bare(S), bare(T), stops(i, f(S)), stops(i, f(T)), ~equal(S, T))),
    scope=ONE_INSTRUCTION,
)

recovered = Function("recovered", (STATE,), STATE)
routine = Function("routine", (STATE,), STATE)
resumed = Function("resumed", (STATE,), STATE)

INTERPRETER_RESTORES = Proposition(
    "theorem1.interpreter-restores-map",
    "after a trap on f(S) the control program resumes the virtual machine in f(i(S))",
    "Popek and Goldberg 1974, Lemma 2",
    (
        TheoremHypothesis(
            "recovers-the-guest",
            "from the state it is entered in, the control program finds the guest state",
            forall([S], implies(conj(bare(S), stops(i, f(S))), equal(recovered(execute(i, f(S))), S))),
            by="theorem1.entry-tells-the-guest",
        ),
        TheoremHypothesis(
            "routine-is-right",
            "the interpreter routine of i computes i(S), a trap of the guest included",
            forall([S], implies(bare(S), equal(routine(S), execute(i, S)))),
        ),
        TheoremHypothesis(
            "resumes-by-the-map",
            "the allocator and the dispatcher load f of what the routine computed",
            forall([S], implies(bare(S), equal(resumed(S), f(S)))),
        ),
        BARE_STAYS,
    ),
    conclusion=forall(
        [S],
        implies(
            conj(bare(S), stops(i, f(S))),
            equal(resumed(routine(recovered(execute(i, f(S))))), f(execute(i, S))),
        ),
    ),
    occasion=exists([S], conj(bare(S), stops(i, f(S)), ~equal(execute(i, S), S))),
    scope=ONE_INSTRUCTION,
)

STAYS_OR_GOES_TO_THE_DISPATCHER = forall(
    [S],
    implies(
        bare(S),
        disj(
            conj(equal(psw(execute(i, f(S))), dispatcher), equal(kept(execute(i, f(S))), kept(f(S)))),
            conj(
                user(execute(i, f(S))),
                same(execute(i, f(S)), f(S), base, bound, rest),
                equal(new(execute(i, f(S))), dispatcher),
            ),
        ),
    ),
)
"""A run on f(S) goes to the dispatcher and leaves storage alone, or stays within what the guest was given."""

CONTROL_STAYS = Proposition(
    "theorem1.control-stays",
    "after any instruction on f(S) either the dispatcher has control, or M, R, everything outside the "
    "bounds and the dispatcher's PSW in E[1] are as they were",
    "Popek and Goldberg 1974, resource control",
    (
        TheoremHypothesis(
            "control-sensitive-are-privileged",
            "i is privileged if it is control sensitive",
            disj(control_innocent(i), privileged(i)),
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

INVISIBLE = Proposition(
    "theorem1.control-program-invisible",
    "what an innocuous instruction does in user mode to e|r and P, and whether it traps, does not depend on "
    "anything outside e|r: neither on the control program nor on another virtual machine",
    "Popek and Goldberg 1974, resource control",
    (NOT_CONTROL_SENSITIVE, NOT_BEHAVIOUR_SENSITIVE, REFERENCES_RELOCATED, TRAPS_IN_USER_TOO),
    conclusion=forall(
        [S, T],
        implies(
            conj(alike(S, T), user(S), user(T), completes(i, S)),
            conj(completes(i, T), same(execute(i, S), execute(i, T), window, pc)),
        ),
    ),
    occasion=exists([S, T], conj(alike(S, T), user(S), user(T), completes(i, S), ~equal(rest(S), rest(T)))),
    scope=ONE_INSTRUCTION,
)

INNOCUOUS_DIRECT = Proposition(
    "theorem1.innocuous-direct",
    "an innocuous instruction that completes on S completes on f(S): the hardware runs it, the control "
    "program does not",
    "Popek and Goldberg 1974, efficiency",
    (
        TheoremHypothesis(
            "no-needless-traps",
            "i traps only where it traps in every state that looks alike; a privileged innocuous "
            "instruction would not",
            forall([S, T], implies(conj(alike(S, T), traps(i, T)), traps(i, S))),
        ),
        REFERENCES_RELOCATED,
        MAP_WINDOW,
    ),
    conclusion=forall([S], implies(conj(bare(S), completes(i, S)), completes(i, f(S)))),
    occasion=exists([S], conj(bare(S), completes(i, S))),
    scope=ONE_INSTRUCTION,
)

innocuous = Function("innocuous", (INSTRUCTION,), BOOL)
is_privileged = Function("is_privileged", (INSTRUCTION,), BOOL)

STEP = Proposition(
    "theorem1.step",
    "one step of the virtual machine from f(S) leads to f of one step of the bare machine from S",
    SOURCE,
    (
        TheoremHypothesis(
            "sensitive-are-privileged",
            "every instruction is innocuous or privileged: the premise of Theorem 1",
            forall([I], disj(innocuous(I), is_privileged(I))),
        ),
        FETCHED_FROM_WINDOW,
        MAP_WINDOW,
        TheoremHypothesis(
            "innocuous-commute",
            "innocuous instructions commute with f",
            forall(
                [I, S],
                implies(
                    conj(innocuous(I), bare(S), completes(I, f(S))),
                    equal(execute(I, f(S)), f(execute(I, S))),
                ),
            ),
            by="theorem1.innocuous-commutes",
        ),
        TheoremHypothesis(
            "privileged-stop",
            "privileged instructions do not complete on f(S)",
            forall([I, S], implies(conj(is_privileged(I), bare(S)), stops(I, f(S)))),
            by="theorem1.privileged-reaches-dispatcher",
        ),
        TheoremHypothesis(
            "traps-are-interpreted",
            "after the fetched instruction has trapped on f(S) the control program resumes the virtual machine "
            "in f(i(S)): it interprets that one, since one routine for all would give them all one effect",
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
    conclusion=forall([S], implies(bare(S), equal(virtual_step(f(S)), f(execute(fetch(S), S))))),
    occasion=exists(
        [S, T],
        conj(bare(S), bare(T), completes(fetch(S), f(S)), stops(fetch(T), f(T)), is_privileged(fetch(T))),
    ),
    scope=SmallScope({INSTRUCTION: 2}),
)

TIME = "Count"
zero = Function("zero", (), TIME)
successor = Function("successor", (TIME,), TIME)
bare_run = Function("bare_run", (TIME,), STATE)
virtual_run = Function("virtual_run", (TIME,), STATE)
n, N = Function("n", (), TIME)(), var("N", TIME)


def sequence_propositions(
    theorem: str, source: str, virtual: Function, step: Function
) -> tuple[Proposition, Proposition]:
    """P(0) and "P(n) implies P(n + 1)", where P(n) is: the virtual machine is in f of the bare machine's
    state."""

    def invariant(count: Expr) -> Expr:
        return conj(bare(bare_run(count)), equal(virtual_run(count), f(bare_run(count))))

    started = TheoremHypothesis(
        "starts-in-the-image",
        "the bare machine starts without control program, the virtual machine in f of its state",
        conj(bare(bare_run(zero())), equal(virtual_run(zero()), f(bare_run(zero())))),
    )
    base_case = Proposition(
        f"{theorem}.sequences-base",
        "P(0): before the first instruction the virtual machine is in f of the bare machine's state",
        source,
        (started,),
        conclusion=invariant(zero()),
        occasion=bare(bare_run(zero())),
    )
    step_case = Proposition(
        f"{theorem}.sequences-step",
        "P(n) implies P(n + 1): after one more instruction the virtual machine is in f of the bare "
        "machine's state",
        source,
        (
            TheoremHypothesis("induction-hypothesis", "P(n)", invariant(n)),
            TheoremHypothesis(
                "bare-runs",
                "the bare machine's next state is its step's",
                forall([N], equal(bare_run(successor(N)), step(bare_run(N)))),
            ),
            TheoremHypothesis(
                "virtual-runs",
                "the virtual machine's next state is its step's",
                forall([N], equal(virtual_run(successor(N)), virtual(virtual_run(N)))),
            ),
            TheoremHypothesis(
                "steps-correspond",
                "a step from f(S) leads to f of the bare step from S",
                forall([S], implies(bare(S), equal(virtual(f(S)), f(step(S))))),
                by=f"{theorem}.step",
            ),
            TheoremHypothesis(
                "bare-stays-bare",
                "no step brings a control program into a machine that has none",
                forall([S], implies(bare(S), bare(step(S)))),
            ),
        ),
        conclusion=invariant(successor(n)),
        occasion=~equal(bare_run(successor(n)), bare_run(n)),
    )
    return base_case, step_case


SEQUENCES_BASE, SEQUENCES_STEP = sequence_propositions(
    "theorem1",
    "Popek and Goldberg 1974, Lemma 3",
    Function("virtual_step", (STATE,), STATE),
    Function("bare_step", (STATE,), STATE),
)

PROPOSITIONS = (
    INNOCUOUS_COMMUTES,
    REACHES_DISPATCHER,
    ENTRY_TELLS,
    INTERPRETER_RESTORES,
    CONTROL_STAYS,
    INVISIBLE,
    INNOCUOUS_DIRECT,
    STEP,
    SEQUENCES_BASE,
    SEQUENCES_STEP,
)
