"""`popek notebooks`: copies to work in, with the solutions or without, as notebooks or as pages."""

from __future__ import annotations

import json as json_format
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from .errors import UserError
from .options import AsJson
from .output import console, print_json, progress

DUMPS: Final = "../tests/vtx/dumps"
"""Where the notebook about dumps looks for them in a checkout; a copy has them beside it."""


def _solution(cell: Mapping[str, Any]) -> bool:
    return "solution" in cell["metadata"].get("tags", ())


def _shipped() -> tuple[Path, Path]:
    """The notebooks and the dumps they read: those of the installation, or of the checkout it points to."""
    package = Path(__file__).parents[1]
    installed, checkout = package / "notebooks", package.parents[1] / "notebooks"
    if installed.is_dir():
        return installed, installed / "dumps"
    if checkout.is_dir():
        return checkout, package.parents[1] / "tests/vtx/dumps"
    raise UserError("this installation has no notebooks: take them from the source distribution")


def notebooks(
    folder: Path | None = None,
    /,
    *,
    student: Annotated[bool, Parameter(negative="", help="Without the solutions.")] = False,
    html: Annotated[
        bool,
        Parameter(
            negative="", help="As pages, run, with the solutions folded; needs nbclient and nbconvert."
        ),
    ] = False,
    json: AsJson = False,
) -> int:
    """List the notebooks, or copy them to a folder to work in.

    Exit code: 0 done, 2 bad input: a file of that name is there already, or what `--html` needs is not.

    Parameters
    ----------
    folder
        Where the copies go; it is made if it is not there.
    """
    source, dumps = _shipped()
    found = sorted(source.glob("*.ipynb"))
    if folder is None:
        if student or html:
            raise UserError("expected the folder for the copies: popek notebooks DIR --student")
        return _listed(found, json)
    ending = ".html" if html else ".ipynb"
    wanted = [folder / f"{path.stem}{ending}" for path in found]
    for path in wanted:
        if path.exists():
            raise UserError(
                f"{path}: is there already, and may hold somebody's work: expected another folder"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    shutil.copytree(dumps, folder / "dumps", dirs_exist_ok=True)
    with progress("copying") as show:
        for done, (path, target) in enumerate(zip(found, wanted, strict=True), 1):
            made = _copy(json_format.loads(path.read_text("utf-8")), student)
            target.write_text(
                _page(made, folder, path.stem)
                if html
                else json_format.dumps(made, indent=1, ensure_ascii=False) + "\n",
                "utf-8",
            )
            if show is not None:
                show(done, len(found))
    if json:
        print_json({"schema": "popek/notebooks/1", "files": [str(path) for path in wanted]})
    else:
        for path in wanted:
            print(path)
    return 0


def _title(path: Path) -> str:
    first = json_format.loads(path.read_text("utf-8"))["cells"][0]["source"]
    return "".join(first).splitlines()[0].lstrip("# ")


def _listed(found: list[Path], json: bool) -> int:
    rows = {path.stem: _title(path) for path in found}
    if json:
        print_json({"schema": "popek/notebooks/1", "notebooks": rows})
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("notebook", "what it is about"):
        table.add_column(heading)
    for name, title in rows.items():
        table.add_row(name, title)
    console().print(table)
    return 0


def _copy(notebook: dict[str, Any], student: bool) -> dict[str, Any]:
    """Its dumps beside it; for a student an empty cell where a solution was."""
    for cell in notebook["cells"]:
        cell["source"] = [line.replace(DUMPS, "dumps") for line in cell["source"]]
        if student and _solution(cell):
            cell["metadata"] = {}
            cell["source"] = ["# your answer"] if cell["cell_type"] == "code" else ["*Your answer.*"]
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
    return notebook


_FOLDED: Final = """\
{%- extends "lab/index.html.j2" -%}
{%- block any_cell -%}
{%- if "solution" in cell.metadata.get("tags", []) -%}
<details><summary>Solution</summary>{{ super() }}</details>
{%- else -%}
{{ super() }}
{%- endif -%}
{%- endblock any_cell -%}
"""


def _page(notebook: dict[str, Any], folder: Path, name: str) -> str:
    """The notebook run, as one page."""
    try:
        import nbformat
        from jinja2 import DictLoader
        from nbclient import NotebookClient
        from nbconvert import HTMLExporter
    except ImportError as error:
        raise UserError(f"--html needs {error.name}: pip install 'popek[notebook]'") from None
    from nbclient.exceptions import CellExecutionError

    made: Any = nbformat.reads(json_format.dumps(notebook), as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(made, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    try:
        client.execute()
    except CellExecutionError as error:
        raise UserError(f"{name}: a cell failed: {error.ename}: {error.evalue}") from None
    exporter: Any = HTMLExporter(  # type: ignore[no-untyped-call]
        extra_loaders=[DictLoader({"folded.html.j2": _FOLDED})], template_file="folded.html.j2"
    )
    page, _ = exporter.from_notebook_node(made, resources={"metadata": {"name": name}})
    return str(page)


__all__ = ["notebooks"]
