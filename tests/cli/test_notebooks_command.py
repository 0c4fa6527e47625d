"""`popek notebooks`: copies with and without the solutions."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from popek.cli import notebooks as module
from popek.cli.errors import UserError
from popek.cli.notebooks import notebooks

STORED = Path(__file__).parents[2] / "notebooks"


def solutions(path: Path) -> list[str]:
    made = nbformat.read(path, as_version=4)
    return [cell.source for cell in made.cells if "solution" in cell.metadata.get("tags", ())]


def test_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert notebooks(json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert sorted(answer["notebooks"]) == sorted(path.stem for path in STORED.glob("*.ipynb"))
    assert answer["notebooks"]["01-the-theorem-in-one-hour"] == "1. The theorem in one hour"


def test_a_students_copy_has_no_solution_and_a_place_for_an_answer(tmp_path: Path) -> None:
    assert notebooks(tmp_path / "course", student=True) == 0
    for stored in STORED.glob("*.ipynb"):
        copy = tmp_path / "course" / stored.name
        before, after = nbformat.read(stored, as_version=4), nbformat.read(copy, as_version=4)
        nbformat.validate(after)
        hidden = solutions(stored)
        assert hidden, stored
        assert solutions(copy) == []
        assert not any(cell.source == text for cell in after.cells for text in hidden)
        assert len(before.cells) == len(after.cells)
        kinds = ("# your answer", "*Your answer.*")
        assert sum(cell.source in kinds for cell in after.cells) == len(hidden)


def test_what_they_read_lies_beside_them(tmp_path: Path) -> None:
    notebooks(tmp_path, json=True)
    text = (tmp_path / "06-the-vmcs-doctor.ipynb").read_text("utf-8")
    assert "../tests" not in text
    assert list((tmp_path / "dumps").iterdir())
    assert solutions(tmp_path / "06-the-vmcs-doctor.ipynb")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "02-ia32.ipynb"
    mine.write_text("my work")
    with pytest.raises(UserError, match=r"02-ia32\.ipynb: is there already"):
        notebooks(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["02-ia32.ipynb"]
    assert mine.read_text() == "my work"


def test_copies_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the folder"):
        notebooks(student=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        notebooks(tmp_path / "file")


def test_a_page_is_run_and_its_solutions_are_folded(tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell("6 * 7"),
        nbformat.v4.new_code_cell("'the answer'", metadata={"tags": ["solution"]}),
    ]
    page = module._page(nbformat.v4.new_notebook(cells=cells), tmp_path, "small")
    assert "42" in page
    folded = page.partition("<details><summary>Solution</summary>")[2].partition("</details>")[0]
    assert "the answer" in folded


def test_a_cell_that_fails_is_one_line(tmp_path: Path) -> None:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(UserError, match="small: a cell failed: ZeroDivisionError"):
        module._page(made, tmp_path, "small")


def test_the_site_lists_every_notebook() -> None:
    page = (STORED.parent / "docs" / "notebooks.md").read_text("utf-8")
    read_me = (STORED / "README.md").read_text("utf-8")
    for stored in STORED.glob("*.ipynb"):
        assert f"| `{stored.stem}` |" in page
        assert f"| {stored.stem} |" in read_me
