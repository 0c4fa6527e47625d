"""The mutation job: its operators make the mistakes they say, and every module has tests that answer for it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cosmic_ray.mutating import mutate_code

from mutation import run
from mutation.mutants import OPERATORS, Mutant, mutants, sample
from mutation.semantic_operators import OWN


@pytest.mark.parametrize("operator", OWN, ids=lambda operator: operator.__name__)
def test_an_operator_makes_the_mistake_that_it_names(operator) -> None:
    for example in operator.examples():
        assert (
            mutate_code(example.pre_mutation_code, operator(), example.occurrence)
            == example.post_mutation_code
        )


def test_every_module_belongs_to_one_area_and_every_area_has_tests_that_exist() -> None:
    owned = [name for area in run.areas() for name in run.modules(area)]
    assert sorted(owned) == sorted(set(owned)) == sorted(run.modules())
    for area in run.areas().values():
        assert run.modules(area.name), area.name
        for test in area.tests:
            assert (run.ROOT / test).exists(), f"{area.name}: {test}"
        assert set(area.only) <= set(area.tests)


SHOWN = {
    "cli", "report", "emulators", "scan", "schemas", "explorer", "library", "errors.py", "machines.py", "notebook.py",
    "benchmark.py", "benchmark", "keeping", "__init__.py", "__main__.py",
}  # fmt: skip


def test_what_has_no_area_is_what_shows_or_compares() -> None:
    """Commands, reports and adapters hold no semantics; everything else must have an area."""
    without = {
        str(path.relative_to(run.ROOT / "model/popek")).split("/")[0]
        for path in (run.ROOT / "model/popek").rglob("*.py")
        if run.area_of(str(path.relative_to(run.ROOT))) is None
    }
    assert without <= SHOWN | {"architectures"}, without


def test_the_same_seed_draws_the_same_sample() -> None:
    paths = run.modules("pg74")
    assert sample(run.ROOT, paths, 8, random.Random(5)) == sample(run.ROOT, paths, 8, random.Random(5))


def test_a_mutant_differs_in_its_line(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def f(a: int | None) -> int:\n    assert a\n    return a & 3\n")
    found = list(mutants(tmp_path, "m.py"))
    assert {m.line for m in found} == {3}  # neither the annotation nor the assertion
    assert {m.operator for m in found} == {
        "ReplaceBinaryOperator_BitAnd_BitOr",
        "NumberReplacer",
        "DropCondition",
    }
    assert (
        Mutant("m.py", "ReplaceBinaryOperator_BitAnd_BitOr", 0, 3).code(tmp_path).endswith("return a | 3\n")
    )


def test_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("a = 1\n")
    with pytest.raises(ValueError, match="no such place"):
        Mutant("m.py", "DropCheck", 0, 1).code(tmp_path)


def test_the_operators_of_others_are_chosen_by_name() -> None:
    assert len(OPERATORS) == 30


def test_what_is_quick_exists() -> None:
    lines = [
        line for line in (run.ROOT / "tests/quick.txt").read_text("utf-8").splitlines() if line[0] != "#"
    ]
    for line in lines:
        if line.startswith("-"):
            files = [
                (run.ROOT / "tests" / file).read_text("utf-8") for file in lines if not file.startswith("-")
            ]
            assert any(f"def {line[1:].partition('[')[0]}(" in text for text in files), line
        else:
            assert (run.ROOT / "tests" / line).exists(), line
