"""`--svg FILE`: figures that commands write beside their answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from commands import popek
from popek.checks import subject
from popek.cli import app
from popek.report.svg import Figure, stacked
from popek.solving.solver import Solver

SVG = "{http://www.w3.org/2000/svg}"
DUMP = Path(__file__).parents[1] / "vtx" / "dumps" / "16-drakvuf-388-cr3-bit63.txt"


def drawn(file: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> tuple[ElementTree.Element, str]:
    """The figure, and the words beside it, of a command that answers as it does without one."""
    done = popek(*arguments, "--svg", str(file))
    assert done.returncode in codes, done.stderr
    assert done.stdout == popek(*arguments).stdout
    root = ElementTree.parse(file).getroot()
    assert (root.tag, root.get("role")) == (f"{SVG}svg", "img")
    assert float(root.get("width", "0")) > 0
    return root, root.get("aria-label") or ""


def texts(root: ElementTree.Element) -> list[str]:
    return [one.text or "" for one in root.iter(f"{SVG}text")]


def test_a_classification_draws_what_leaks_through_critical_instructions(tmp_path: Path) -> None:
    root, words = drawn(tmp_path / "a.svg", "classify", "pg74", "--set", "GMODE=0")
    assert "GMODE a" in texts(root)
    assert "LPSW a" not in texts(root)
    assert "mode → GMODE a" in words


def test_a_classification_without_critical_instructions_draws_the_sensitive_ones(tmp_path: Path) -> None:
    root, words = drawn(tmp_path / "a.svg", "classify", "pg74")
    assert {"LPSW a", "SREL a", "DROP a"} <= set(texts(root))
    assert "MOVE a, b" not in texts(root)
    assert "DROP a → mode" in words


def test_a_classification_of_some_instructions_draws_these(tmp_path: Path) -> None:
    root, _ = drawn(tmp_path / "a.svg", "classify", "pg74", "MOVE", "LPSW")
    assert {"MOVE a, b", "LPSW a"} <= set(texts(root))
    assert "SREL a" not in texts(root)


def test_open_settings_are_drawn_as_a_grid(tmp_path: Path) -> None:
    root, words = drawn(tmp_path / "a.svg", "classify", "pg74", "--symbolic", "GMODE,DROP")
    assert "GMODE=0 DROP=1" in texts(root)
    assert "GMODE: GMODE=0 DROP=0 critical, GMODE=0 DROP=1 critical, GMODE=1 DROP=0 ·" in words


def test_an_explanation_draws_leaks_or_paths(tmp_path: Path) -> None:
    root, _ = drawn(tmp_path / "a.svg", "explain", "pg74", "LPSW")
    assert {"state that leaks", "LPSW a", "into, or changes"} <= set(texts(root))
    root, words = drawn(tmp_path / "b.svg", "explain", "pg74", "LPSW", "--figure", "paths")
    assert "traps: privileged-instruction trap" in texts(root)
    assert "mode ?" in words


def test_an_innocuous_instruction_has_a_figure_too(tmp_path: Path) -> None:
    root, words = drawn(tmp_path / "a.svg", "explain", "pg74", "MOVE")
    assert "MOVE a, b" in texts(root)
    assert words == "MOVE a, b"


def test_a_proof_draws_how_propositions_rest_on_one_another(tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    done = popek("prove", "theorem2", "--no-needs", "--svg", str(file))
    assert done.returncode == 0, done.stderr
    words = ElementTree.parse(file).getroot().get("aria-label") or ""
    assert " → " in words
    assert not popek("prove", "pg74", "--svg", str(file)).stdout


def test_a_repair_draws_the_bits_to_change(tmp_path: Path) -> None:
    root, words = drawn(tmp_path / "a.svg", "vmcs", "repair", str(DUMP), codes=(0, 3))
    assert "GUEST_CR3 = 0x800000001a02f080" in texts(root)
    assert "wrong: bits 63" in words
    red = [one for one in root.iter(f"{SVG}g") if one.get("class") == "red"]
    assert len(red) == 1


def test_figures_are_stacked_without_overlap() -> None:
    figure = stacked([Figure("<a/>", 10, 20, "one"), Figure("<b/>", 30, 5, "two")])
    assert (figure.width, figure.height, figure.words) == (30, 25, "one\n\ntwo")
    assert figure.body == '<g transform="translate(0 0.0)"><a/></g><g transform="translate(0 20.0)"><b/></g>'
    assert ElementTree.fromstring(stacked([]).svg).get("width") != "0"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["classify", "pg74", "--svg", "{}"], "popek: --svg {}: expected a file, and this is a folder"),
        (
            ["explain", "pg74", "LPSW", "--svg", "{}/none/a.svg"],
            "popek: --svg {}/none/a.svg: there is no folder",
        ),
        (["explain", "pg74", "LPSW", "--figure", "tree", "--svg", "{}/a.svg"], 'popek: Invalid value "tree"'),
        (
            ["prove", "pg74", "--svg", "{}/a.svg"],
            "popek: --svg {}/a.svg: draws propositions, and pg74 is a machine",
        ),
        (
            ["vmcs", "repair", str(DUMP), "--svg", "{}"],
            "popek: --svg {}: expected a file, and this is a folder",
        ),
    ],
)
def test_bad_input_gets_one_line(arguments: list[str], line: str, tmp_path: Path) -> None:
    done = popek(*(argument.replace("{}", str(tmp_path)) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(line.replace("{}", str(tmp_path))), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_figure_in_an_image_is_readable_on_light_and_dark(tmp_path: Path) -> None:
    """An image inherits no color; a page's own text color must outweigh the rule to inherit one."""
    file = tmp_path / "a.svg"
    Figure("<text>a</text>", 10, 20, "one").save(file)
    style = file.read_text(encoding="utf-8")
    assert ".popek{color:inherit" in style
    assert re.search(r"<style>svg\.popek\{color:#[0-9a-f]{6};background:#[0-9a-f]{6}\}", style)
    assert re.search(r"prefers-color-scheme:dark\)\{svg\.popek\{color:#[0-9a-f]{6};background:#", style)


@pytest.mark.parametrize(
    ("arguments", "explored", "also"),
    [
        # GMODE is critical, and the table shows its witness; those of LPSW, SREL, DROP are for the figure.
        (["classify", "pg74", "--set", "GMODE=0", "--jobs", "1"], 11, 20),
        (["classify", "pg74", "GMODE", "--set", "GMODE=0"], 1, 0),
        (["explain", "pg74", "GMODE"], 1, 0),
        (["explain", "pg74", "GMODE", "--figure", "paths"], 1, 0),
    ],
)
def test_a_figure_takes_what_was_found(
    arguments: list[str], explored: int, also: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is explored or asked again for a figure; `also` is for witnesses that it alone shows."""
    counts: list[dict[str, int]] = []

    def count(kind: Any, name: str) -> None:
        real = getattr(kind, name)

        def counted(*given: Any, **named: Any) -> Any:
            counts[-1][name] = counts[-1].get(name, 0) + 1
            return real(*given, **named)

        monkeypatch.setattr(kind, name, counted)

    count(subject, "explore_instruction")
    count(Solver, "check")
    for drawing in ([], ["--svg", str(tmp_path / "a.svg")]):
        counts.append({})
        app([*arguments, *drawing], result_action="return_value")
    plain, drawn = counts
    assert plain["explore_instruction"] == drawn["explore_instruction"] == explored
    assert 0 < plain["check"] <= drawn["check"] <= plain["check"] + also
