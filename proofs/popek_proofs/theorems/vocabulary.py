"""The words of the paper, for an arbitrary machine.

A state is S = <E, M, P, R> (the paper's model of third generation machines).  Of it an instruction can
see and change only what it can name: e|r, the contents of storage inside the relocation bounds.  So a state
is observed here as

| symbol | in the paper |
|---|---|
| `user(S)` | M = u |
| `pc(S)` | P |
| `bound(S)` | of R = (l, b): how many locations can be reached, which is b or what storage there is above l |
| `base(S)` | of R = (l, b): l, and what b exceeds that number by |
| `window(S)` | e\\|r: what lies inside the bounds |
| `rest(S)` | the storage outside them |
| `psw(S)` | <M, P, R> in one |
| `old(S)`, `new(S)` | E[0], where a trap puts the PSW, and E[1], from where it takes the next |
| `kept(S)` | the storage other than E[0] |
| `execute(i, S)` | i(S): an instruction is a function from states to states |
| `traps(i, S)`, `storage_traps(i, S)` | it traps otherwise than on storage; it memory-traps |
| `bare(S)` | S is in C_r: no control program is resident |
| `f(S)` | the virtual machine map, from C_r to C_v |

All sorts but truth values are uninterpreted: nothing is assumed of word length, storage size or the number
of instructions.  Storage itself, with locations and arithmetic on them, is in `storage`; what the lemmas
here need of it is proved there.
"""

from __future__ import annotations

from popek.solving.formula import BOOL, Expr, Function, conj, constant, disj, equal, forall, implies, var

from .proposition import TheoremHypothesis

STATE, INSTRUCTION, PSW = "State", "Instruction", "Psw"

user = Function("user", (STATE,), BOOL)
pc = Function("pc", (STATE,), "Location")
base = Function("base", (STATE,), "Base")
bound = Function("bound", (STATE,), "Bound")
window = Function("window", (STATE,), "Window")
rest = Function("rest", (STATE,), "Rest")

psw = Function("psw", (STATE,), PSW)
old = Function("old", (STATE,), PSW)
new = Function("new", (STATE,), PSW)
kept = Function("kept", (STATE,), "Kept")
psw_user = Function("psw_user", (PSW,), BOOL)
dispatcher = constant("dispatcher", PSW)

execute = Function("execute", (INSTRUCTION, STATE), STATE)
traps = Function("traps", (INSTRUCTION, STATE), BOOL)
storage_traps = Function("storage_traps", (INSTRUCTION, STATE), BOOL)
fetch = Function("fetch", (STATE,), INSTRUCTION)

bare = Function("bare", (STATE,), BOOL)
f = Function("f", (STATE,), STATE)
relocated = Function("relocated", ("Base",), "Base")
supervisor_twin = Function("supervisor_twin", (STATE,), STATE)

S, T = var("S", STATE), var("T", STATE)
i = constant("i", INSTRUCTION)
I = var("I", INSTRUCTION)  # noqa: E741 - the paper's letter for an instruction


def completes(instruction: Expr, state: Expr) -> Expr:
    """It runs to its end: no trap of either kind."""
    return conj(~traps(instruction, state), ~storage_traps(instruction, state))


def stops(instruction: Expr, state: Expr) -> Expr:
    """It traps, on storage or otherwise."""
    return disj(traps(instruction, state), storage_traps(instruction, state))


def same(a: Expr, b: Expr, *observers: Function) -> Expr:
    """Two states agree in these respects."""
    return conj(*(equal(observe(a), observe(b)) for observe in observers))


def alike(a: Expr, b: Expr) -> Expr:
    """S1 = <e|r, m1, p, r> and S2 = <e|r⊕x, m2, p, r⊕x>: the same but for mode and place in storage."""
    return same(a, b, window, pc, bound)


def keeps_resources(before: Expr, after: Expr) -> Expr:
    """Neither M nor R changes."""
    return same(before, after, user, base, bound)


# -- the definitions of the paper, as hypotheses ---------------------------------------------------------


def control_innocent(instruction: Expr) -> Expr:
    """Not control sensitive: a run that completes changes neither M nor R."""
    after = execute(instruction, S)
    return forall([S], implies(completes(instruction, S), keeps_resources(S, after)))


def behaviour_innocent(instruction: Expr) -> Expr:
    """Not behaviour sensitive: neither the mode nor the place in storage shows in e|r and P.

    As in the paper's clauses (c) to (f), of runs that keep M and R.
    """
    return unshown(instruction)


def unshown(instruction: Expr, *assumed: Expr) -> Expr:
    """What the states S and T of two runs, alike as they must be, do not show in e|r and P; of `assumed` ones only."""
    after, other = execute(instruction, S), execute(instruction, T)
    runs = conj(
        *assumed,
        alike(S, T),
        completes(instruction, S),
        completes(instruction, T),
        keeps_resources(S, after),
        keeps_resources(T, other),
    )
    return forall([S, T], implies(runs, same(after, other, window, pc)))


def privileged(instruction: Expr) -> Expr:
    """For every pair <e, s, p, r>, <e, u, p, r> in which it does not memory-trap: it traps in u and not in
    s."""
    pair = conj(
        same(S, T, pc, base, bound, window, rest),
        ~user(S),
        user(T),
        ~storage_traps(instruction, S),
        ~storage_traps(instruction, T),
    )
    return forall([S, T], implies(pair, conj(traps(instruction, T), ~traps(instruction, S))))


NOT_CONTROL_SENSITIVE = TheoremHypothesis(
    "not-control-sensitive",
    "i is not control sensitive: where it completes, M and R stay",
    control_innocent(i),
)
NOT_BEHAVIOUR_SENSITIVE = TheoremHypothesis(
    "not-behaviour-sensitive",
    "i is not behaviour sensitive: states that differ only in M and in the place of e|r give the same e|r "
    "and P",
    behaviour_innocent(i),
)
PRIVILEGED = TheoremHypothesis(
    "privileged", "i is privileged: it traps in user mode and not in supervisor mode", privileged(i)
)

# -- what the paper takes for granted of the machine -----------------------------------------------------

STATES = TheoremHypothesis(
    "state-is-E-M-P-R",
    "a state is <E, M, P, R> and nothing else: no register that these do not show",
    forall([S, T], implies(same(S, T, user, pc, base, bound, window, rest), equal(S, T))),
)


def references_relocated(instruction: Expr) -> Expr:
    """Which references fall outside the bounds does not depend on M or on the place of e|r."""
    return forall(
        [S, T], implies(alike(S, T), equal(storage_traps(instruction, S), storage_traps(instruction, T)))
    )


REFERENCES_RELOCATED = TheoremHypothesis(
    "references-relocated",
    "every reference is relocated and checked, in both modes: of two states that look alike i memory-traps "
    "in both or in neither",
    references_relocated(i),
)


def traps_downward(instruction: Expr) -> Expr:
    """What traps anywhere traps in user mode."""
    return forall([S, T], implies(conj(alike(S, T), user(T), traps(instruction, S)), traps(instruction, T)))


TRAPS_IN_USER_TOO = TheoremHypothesis(
    "traps-in-user-mode-too",
    "i completes in user mode only where it completes in every state that looks alike (tacit in the paper, "
    "whose behaviour sensitivity compares only runs that do not trap)",
    traps_downward(i),
)
CONFINED = TheoremHypothesis(
    "confined-to-the-window",
    "storage is reached through R only: a run of i that completes leaves what is outside the bounds alone",
    forall([S], implies(completes(i, S), same(execute(i, S), S, rest))),
)
TRAP = TheoremHypothesis(
    "trap-exchanges-psw",
    "a trap of either kind puts the PSW into E[0], takes the next from E[1] and leaves other storage alone",
    forall(
        [S],
        implies(
            stops(i, S),
            conj(
                equal(old(execute(i, S)), psw(S)),
                equal(psw(execute(i, S)), new(S)),
                equal(kept(execute(i, S)), kept(S)),
            ),
        ),
    ),
)
TWIN = TheoremHypothesis(
    "modes-are-free",
    "each user state has a supervisor state that differs only in mode",
    forall(
        [S],
        implies(
            user(S),
            conj(~user(supervisor_twin(S)), same(supervisor_twin(S), S, pc, base, bound, window, rest)),
        ),
    ),
)
FETCHED_FROM_WINDOW = TheoremHypothesis(
    "fetched-through-R",
    "the next instruction is fetched through R: states that look alike fetch the same",
    forall([S, T], implies(alike(S, T), equal(fetch(S), fetch(T)))),
)

# -- what the virtual machine map is ---------------------------------------------------------------------

MAP_WINDOW = TheoremHypothesis(
    "map-keeps-the-window",
    "S and f(S) look alike: e'|r' = e|r, P' = P, and as many locations can be reached",
    forall([S], implies(bare(S), alike(S, f(S)))),
    by="theorem1.map-keeps-references",
)
MAP_USER = TheoremHypothesis(
    "map-runs-in-user-mode", "f(S) is in user mode", forall([S], implies(bare(S), user(f(S))))
)
MAP_BASE = TheoremHypothesis(
    "map-composes-relocation",
    "the base of f(S) is that of S, moved by the size of the control program",
    forall([S], implies(bare(S), equal(base(f(S)), relocated(base(S))))),
)
MAP_REST = TheoremHypothesis(
    "map-frames-the-rest",
    "what is outside the bounds of f(S) is decided by what is outside those of S and by the virtual M and R",
    forall(
        [S, T],
        implies(conj(bare(S), bare(T), same(S, T, user, base, bound, rest)), same(f(S), f(T), rest)),
    ),
    by="theorem1.map-frames-the-rest",
)
MAP_VECTOR = TheoremHypothesis(
    "map-owns-the-vector",
    "E'[1] of f(S) is the PSW <s, dispatcher, (0, q)>",
    forall([S], implies(bare(S), equal(new(f(S)), dispatcher))),
)
DISPATCHER = TheoremHypothesis(
    "dispatcher-is-supervisor", "the dispatcher's PSW has M = s", ~psw_user(dispatcher)
)
PSW_MODE = TheoremHypothesis(
    "psw-holds-the-mode", "M is part of the PSW", forall([S], equal(user(S), psw_user(psw(S))))
)
VECTOR_OUTSIDE = TheoremHypothesis(
    "vector-outside-the-window",
    "E[0] and E[1] are outside the bounds of every f(S): what leaves the rest alone leaves E[1] alone",
    forall(
        [S, T],
        implies(conj(bare(S), same(f(S), T, base, bound, rest)), equal(new(f(S)), new(T))),
    ),
    by="theorem1.control-program-out-of-reach",
)


def stays_bare(instruction: Expr) -> Expr:
    """No instruction brings a control program into a machine that has none."""
    return forall([S], implies(bare(S), bare(execute(instruction, S))))


BARE_STAYS = TheoremHypothesis(
    "bare-stays-bare", "C_r is closed: i takes a state without control program to such a state", stays_bare(i)
)
