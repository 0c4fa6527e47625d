"""Every notebook runs from a clean kernel, top to bottom; its exercises are checked by its own solutions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[2]
NAMES = (
    "01-the-theorem-in-one-hour",
    "02-ia32",
    "03-settings-as-questions",
    "04-theorems-and-old-machines",
    "05-vt-x",
    "06-the-vmcs-doctor",
    "07-vt-i",
    "08-your-own-machine",
    "09-risc-v",
    "10-a-guest-with-a-device-of-its-own",
    "11-the-68000-and-the-68010",
)
LONGEST_CELL = 6  # lines; a cell with more is plumbing that belongs into popek.notebook
TIMEOUT = 900  # seconds a cell may take on a busy machine


def _read(name: str) -> Any:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def _tagged(cell: Any, tag: str) -> bool:
    return tag in cell.metadata.get("tags", ())


def _execute(notebook: Any, workspace: Path) -> Any:
    """Run it in a copy of the checkout's layout, so that what it writes goes nowhere else."""
    (workspace / "notebooks").mkdir()
    (workspace / "tests").symlink_to(ROOT / "tests")
    where = {"metadata": {"path": str(workspace / "notebooks")}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=TIMEOUT, resources=where)
    return client.execute()


def _shown(notebook: Any) -> list[str]:
    """Every HTML that it shows."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]


def test_all_notebooks_are_known() -> None:
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_runs_from_a_clean_kernel(name: str, tmp_path: Path) -> None:
    executed = _execute(_read(name), tmp_path)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    errors = [o for cell in code for o in cell.outputs if o.output_type in ("error", "stream")]
    # `%%writefile` alone may print; a warning would be a stream on standard error.
    assert [o for o in errors if o.output_type == "error" or o.name == "stderr"] == []
    shown = _shown(executed)
    assert any("<svg" in html for html in shown), "no figure"
    assert any("<table" in html or 'class="popek"' in html for html in shown), "no table"
    # What shows itself in a notebook shows itself in a terminal, too.
    for cell in code:
        for output in cell.outputs:
            if "text/html" in output.get("data", {}):
                assert len(output.data["text/plain"].strip()) > 10
                assert " object at 0x" not in output.data["text/plain"]


@pytest.mark.parametrize("name", NAMES)
def test_is_stored_without_outputs(name: str) -> None:
    for cell in _read(name).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_has_a_checked_solution(name: str) -> None:
    cells = _read(name).cells
    exercises = [n for n, cell in enumerate(cells) if re.search(r"\*\*Exercise \d+\.\*\*", cell.source)]
    assert len(exercises) >= 3
    for number in exercises:
        solution = cells[number + 1]
        assert _tagged(solution, "solution")
        assert solution.metadata["jupyter"]["source_hidden"] is True
        assert re.search(r"^assert ", solution.source, re.M)
    assert sum(_tagged(cell, "solution") for cell in cells) == len(exercises)


@pytest.mark.parametrize("name", NAMES)
def test_has_no_plumbing(name: str) -> None:
    for cell in _read(name).cells:
        if cell.cell_type == "code" and not (_tagged(cell, "solution") or _tagged(cell, "file")):
            lines = [line for line in cell.source.splitlines() if line.strip()]
            # A list with an item per line is data, and an import is one statement, however it is wrapped.
            statements = [line for line in lines if not line.startswith((" ", ")", "]"))]
            assert len(statements) <= LONGEST_CELL, cell.source


def test_a_wrong_solution_fails(tmp_path: Path) -> None:
    notebook = _read("08-your-own-machine")
    cell = next(cell for cell in notebook.cells if 'found.theorem1.value == "holds"' in cell.source)
    cell.source = cell.source.replace('found.theorem1.value == "holds"', 'found.theorem1.value == "refuted"')
    with pytest.raises(CellExecutionError, match="AssertionError"):
        _execute(notebook, tmp_path)
