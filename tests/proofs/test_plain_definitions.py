"""The definitions of the paper once more, as loops over tables: they agree with the formulas.

Nothing of the formulas is used here but the names of the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from popek.solving.formula import Structure
from popek_proofs.theorems import theorem1, theorem3
from popek_proofs.theorems.proposition import Proof, prove_one

I = 0  # noqa: E741 - the one instruction of these machines


class Tables:
    """A machine with one instruction, read from its tables."""

    def __init__(self, structure: Structure) -> None:
        self.s = structure
        self.states = range(structure.sizes["State"])

    def get(self, name: str, state: int) -> int:
        return self.s(name, state)

    def traps(self, state: int) -> bool:
        return bool(self.s("traps", I, state))

    def memory_traps(self, state: int) -> bool:
        return bool(self.s("storage_traps", I, state))

    def completes(self, state: int) -> bool:
        return not self.traps(state) and not self.memory_traps(state)

    def run(self, state: int) -> int:
        return self.s("execute", I, state)

    def pairs(self) -> Iterator[tuple[int, int]]:
        return ((a, b) for a in self.states for b in self.states)

    def look_alike(self, a: int, b: int) -> bool:
        return all(self.get(n, a) == self.get(n, b) for n in ("window", "pc", "bound"))

    def keeps_m_and_r(self, a: int) -> bool:
        return all(self.get(n, self.run(a)) == self.get(n, a) for n in ("user", "base", "bound"))


def not_control_sensitive(m: Tables, only_user: bool = False) -> bool:
    for a in m.states:
        if only_user and not m.get("user", a):
            continue
        if m.completes(a) and not m.keeps_m_and_r(a):
            return False
    return True


def not_behaviour_sensitive(m: Tables, only_user: bool = False) -> bool:
    for a, b in m.pairs():
        if only_user and not (m.get("user", a) and m.get("user", b)):
            continue
        if not m.look_alike(a, b) or not m.completes(a) or not m.completes(b):
            continue
        if not m.keeps_m_and_r(a) or not m.keeps_m_and_r(b):
            continue
        after_a, after_b = m.run(a), m.run(b)
        if m.get("window", after_a) != m.get("window", after_b) or m.get("pc", after_a) != m.get(
            "pc", after_b
        ):
            return False
    return True


def references_relocated(m: Tables) -> bool:
    return not any(m.look_alike(a, b) and m.memory_traps(a) != m.memory_traps(b) for a, b in m.pairs())


def traps_in_user_too(m: Tables) -> bool:
    return not any(
        m.look_alike(a, b) and m.get("user", b) and m.traps(a) and not m.traps(b) for a, b in m.pairs()
    )


def user_traps_anywhere(m: Tables) -> bool:
    return not any(
        m.look_alike(a, b) and m.get("user", a) and m.get("user", b) and m.traps(a) and not m.traps(b)
        for a, b in m.pairs()
    )


def confined(m: Tables) -> bool:
    return all(m.get("rest", m.run(a)) == m.get("rest", a) for a in m.states if m.completes(a))


def nothing_hidden(m: Tables) -> bool:
    names = ("user", "pc", "base", "bound", "window", "rest")
    seen = {tuple(m.get(n, a) for n in names) for a in m.states}
    return len(seen) == len(m.states)


def bare(m: Tables) -> list[int]:
    return [a for a in m.states if m.get("bare", a)]


def map_keeps_window(m: Tables) -> bool:
    return all(m.look_alike(a, m.get("f", a)) for a in bare(m))


def map_user(m: Tables) -> bool:
    return all(m.get("user", m.get("f", a)) for a in bare(m))


def map_base(m: Tables) -> bool:
    return all(m.get("base", m.get("f", a)) == m.s("relocated", m.get("base", a)) for a in bare(m))


def map_rest(m: Tables) -> bool:
    images: dict[tuple[int, ...], set[int]] = {}
    for a in bare(m):
        key = tuple(m.get(n, a) for n in ("user", "base", "bound", "rest"))
        images.setdefault(key, set()).add(m.get("rest", m.get("f", a)))
    return all(len(found) == 1 for found in images.values())


def bare_stays(m: Tables) -> bool:
    return all(m.get("bare", m.run(a)) for a in bare(m))


def commutes(m: Tables, only_user: bool = False) -> bool:
    for a in bare(m):
        if only_user and not m.get("user", a):
            continue
        image = m.get("f", a)
        if m.completes(image) and not (m.completes(a) and m.run(image) == m.get("f", m.run(a))):
            return False
    return True


COMMON: dict[str, Callable[[Tables], bool]] = {
    "references-relocated": references_relocated,
    "confined-to-the-window": confined,
    "state-is-E-M-P-R": nothing_hidden,
    "map-keeps-the-window": map_keeps_window,
    "map-runs-in-user-mode": map_user,
    "map-composes-relocation": map_base,
    "map-frames-the-rest": map_rest,
    "bare-stays-bare": bare_stays,
}
LEMMA1: dict[str, Callable[[Tables], bool]] = {
    **COMMON,
    "not-control-sensitive": not_control_sensitive,
    "not-behaviour-sensitive": not_behaviour_sensitive,
    "traps-in-user-mode-too": traps_in_user_too,
}
HYBRID: dict[str, Callable[[Tables], bool]] = {
    **COMMON,
    "not-user-control-sensitive": lambda m: not_control_sensitive(m, only_user=True),
    "not-user-location-sensitive": lambda m: not_behaviour_sensitive(m, only_user=True),
    "user-traps-anywhere": user_traps_anywhere,
}


@pytest.mark.parametrize(
    ("proof", "definitions", "conclusion"),
    [
        (prove_one(theorem1.INNOCUOUS_COMMUTES), LEMMA1, commutes),
        (prove_one(theorem3.USER_COMMUTES), HYBRID, lambda m: commutes(m, only_user=True)),
    ],
    ids=["theorem 1", "theorem 3"],
)
def test_every_counterexample_is_one_by_the_paper_s_definitions(
    proof: Proof, definitions: dict[str, Callable[[Tables], bool]], conclusion: Callable[[Tables], bool]
) -> None:
    assert {need.hypothesis.name for need in proof.needs} == set(definitions)
    for need in proof.needs:
        assert need.machine is not None
        m = Tables(need.machine.structure)
        for name, definition in definitions.items():
            assert definition(m) is (name != need.hypothesis.name), (need.hypothesis.name, name)
        assert not conclusion(m)
    assert proof.example is not None
    example = Tables(proof.example.structure)
    assert all(definition(example) for definition in definitions.values())
    assert conclusion(example)
