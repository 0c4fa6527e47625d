"""Make mistakes on purpose, one at a time, and see which test notices.

    python tests/mutate.py --sample 200 --seed 7          a sample over every area
    python tests/mutate.py --area ia32 --sample 20        of one area
    python tests/mutate.py --changed HEAD~1 --sample 6    of the files that a change touched
    python tests/mutate.py --quick --sample 40            only those of the tests that are marked quick

It works in a copy, so that nothing here changes. `--out FILE` keeps a JSON line per mutant and goes on where an earlier
run stopped. What survives is listed, with the line as it was and as it became; a mutant that no test can notice is
listed in `equivalent.toml` with the argument, and counts neither way.
Exit code: 0, or 1 where fewer than `--at-least` percent were caught.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from .mutants import Mutant, sample

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
COPIED: Final = ("model", "proofs", "specs", "tests", "docs", "notebooks", "pyproject.toml", "README.md")
CRASH: Final = re.compile(
    r"^E\s+(TypeError|AttributeError|NameError|KeyError|IndexError|UnboundLocalError)", re.M
)


@attrs.frozen
class Area:
    """Sources, and the tests that answer for them, quick ones first."""

    name: str
    sources: tuple[str, ...]
    tests: tuple[str, ...]
    only: Mapping[str, str] = attrs.field(factory=dict)

    def commands(self) -> Iterator[list[str]]:
        """What pytest is given, one after the other."""
        for test in self.tests:
            yield [test, *(["-k", self.only[test]] if test in self.only else [])]


def areas() -> dict[str, Area]:
    """Those of `areas.toml`."""
    found = tomllib.loads((HERE / "areas.toml").read_text("utf-8"))
    return {
        name: Area(name, tuple(a["sources"]), tuple(a["tests"]), a.get("only", {}))
        for name, a in found.items()
    }


def area_of(path: str) -> Area | None:
    """The area with the longest source that a module lies in."""
    fitting = [
        (len(s), a) for a in areas().values() for s in a.sources if path == s or path.startswith(f"{s}/")
    ]
    return max(fitting, key=lambda one: one[0])[1] if fitting else None


def modules(area: str | None = None) -> list[str]:
    """The modules of an area, or of all; a package's `__init__` only where it has code."""
    found = []
    for top in ("model/popek", "proofs/popek_proofs", "specs/popek_specs"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            owner = area_of(name)
            if owner is not None and area in (None, owner.name):
                found.append(name)
    return found


def changed(since: str) -> list[str]:
    """The modules that differ from a commit."""
    command = ["git", "diff", "--name-only", "--diff-filter=d", since, "--", "model", "proofs", "specs"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    known = set(modules())
    return [name for name in told if name in known]


def equivalents() -> set[tuple[str, str, str]]:
    """File, the line as it was and as it became, of what no test can notice."""
    listed = tomllib.loads((HERE / "equivalent.toml").read_text("utf-8")).get("mutant", [])
    return {(one["file"], one["was"], one["is"]) for one in listed}


class Copy:
    """A copy of the project in which one file is wrong at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis")
                )
            else:
                shutil.copy(source, folder / name)
        rooms = ":".join(str(folder / top) for top in ("model", "proofs", "specs"))
        self.environment = {**os.environ, "PYTHONPATH": rooms, "PYTHONDONTWRITEBYTECODE": "1"}

    def pytest(self, arguments: Sequence[str], limit: float) -> tuple[str, str, float]:
        """Whether the tests noticed (`caught`, `missed`, `slow`), what they printed, and the seconds."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-o",
            "addopts=",
            "-p",
            "no:cacheprovider",
            *arguments,
        ]
        started = time.monotonic()
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return "slow", "", limit
        seconds = time.monotonic() - started
        return ("missed" if done.returncode in (0, 5) else "caught"), done.stdout + done.stderr, seconds

    def judge(
        self, mutant: Mutant, commands: Sequence[Sequence[str]], limits: Mapping[str, float]
    ) -> dict[str, Any]:
        """Make the mistake, run the tests, take it back."""
        target = self.folder / mutant.path
        before = target.read_text("utf-8")
        code = mutant.code(ROOT)
        told: dict[str, Any] = {"mutant": mutant.name, "file": mutant.path, **_difference(before, code)}
        target.write_text(code, "utf-8")
        try:
            spent = 0.0
            for arguments in commands:
                outcome, output, seconds = self.pytest(arguments, limits[" ".join(arguments)])
                spent += seconds
                if outcome != "missed":
                    by = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M)
                    crash = CRASH.search(output)
                    told |= {
                        "outcome": outcome,
                        "by": by[0] if by else arguments[0],
                        "crash": crash[1] if crash else "",
                    }
                    break
            else:
                told["outcome"] = "survived"
            told["seconds"] = round(spent, 1)
        finally:
            target.write_text(before, "utf-8")
        return told


def _difference(before: str, after: str) -> dict[str, str]:
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))[3:]
    was = [line[1:].strip() for line in lines if line.startswith("-")]
    now = [line[1:].strip() for line in lines if line.startswith("+")]
    return {"was": "\n".join(was), "is": "\n".join(now)}


def chosen(options: argparse.Namespace) -> list[tuple[Area, Mutant]]:
    """The sample, the same for the same seed and sources."""
    draw = random.Random(options.seed)
    if options.changed:
        wanted = {"": changed(options.changed)}
    else:
        wanted = {name: modules(name) for name in ([options.area] if options.area else areas())}
    total = sum(len(paths) > 0 for paths in wanted.values())
    found: list[tuple[Area, Mutant]] = []
    for done, paths in enumerate(paths for paths in wanted.values() if paths):
        share = (options.sample * (done + 1)) // total - (options.sample * done) // total
        for mutant in sample(ROOT, paths, share, draw):
            area = area_of(mutant.path)
            assert area is not None
            found.append((area, mutant))
    draw.shuffle(found)  # so that what is done of a run that was stopped stands for all
    return found


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Caught of tried, per area, and what survived."""
    lines = ["| area | mutants | caught | by a crash alone | survived |", "|---|---|---|---|---|"]
    names = [*dict.fromkeys(one["area"] for one in results), "all"]
    for name in names:
        rows = [one for one in results if name in (one["area"], "all") and one["outcome"] != "equivalent"]
        lost = sum(one["outcome"] == "survived" for one in rows)
        crashed = sum(bool(one.get("crash")) for one in rows)
        share = f"{(len(rows) - lost) / len(rows):.0%}" if rows else "-"
        lines.append(f"| {name} | {len(rows)} | {len(rows) - lost} ({share}) | {crashed} | {lost} |")
    lines += [
        "",
        *(f"{o['mutant']}\n  - {o['was']}\n  + {o['is']}" for o in results if o["outcome"] == "survived"),
    ]
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=20, help="how many mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--area", choices=sorted(areas()))
    parser.add_argument("--changed", metavar="COMMIT", help="only files that differ from it")
    parser.add_argument("--quick", action="store_true", help="only the tests marked quick")
    parser.add_argument("--out", type=Path, help="a JSON line per mutant; what is there is not run again")
    parser.add_argument("--list", action="store_true", help="print the sample and stop")
    parser.add_argument("--at-least", type=float, default=0, metavar="PERCENT")
    options = parser.parse_args()
    pairs = chosen(options)
    if options.list:
        for _, mutant in pairs:
            print(mutant.name, _difference((ROOT / mutant.path).read_text("utf-8"), mutant.code(ROOT)))
        return 0
    results = (
        [json.loads(line) for line in options.out.read_text("utf-8").splitlines()]
        if _exists(options.out)
        else []
    )
    known, same = {one["mutant"] for one in results}, equivalents()
    limits: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder))
        for number, (area, mutant) in enumerate(pairs, 1):
            if mutant.name in known:
                continue
            commands = [[*one, "-m", "quick"] if options.quick else one for one in area.commands()]
            for arguments in commands:
                key = " ".join(arguments)
                if key not in limits:  # what the tests take, and that they pass, where nothing is wrong
                    outcome, output, seconds = copy.pytest(arguments, 3600)
                    if outcome == "caught":
                        print(f"{key}: fails where nothing is wrong\n{output[-2000:]}", file=sys.stderr)
                        return 1
                    limits[key] = 60 + 5 * seconds
            told = {"area": area.name, **copy.judge(mutant, commands, limits)}
            if told["outcome"] == "survived" and (told["file"], told["was"], told["is"]) in same:
                told["outcome"] = "equivalent"
            results.append(told)
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as kept:
                    kept.write(json.dumps(told) + "\n")
            print(
                f"{number}/{len(pairs)} {told['outcome']:10} {told['seconds']:6.1f} s  {mutant.name}",
                flush=True,
            )
    print(table(results))
    counted = [one for one in results if one["outcome"] != "equivalent"]
    caught = sum(one["outcome"] != "survived" for one in counted)
    return int(bool(counted) and 100 * caught < options.at_least * len(counted))


def _exists(path: Path | None) -> bool:
    return path is not None and path.exists()


if __name__ == "__main__":
    sys.exit(main())
