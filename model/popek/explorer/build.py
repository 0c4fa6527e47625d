"""The page as a folder of files for any static host: popek, its solver and Python itself run in the browser.

Nothing of it is kept with popek: Pyodide comes from npm and the wheels from PyPI, by those programs, when the folder is
built.  The solver's wheel for WebAssembly must fit the Pyodide: both name the same platform.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import attrs

from popek.errors import PopekError

from .answers import Explorer

PYODIDE = "314.0.7"
PLATFORM, PYTHON = "pyemscripten_2026_0_wasm32", "314"
SOLVER = "z3-solver==5.3.3.0"
PURE = ("attrs", "cattrs", "typing-extensions")
RUNTIME = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "pyodide-lock.json", "python_stdlib.zip")
PROMISED = 40_000_000  # bytes that the folder stays below


class BuildError(PopekError):
    """The page cannot be built: one line that says what is missing."""


@attrs.frozen
class Built:
    """What was written."""

    page: Path
    size: int
    files: int
    answers: int


def build(folder: Path, pyodide: Path | None = None, machines: Iterable[str] | None = None) -> Built:
    """Write the page.

    Args:
        folder: is made, or must be empty or an earlier build.
        pyodide: the npm package, unpacked or as it is downloaded; npm fetches it by default.
        machines: those whose tables are derived now, at their defaults; all by default.

    Raises:
        BuildError: something is missing, or the folder holds something else.
    """
    if folder.exists() and not (folder / "mode.json").is_file() and any(folder.iterdir()):
        raise BuildError(f"{folder}: expected a folder that is empty or holds an earlier build")
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        site = work / "site"
        shutil.copytree(str(resources.files(__package__) / "site"), site)
        _runtime(site / "pyodide", pyodide, work)
        wheels = _wheels(site / "wheels", work)
        answers = _answers(site / "answers", machines)
        mode = {"mode": "built", "wheels": wheels, "answers": answers, "python": PYTHON}
        (site / "mode.json").write_text(json.dumps(mode, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(site, folder)
    files = [file for file in folder.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if size > PROMISED:
        raise BuildError(f"{folder}: {size / 1e6:.1f} MB: expected less than {PROMISED / 1e6:.0f} MB")
    return Built(folder / "index.html", size, len(files), len(answers))


def _runtime(place: Path, given: Path | None, work: Path) -> None:
    """The files of Pyodide that a page needs."""
    if given is None:
        if shutil.which("npm") is None:
            raise BuildError(
                "npm is not installed, which fetches Pyodide: install it, or give --pyodide FILE"
            )
        _run(
            ["npm", "pack", "--silent", f"pyodide@{PYODIDE}"], work, f"npm could not fetch pyodide {PYODIDE}"
        )
        given = work / f"pyodide-{PYODIDE}.tgz"
    if given.is_file():
        try:
            with tarfile.open(given) as archive:
                archive.extractall(work / "pyodide", filter="data")
        except (OSError, tarfile.TarError) as error:
            raise BuildError(f"{given}: expected the npm package pyodide: {error}") from None
        given = work / "pyodide" / "package"
    missing = [name for name in RUNTIME if not (given / name).is_file()]
    if missing:
        raise BuildError(f"{given}: expected the npm package pyodide: {missing[0]} is missing")
    place.mkdir()
    for name in RUNTIME:
        shutil.copy(given / name, place / name)


def _wheels(place: Path, work: Path) -> list[str]:
    """Our own wheel, the solver's for WebAssembly, and what popek imports of pure Python."""
    place.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    fetch = [*pip, "download", "--no-deps", "--only-binary=:all:", "-d", str(place)]
    _run(
        [*fetch, "--platform", PLATFORM, "--python-version", PYTHON, SOLVER],
        work,
        f"pip could not fetch {SOLVER}",
    )
    for name in PURE:
        _run(
            [*fetch, "--python-version", PYTHON, "--platform", "any", name],
            work,
            f"pip could not fetch {name}",
        )
    _own_wheel(place)
    return sorted(file.name for file in place.glob("*.whl"))


def _own_wheel(place: Path) -> None:
    """popek as it is installed, which may be a checkout: the packages as they are, in a wheel."""
    import zipfile

    version = metadata.version("popek")
    about = f"popek-{version}.dist-info"
    with zipfile.ZipFile(place / f"popek-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for package in ("popek", "popek_proofs", "popek_specs"):
            root = Path(str(resources.files(package)))
            for file in sorted(root.rglob("*")):
                if (
                    file.is_file()
                    and "__pycache__" not in file.parts
                    and "site" not in file.relative_to(root).parts[:2]
                ):
                    wheel.write(file, f"{package}/{file.relative_to(root)}")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: popek\nVersion: {version}\n")
        wheel.writestr(
            f"{about}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: popek\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{about}/RECORD", "")


def _answers(place: Path, machines: Iterable[str] | None) -> dict[str, str]:
    """What the page is told without asking: the lists, and the tables of machines at their defaults."""
    place.mkdir()
    explorer = Explorer()
    kept: dict[str, str] = {}

    def keep(name: str, answer: Any) -> None:
        file = f"{len(kept):02}.json"
        (place / file).write_text(json.dumps(answer, separators=(",", ":")), encoding="utf-8")
        kept[name] = f"answers/{file}"

    listed = list(explorer.answers({"ask": "machines"}))
    keep("machines", listed)
    wanted = [one["name"] for one in listed[0]["machines"]] if machines is None else list(machines)
    for name in wanted:
        about = list(explorer.answers({"ask": "machine", "machine": name}))
        keep(f"machine {name}", about)
        if len(about[0]["forms"]) > 24:  # smaller ones are asked as quickly as read
            table = list(explorer.answers({"ask": "classify", "machine": name}))
            table[0] |= {"defaults": table[0]["configuration"], "promises": False}
            for technique in ("", about[0]["techniques"][0]["name"]):
                keep(f"classify {name} {technique}", table)
    return kept


def _run(command: list[str], work: Path, what: str) -> None:
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, env=dict(os.environ))
    except OSError as error:
        raise BuildError(f"{what}: {error.strerror}") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise BuildError(f"{what}: {said[-1].strip()}")


__all__ = ["BuildError", "Built", "build"]
