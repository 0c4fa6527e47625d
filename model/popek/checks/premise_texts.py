"""The premises of the theorems, written once, as formulas in the words of Coq's development.

Each has two readings.  `coq` gives the hypothesis, letter for letter as Coq prints it.  `premise_reading` gives what
must be impossible of a machine's words, and that is what is asked.  Sorts are Coq's types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from popek.solving.formula import (
    BOOL,
    Expr,
    Function,
    conj,
    constant,
    disj,
    equal,
    exists,
    forall,
    implies,
    var,
    walk,
)

STATE, PRIVATE, NOTES = "state m", "private v", "notes v"
INSTRUCTION, CAUSE, OUTCOME = "instruction m", "cause m", "outcome (state m) (cause m)"
SAID, FETCHED, OWNED, VECTOR = "option outcome", "cause m + instruction m", "owned_part v", "vector_part v"
RELATION = "state m -> state m -> Prop"

# Of the machine, of the technique; constructors; what a premise is given.
perform = Function("perform", (INSTRUCTION, STATE), OUTCOME)
stops = Function("stops", (STATE, CAUSE, STATE), BOOL)
deliver = Function("deliver", (CAUSE, STATE), STATE)
step = Function("step", (STATE,), STATE)
fetch = Function("fetch", (STATE,), FETCHED)
ok = Function("ok", (STATE, PRIVATE), BOOL)
image = Function("image", (STATE, PRIVATE), STATE)
note = Function("note", (STATE,), NOTES)
deprivileged = Function("deprivileged", (STATE,), BOOL)
owned = Function("owned", (PRIVATE, STATE), OWNED)
vector = Function("vector", (STATE,), VECTOR)
entry_of = Function("entry_of", (PRIVATE,), VECTOR)
enter = Function("enter", (CAUSE, STATE), STATE)
completed = Function("Next", (STATE,), OUTCOME)
some = Function("Some", (OUTCOME,), SAID)
fetched = Function("inr", (INSTRUCTION,), FETCHED)
said = Function("said", (INSTRUCTION, STATE), SAID)
direct = Function("direct", (NOTES,), BOOL)
same = Function("same", (STATE, STATE), BOOL)
fits = Function("fits", (STATE, PRIVATE), BOOL)
enter_irq = Function("enter_irq", (STATE,), STATE)
takes = Function("takes", (STATE,), BOOL)
interrupt = Function("interrupt", (STATE,), STATE)

_OF_MACHINE: Final = frozenset({"perform", "stops", "deliver", "step", "fetch"})
_OF_TECHNIQUE: Final = frozenset(
    {"ok", "image", "note", "deprivileged", "owned", "vector", "entry_of", "enter", "virtual_user"}
)
_TRUE: Final = constant("true", BOOL)
_FALSE: Final = constant("false", BOOL)

_S, _S1, _T, _T1 = (var(name, STATE) for name in ("S", "S'", "T", "T'"))
_p, _q = var("p", PRIVATE), var("q", PRIVATE)
_i, _c, _c1 = var("i", INSTRUCTION), var("c", CAUSE), var("c'", CAUSE)
_f, _f1 = image(_S, _p), image(_S1, _p)  # f(S, P), f(S', P)


@attrs.frozen
class Text:
    """One premise.

    Attributes:
        name: Coq's.
        given: what it is given beside machine and technique, with types.
        formula: what it says; or
        of, by: the premise that it is a case of, and what that is given, in Coq's words.
    """

    name: str
    formula: Expr | None = None
    given: tuple[tuple[str, str], ...] = ()
    of: str = ""
    by: str = ""

    @property
    def symbols(self) -> frozenset[str]:
        """The functions that it speaks of."""
        formula = TEXTS[self.of].formula if self.formula is None else self.formula
        assert formula is not None
        return frozenset(expr.name for expr in walk([formula]) if expr.op == "apply")


def _all(variables: Sequence[Expr], *parts: Expr) -> Expr:
    """For all of them, if all parts but the last hold, so does the last."""
    *hypotheses, last = parts
    for hypothesis in reversed(hypotheses):
        last = implies(hypothesis, last)
    return forall(variables, last)


def _is_next(instruction: Expr, before: Expr, after: Expr) -> Expr:
    return equal(perform(instruction, before), completed(after))


_DIRECT = equal(direct(note(_S)), _TRUE)
_ALIKE = equal(note(_S), note(_S1))
_SPEAKS = ("said", "instruction m -> state m -> option (outcome (state m) (cause m))")
_CLOCKS = (("same", RELATION),)

_LIST: Final = (
    Text(
        "fidelity",
        _all(
            (_i, _S, _p, _T),
            *(ok(_S, _p), _DIRECT, _is_next(_i, _f, _T)),
            exists([_S1], conj(_is_next(_i, _S, _S1), equal(_T, image(_S1, _p)), equal(note(_S1), note(_S)))),
        ),
        (("direct", "notes v -> bool"),),
    ),
    Text("A0_image", _all((_S, _p), ok(_S, _p), deprivileged(_f))),
    Text("A1_fidelity", of="fidelity", by="(fun _ : notes v => true)"),
    Text(
        "A1s_model_speaks",
        _all((_i, _S, _p), ok(_S, _p), ~equal(said(_i, _f), constant("None", SAID))),
        (_SPEAKS,),
    ),
    Text(
        "A2_fetch",
        _all((_S, _p, _i), ok(_S, _p), equal(fetch(_f), fetched(_i)), equal(fetch(_S), fetched(_i))),
    ),
    Text("A3_closure_next", _all((_i, _S, _p, _T), ok(_S, _p), _is_next(_i, _S, _T), ok(_T, _p))),
    Text("A3_closure_trap", _all((_S, _p, _c, _T), ok(_S, _p), stops(_S, _c, _T), ok(deliver(_c, _T), _p))),
    Text(
        "A4_entry_tells_apart",
        _all(
            (_S, _S1, _p, _c, _T, _T1),
            *(ok(_S, _p), ok(_S1, _p), _ALIKE, stops(_f, _c, _T), stops(_f1, _c, _T1)),
            *(equal(enter(_c, _T), enter(_c, _T1)), equal(step(_S), step(_S1))),
        ),
    ),
    Text(
        "A4_image_tells",
        _all((_S, _S1, _p), ok(_S, _p), ok(_S1, _p), _ALIKE, same(_f, _f1), same(_S, _S1)),
        _CLOCKS,
    ),
    Text(
        "A4_stop_tells",
        _all(
            (_S, _S1, _p, _c, _T, _T1),
            *(ok(_S, _p), ok(_S1, _p), _ALIKE, stops(_f, _c, _T), stops(_f1, _c, _T1)),
            *(equal(enter(_c, _T), enter(_c, _T1)), disj(equal(_f, _f1), equal(step(_S), step(_S1)))),
        ),
    ),
    Text(
        "A5_control",
        _all((_S, _S1, _p), ok(_S, _p), ok(_S1, _p), _ALIKE, equal(owned(_p, _f), owned(_p, _f1))),
    ),
    Text("A5_vector", _all((_S, _p), ok(_S, _p), equal(vector(_f), entry_of(_p)))),
    Text(
        "A6_interrupt_tells_apart",
        _all(
            (_S, _S1, _p),
            *(ok(_S, _p), ok(_S1, _p), _ALIKE, equal(enter_irq(_f), enter_irq(_f1)), equal(_f, _f1)),
        ),
        (("enter_irq", "state m -> state m"),),
    ),
    Text(
        "A6_interrupt_noticed",
        _all(
            (_i, _S, _p, _T, _S1),
            *(ok(_S, _p), equal(takes(_S), _FALSE), _is_next(_i, _f, _T), _is_next(_i, _S, _S1)),
            equal(takes(_S1), _FALSE),
        ),
        (("takes", "state m -> bool"),),
    ),
    Text(
        "A6_interrupt_closure",
        _all((_S, _p), ok(_S, _p), ok(interrupt(_S), _p)),
        (("interrupt", "state m -> state m"),),
    ),
    Text(
        "A7_nesting",
        _all((_S, _p, _q), ok(_S, _p), fits(_f, _q), ok(_f, _q)),
        (("fits", "state m -> private v -> Prop"),),
    ),
    Text(
        "A8_efficiency",
        _all((_S, _p, _S1), ok(_S, _p), _is_next(_i, _S, _S1), exists([_T], _is_next(_i, _f, _T))),
        (("i", INSTRUCTION),),
    ),
    Text(
        "A9_no_clock",
        _all(
            (_i, _S, _S1, _p, _T),
            *(ok(_S, _p), same(_S, _S1), _is_next(_i, _S, _T)),
            exists([_T1], conj(_is_next(_i, _S1, _T1), same(_T, _T1))),
        ),
        _CLOCKS,
    ),
    Text(
        "A9_no_clock_trap",
        _all(
            (_S, _S1, _p, _c, _c1, _T, _T1),
            *(ok(_S, _p), same(_S, _S1), stops(_S, _c, _T), stops(_S1, _c1, _T1)),
            same(deliver(_c, _T), deliver(_c1, _T1)),
        ),
        _CLOCKS,
    ),
    Text("A9_guests", _all((_S, _S1, _p), ok(_S, _p), same(_S, _S1), ok(_S1, _p)), _CLOCKS),
    Text(
        "A9_map",
        _all((_S, _S1, _p), ok(_S, _p), same(_S, _S1), conj(same(_f, _f1), _ALIKE)),
        _CLOCKS,
    ),
    Text(
        "A9_fetch",
        _all(
            (_S, _S1, _p, _i),
            *(ok(_S, _p), same(_S, _S1), equal(fetch(_S), fetched(_i)), equal(fetch(_S1), fetched(_i))),
        ),
        _CLOCKS,
    ),
    Text("A10_hybrid", of="fidelity", by="(virtual_user v)"),
)
TEXTS: Final[Mapping[str, Text]] = {one.name: one for one in _LIST}

# What popek gives no meaning over a machine's words: operands come with an instruction, and nothing is fetched.
WITHOUT_MEANING: Final = frozenset({"fetch"})
# What it asks of each entry in words of its own: where an entry is and what the hardware does there differs by machine.
IN_OWN_WORDS: Final = frozenset({"enter", "vector", "entry_of", "step", "enter_irq", "takes", "interrupt"})


def granted(name: str) -> bool:
    """Whether a premise is taken for granted: it speaks of what has no meaning over words."""
    return bool(TEXTS[name].symbols & WITHOUT_MEANING)


def is_read(name: str) -> bool:
    """Whether what is asked is this text, read over words; otherwise it is asked in words of its own."""
    return not TEXTS[name].symbols & (WITHOUT_MEANING | IN_OWN_WORDS)


# -- as Coq prints it ------------------------------------------------------------------------------


def coq(name: str) -> str:
    """A premise as Coq prints its definition, on one line."""
    one = TEXTS[name]
    given = [("m", "Machine.machine"), ("v", "technique m"), *one.given]
    binders = " ".join(f"({variable} : {sort})" for variable, sort in given)
    body = f"{one.of} m v {one.by}" if one.formula is None else _coq(one.formula)
    return f"{name} = fun {binders} => {body}"


def _coq(expr: Expr) -> str:
    op, args = expr.op, expr.args
    if op == "var":
        return expr.name
    if op == "apply":
        owner = ["m"] if expr.name in _OF_MACHINE else ["v"] if expr.name in _OF_TECHNIQUE else []
        return " ".join([expr.name, *owner, *map(_argument, args)])
    if op in ("forall", "exists"):
        *variables, body = args
        return f"{op} {_binders(variables)}, {_coq(body)}"
    if op == "not":
        (equality,) = args
        assert equality.op == "="
        return " <> ".join(map(_coq, equality.args))
    sign = {"=": " = ", "=>": " -> ", "and": " /\\ ", "or": " \\/ "}[op]
    return sign.join(map(_coq, args))


def _argument(expr: Expr) -> str:
    return f"({_coq(expr)})" if expr.args else _coq(expr)


def _binders(variables: Sequence[Expr]) -> str:
    groups: list[tuple[list[str], str]] = []
    for one in variables:
        if groups and groups[-1][1] == one.sort:
            groups[-1][0].append(one.name)
        else:
            groups.append(([one.name], one.sort))
    told = [f"{' '.join(names)} : {sort}" for names, sort in groups]
    return told[0] if len(told) == 1 else " ".join(f"({one})" for one in told)


__all__ = ["IN_OWN_WORDS", "TEXTS", "WITHOUT_MEANING", "Text", "coq", "granted", "is_read"]
