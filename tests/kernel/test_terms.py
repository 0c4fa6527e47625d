"""Terms: every simplification is sound, equal terms are one object, substitution is evaluation in steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from popek.kernel import terms
from popek.kernel.evaluation import evaluate
from popek.kernel.terms import Substitution, Term

VARIABLES = {"x": 8, "y": 8, "z": 8, "c": 1, "d": 1, "n": 16}
ARITHMETIC = ("add", "sub", "mul", "udiv", "urem", "and", "or", "xor", "shl", "lshr", "ashr")
COMPARISONS = ("eq", "ult", "ule", "slt", "sle")

# A term as a plain tree, evaluated here by a second, independent reading of what the operations mean.
Tree = tuple[Any, ...]


def signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value


@st.composite
def trees(draw: st.DrawFn, width: int = 8, depth: int = 4) -> Tree:
    """A random operation of so many bits."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        named = [name for name, bits in VARIABLES.items() if bits == width]
        if named and draw(st.booleans()):
            return ("var", width, draw(st.sampled_from(named)))
        top = (1 << width) - 1
        return ("const", width, draw(st.sampled_from([0, 1, top, 1 << (width - 1)]) | st.integers(0, top)))
    below = depth - 1
    kinds = ["arithmetic", "arithmetic", "not", "ite", "same"]
    kinds += ["compare", "connective", "connective"] if width == 1 else ["sext", "apply", "alike"]
    kinds += ["concat"] if width == 8 else []
    kinds += ["extract"] if width in (1, 4, 8) else []
    match draw(st.sampled_from(kinds)):
        case "arithmetic":
            return (
                draw(st.sampled_from(ARITHMETIC)),
                width,
                draw(trees(width, below)),
                draw(trees(width, below)),
            )
        case "connective":
            return (draw(st.sampled_from(["and", "or"])), 1, draw(trees(1, below)), draw(trees(1, below)))
        case "alike":  # two sums of the same term
            shared, sides = draw(trees(width, below)), draw(st.lists(trees(width, 0), min_size=2, max_size=2))
            left, right = (("add", width, shared, side) for side in sides)
            return ("ite", width, draw(trees(1, below)), left, right)
        case "same":
            shared = draw(trees(width, below))
            return (draw(st.sampled_from(ARITHMETIC)), width, shared, shared)
        case "not":
            return ("not", width, draw(trees(width, below)))
        case "ite":
            return ("ite", width, draw(trees(1, below)), draw(trees(width, below)), draw(trees(width, below)))
        case "compare":
            return (draw(st.sampled_from(COMPARISONS)), 1, draw(trees(8, below)), draw(trees(8, below)))
        case "concat":
            return ("concat", 8, draw(trees(4, below)), draw(trees(4, below)))
        case "extract":
            inner = 16 if width == 8 else 8
            low = draw(st.just(0) | st.integers(0, inner - width))
            return ("extract", width, draw(trees(inner, below)), low)
        case "sext":
            return ("sext", width, draw(trees(draw(st.sampled_from([1, 4])), below)))
    return ("apply", width, draw(trees(8, below)))


def built(tree: Tree) -> Term:
    """The tree as a term, simplified while it is built."""
    op, width, *rest = tree
    if op == "const":
        return terms.const(width, rest[0])
    if op == "var":
        return terms.var(rest[0], width)
    args = [built(arg) for arg in rest if isinstance(arg, tuple)]
    if op in ARITHMETIC:
        return terms.arithmetic(op, *args)
    if op in COMPARISONS:
        return terms.compare(op, *args)
    match op:
        case "not":
            return terms.invert(*args)
        case "ite":
            return terms.ite(*args)
        case "concat":
            return terms.concat(*args)
        case "extract":
            return terms.extract(args[0], rest[1] + width - 1, rest[1])
        case "sext":
            return terms.sign_extend(args[0], width)
    return terms.apply(f"f{width}", width, *args)


def meaning(tree: Tree, values: dict[str, int]) -> int:
    """What the tree stands for, by SMT-LIB's definitions."""
    op, width, *rest = tree
    if op in ("const", "var"):
        return rest[0] if op == "const" else values[rest[0]]
    args = [meaning(arg, values) for arg in rest if isinstance(arg, tuple)]
    inner, ones = rest[0][1], (1 << width) - 1
    match op:
        case "add":
            result = args[0] + args[1]
        case "sub":
            result = args[0] - args[1]
        case "mul":
            result = args[0] * args[1]
        case "udiv":
            result = args[0] // args[1] if args[1] else ones
        case "urem":
            result = args[0] % args[1] if args[1] else args[0]
        case "and":
            result = args[0] & args[1]
        case "or":
            result = args[0] | args[1]
        case "xor":
            result = args[0] ^ args[1]
        case "shl":
            result = args[0] << args[1] if args[1] < width else 0
        case "lshr":
            result = args[0] >> args[1]
        case "ashr":
            result = signed(args[0], width) >> args[1]
        case "eq":
            result = int(args[0] == args[1])
        case "ult":
            result = int(args[0] < args[1])
        case "ule":
            result = int(args[0] <= args[1])
        case "slt":
            result = int(signed(args[0], inner) < signed(args[1], inner))
        case "sle":
            result = int(signed(args[0], inner) <= signed(args[1], inner))
        case "not":
            result = ~args[0]
        case "ite":
            result = args[1] if args[0] else args[2]
        case "concat":
            result = args[0] << 4 | args[1]
        case "extract":
            result = args[0] >> rest[1]
        case "sext":
            result = signed(args[0], inner)
        case _:
            result = contents(args[0])
    return result & ones


def contents(address: int) -> int:
    return address * 37 + 11


FUNCTIONS = {f"f{width}": contents for width in (1, 4, 8, 16)}
VALUES = st.fixed_dictionaries({n: st.integers(0, (1 << w) - 1) for n, w in VARIABLES.items()})
MANY = settings(max_examples=500)
ROOTS = st.sampled_from([1, 8, 16]).flatmap(lambda width: trees(width))


def value(term: Term, values: dict[str, int]) -> int:
    return evaluate([term], values, FUNCTIONS)[0]


@MANY
@given(ROOTS, VALUES)
def test_a_term_simplified_while_it_was_built_means_the_same(tree: Tree, values: dict[str, int]) -> None:
    term = built(tree)
    assert term.width == tree[1]
    assert value(term, values) == meaning(tree, values)


@MANY
@given(ROOTS, VALUES, VALUES)
def test_substituting_numbers_gives_the_number(
    tree: Tree, values: dict[str, int], others: dict[str, int]
) -> None:
    term = built(tree)
    numbers = {name: terms.const(VARIABLES[name], number) for name, number in values.items()}
    cells = {name: lambda a, w=int(name[1:]): terms.const(w, contents(int(a.data))) for name in FUNCTIONS}
    replaced = Substitution(numbers, cells)(term)
    assert replaced.op == "const"
    assert replaced.data == meaning(tree, values)
    half = {name: numbers[name] for name in ("x", "c", "n")}
    assert value(Substitution(half)(term), {**others, **{n: values[n] for n in half}}) == value(
        term, {**others, **{n: values[n] for n in half}}
    )


@MANY
@given(ROOTS, trees(8, 2), VALUES)
def test_substituting_a_term_is_evaluating_it_first(tree: Tree, inner: Tree, values: dict[str, int]) -> None:
    replaced = Substitution({"x": built(inner)})(built(tree))
    assert value(replaced, values) == meaning(tree, {**values, "x": meaning(inner, values)})


@given(ROOTS)
def test_equal_terms_are_one_object_and_rebuilding_changes_nothing(tree: Tree) -> None:
    term = built(tree)
    assert built(tree) is term
    assert Substitution()(term) is term


@MANY
@given(trees(1, 3), ROOTS, VALUES)
def test_what_follows_from_a_condition_holds_where_it_does(
    condition: Tree, tree: Tree, values: dict[str, int]
) -> None:
    given_that = built(condition)
    assume(meaning(condition, values) == 1)
    known = terms.literals([given_that])
    for fact, constant in known.items():
        assert value(fact, values) == constant.data
    assert value(Substitution(known=known)(built(tree)), values) == meaning(tree, values)


@given(trees(16, 3), trees(16, 3), VALUES)
def test_a_linear_sum_is_what_it_sums(a: Tree, b: Tree, values: dict[str, int]) -> None:
    total = terms.add(built(a), terms.sub(built(b), terms.var("n", 16)))
    assert value(total, values) == (meaning(a, values) + meaning(b, values) - values["n"]) & 0xFFFF
    parts, offset = terms.linear(total)
    assert (sum(count * value(atom, values) for atom, count in parts.items()) + offset) & 0xFFFF == value(
        total, values
    )


X, Y, Z, C = (terms.var(name, VARIABLES[name]) for name in "xyzc")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (terms.add(X, Y), terms.add(Y, X)),
        (terms.sub(terms.add(X, Y), X), Y),
        (terms.invert(terms.invert(X)), X),
        (terms.arithmetic("xor", X, X), terms.const(8, 0)),
        (terms.concat(terms.extract(X, 7, 4), terms.extract(X, 3, 0)), X),
        (terms.extract(terms.concat(X, Y), 7, 0), Y),
        (terms.ite(C, X, X), X),
        (terms.compare("eq", terms.add(X, Y), terms.add(Y, Z)), terms.compare("eq", X, Z)),
        (terms.compare("ult", X, terms.const(8, 1)), terms.compare("eq", X, terms.const(8, 0))),
        (terms.arithmetic("and", C, terms.invert(C)), terms.ZERO),
        (terms.compare("eq", terms.concat(X, Y), terms.concat(X, Z)), terms.compare("eq", Y, Z)),
    ],
)
def test_what_is_plainly_the_same_is_seen_without_a_solver(left: Term, right: Term) -> None:
    assert left is right


def test_a_denied_or_denies_its_parts_and_a_denied_and_says_nothing_of_them() -> None:
    c, d = terms.var("c", 1), terms.var("d", 1)
    both, some = terms.arithmetic("and", c, d), terms.arithmetic("or", c, d)
    held = terms.literals([both])
    assert (held[c], held[d], held[terms.invert(c)]) == (terms.ONE, terms.ONE, terms.ZERO)
    denied = terms.literals([terms.invert(some)])
    assert (denied[c], denied[d]) == (terms.ZERO, terms.ZERO)
    for open_question in (terms.literals([terms.invert(both)]), terms.literals([some])):
        assert c not in open_question
        assert d not in open_question


def test_a_variable_without_a_number_is_an_error() -> None:
    with pytest.raises(KeyError, match="x"):
        evaluate([X], {})


def test_variables_and_cells_below_a_term_are_listed() -> None:
    cell = terms.apply("f8", 8, terms.add(X, Y))
    assert set(terms.variables_of([terms.ite(C, cell, Z)])) == {"x", "y", "z", "c"}
    assert terms.applications_of([terms.ite(C, cell, Z)]) == [cell]


def test_the_order_of_terms_does_not_depend_on_the_process() -> None:
    import subprocess
    import sys

    script = (
        "from popek.kernel import terms\n"
        "x, y = terms.var('x', 8), terms.var('y', 8)\n"
        "print(terms.arithmetic('and', terms.add(x, y), y).order)"
    )
    orders = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert orders == {f"{terms.arithmetic('and', terms.add(X, Y), Y).order}\n"}
