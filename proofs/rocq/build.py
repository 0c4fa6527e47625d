"""Compile the proofs, ask Coq what was proved and from what, check it again, and compare with the lock.

    python proofs/rocq/build.py              compile, print assumptions, coqchk -norec, compare with the lock
    python proofs/rocq/build.py --write      the same, and write the lock
    python proofs/rocq/build.py --full       coqchk on the standard library too
    python proofs/rocq/build.py --mutations  break statements, definitions and instances: each must be rejected

Needs `coqc` and `coqchk` (Debian: apt-get install coq, with libcoq-stdlib since Rocq 9), and nothing of Python but the
standard library.  Every program is run by itself, so that no exit status is lost.  Exit code 0: as expected; 1: not; 2:
no Coq.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LOCK = HERE.parent / "popek_proofs" / "rocq.lock.json"
LIBRARY = "Popek"
CLOSED = "Closed under the global context"
STANDARD = (
    "Coq.",
    "Stdlib.",
    "Corelib.",
)  # what the standard library's modules begin with; the last two since Rocq 9
# What a proof must not contain: Print Assumptions would tell, but not of a lemma that nobody uses.
FORBIDDEN = re.compile(
    r"\b(Admitted|admit|Axiom|Axioms|Parameter|Parameters|Conjecture|Unset\s+(Guard|Positivity|Universe)\s+Checking"
    r"|bypass_check|Declare\s+ML\s+Module|type-in-type)\b"
)


class RejectedError(Exception):
    """Coq, its checker or the lock says no."""


def sources(folder: Path) -> list[str]:
    """The files of `_CoqProject`, in the order in which they are read and compiled."""
    lines = (folder / "_CoqProject").read_text(encoding="utf-8").splitlines()
    named = [line.strip() for line in lines if line.strip().endswith(".v")]
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*.v")}
    if present != set(named):
        raise RejectedError(f"_CoqProject and the folder differ: {sorted(present ^ set(named))}")
    return named


def module(source: str) -> str:
    """`Instances/Recursive.v` is `Popek.Instances.Recursive`."""
    return f"{LIBRARY}.{source.removesuffix('.v').replace('/', '.')}"


def run(command: list[str], folder: Path) -> str:
    """What a program prints.

    Raises:
        RejectedError: it fails, with what it printed.
    """
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise RejectedError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout.strip()}")
    return done.stdout


def code_of(text: str) -> str:
    """A source without its comments, which nest."""
    kept, depth, rest = [], 0, text
    for part in re.split(r"(\(\*|\*\))", rest):
        if part == "(*":
            depth += 1
        elif part == "*)":
            depth -= 1
        elif depth == 0:
            kept.append(part)
    return "".join(kept)


def compile_all(folder: Path, names: list[str], tell: bool = True) -> None:
    """Compile in order."""
    for name in names:
        found = FORBIDDEN.search(code_of((folder / name).read_text(encoding="utf-8")))
        if found:
            raise RejectedError(f"{name}: {found.group(0)}")
        if tell:
            print(f"coqc {name}", file=sys.stderr, flush=True)
        run(["coqc", "-q", "-w", "+default,-deprecated", "-Q", ".", LIBRARY, name], folder)


def version() -> str:
    """Coq's version."""
    found = re.search(r"version (\S+)", run(["coqc", "--version"], HERE))
    if found is None:
        raise RejectedError("coqc does not say its version")
    return found.group(1)


def asked(folder: Path, names: list[str], questions: dict[str, list[str]]) -> dict[str, str]:
    """What Coq answers to commands, each written to a file of its own by Coq."""
    lines = [f"Require {module(name)}." for name in names]
    lines += [f"Import {module(name)}." for name in names]
    lines += ["Set Printing Width 100.", "Set Printing Depth 1000."]
    for key, commands in questions.items():
        lines += [f'Redirect "{key}" {command}' for command in commands]
    (folder / "questions.v").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run(["coqc", "-q", "-w", "-all", "-Q", ".", LIBRARY, "questions.v"], folder)
    answers = {key: (folder / f"{key}.out").read_text(encoding="utf-8").strip() for key in questions}
    for key in questions:
        (folder / f"{key}.out").unlink()
    (folder / "questions.v").unlink()
    return answers


def ask(folder: Path, names: list[str], top: dict[str, Any]) -> dict[str, Any]:
    """Statements and assumptions of the top theorems, and the definitions that they are made of."""
    questions: dict[str, list[str]] = {}
    for name in top["theorem"]:
        questions[f"says.{name}"] = [f"Check {LIBRARY}.{name}."]
        questions[f"from.{name}"] = [f"Print Assumptions {LIBRARY}.{name}."]
    defined = [f"Premises.{name}" for name in top["premises"]["names"]] + top["premises"]["definitions"]
    for name in defined:
        questions[f"term.{name}"] = [f"Print {LIBRARY}.{name}."]
    answers = asked(folder, names, questions)
    theorems = []
    for name, about in top["theorem"].items():
        assumptions = answers[f"from.{name}"]
        if assumptions != CLOSED:
            raise RejectedError(f"{name} rests on\n{assumptions}")
        statement = answers[f"says.{name}"]
        theorems.append(
            {"name": name, "says": about["says"], "statement": statement, "assumptions": assumptions}
        )
    return {
        "theorems": theorems,
        "premises": {name: answers[f"term.Premises.{name}"] for name in top["premises"]["names"]},
        "definitions": {name: answers[f"term.{name}"] for name in top["premises"]["definitions"]},
    }


def check_again(folder: Path, names: list[str], full: bool) -> str:
    """`coqchk` on the compiled files, by its own small kernel; with `full`, on the standard library too.

    Without it what the standard library says is believed, and its sealed modules are listed as axioms.
    """
    modules = [module(name) for name in names]
    chosen = modules if full else [word for name in modules for word in ("-norec", name)]
    said = run(["coqchk", "-silent", "-o", "-Q", ".", LIBRARY, *chosen], folder)
    axioms = re.search(r"\* Axioms:(.*?)\n\s*\n", said + "\n\n", re.DOTALL)
    if axioms is None:
        raise RejectedError(f"coqchk says nothing of axioms:\n{said}")
    ours = [line.strip() for line in axioms.group(1).splitlines() if line.strip() not in ("", "<none>")]
    if full and ours:
        raise RejectedError(f"axioms: {ours}")
    if any(not name.startswith(STANDARD) for name in ours):
        raise RejectedError(f"axioms of our own: {ours}")
    for what in ("type-in-type", "unsafe (co)fixpoints", "positivity is assumed"):
        if not re.search(re.escape(what) + r":\s*<none>", said):
            raise RejectedError(f"coqchk: {what}\n{said}")
    return "no axioms, standard library included" if full else "no axioms, standard library believed"


def hashes(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of each file."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def copied(into: Path, names: list[str]) -> None:
    """The sources in another folder, so that nothing compiled is left in the checkout."""
    for name in names:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / name, into / name)


def build(full: bool) -> dict[str, Any]:
    """Compile, ask, check: the lock of what is here."""
    names = sources(HERE)
    top = tomllib.loads((HERE / "top.toml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copied(folder, names)
        compile_all(folder, names)
        found = ask(folder, names, top)
        checked = check_again(folder, names, full)
    print(f"coqchk: {checked}", file=sys.stderr)
    return {"schema": "popek/rocq-lock/1", "coq": version(), "files": hashes(HERE, names), **found}


def mutate() -> list[str]:
    """Replay every mutation: where another thing than expected rejected it, or nothing."""
    names = sources(HERE)
    wrong = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copied(folder, names)
        compile_all(folder, names, tell=False)
        for number, mutation in enumerate(mutations(), 1):
            rejected = replay(folder, names, mutation)
            verdict = f"rejected by {rejected}" if rejected else "ACCEPTED"
            print(f"{number:2} {mutation['what']}: {verdict}", flush=True)
            if rejected != mutation["rejected_by"]:
                wrong.append(f"{mutation['what']}: {verdict}, expected {mutation['rejected_by']}")
    return wrong


def mutations() -> list[dict[str, str]]:
    """The deliberate mutations: each one substitution, and what rejects it."""
    text = (HERE / "mutations.toml").read_text(encoding="utf-8")
    found: list[dict[str, str]] = tomllib.loads(text)["mutation"]
    return found


def replay(compiled: Path, names: list[str], mutation: dict[str, str]) -> str:
    """File and lemma that reject a mutation, or the forbidden word; empty if nothing does.

    `compiled` has every file compiled, and is left as it is.
    """
    name = mutation["file"]
    text = (compiled / name).read_text(encoding="utf-8")
    if text.count(mutation["old"]) != 1:
        raise RejectedError(
            f"{mutation['what']}: the text to replace is there {text.count(mutation['old'])} times"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "mutant"
        shutil.copytree(compiled, folder)
        (folder / name).write_text(text.replace(mutation["old"], mutation["new"]), encoding="utf-8")
        for later in names[names.index(name) :]:
            try:
                compile_all(folder, [later], tell=False)
            except RejectedError as error:
                return f"{later}: {lemma_at(folder / later, str(error))}"
    return ""


def lemma_at(path: Path, error: str) -> str:
    """The lemma or definition in which Coq stopped; the word, if one was forbidden."""
    at = re.search(r", line (\d+)", error)
    if at is None:
        return error.rsplit(": ", 1)[-1]
    starts = r"\s*(?:Theorem|Lemma|Corollary|Example|Definition|Record|Fixpoint|Inductive|Instance)\s+(\w+)"
    for line in reversed(path.read_text(encoding="utf-8").splitlines()[: int(at.group(1))]):
        if found := re.match(starts, line):
            return found.group(1)
    return "?"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the lock")
    parser.add_argument("--full", action="store_true", help="coqchk on the standard library too")
    parser.add_argument("--mutations", action="store_true", help="replay the deliberate mutations")
    options = parser.parse_args()
    if shutil.which("coqc") is None or shutil.which("coqchk") is None:
        print("coqc and coqchk are not installed: apt-get install coq", file=sys.stderr)
        return 2
    try:
        if options.mutations:
            wrong = mutate()
            print("\n".join(wrong), file=sys.stderr)
            return 1 if wrong else 0
        lock = build(options.full)
    except RejectedError as error:
        print(error, file=sys.stderr)
        return 1
    if options.write:
        LOCK.write_text(json.dumps(lock, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    kept = json.loads(LOCK.read_text(encoding="utf-8"))
    # Another version may print a statement otherwise; what it is must be the same where the version is.
    differ = [
        key for key in lock if lock[key] != kept.get(key) and (key == "files" or lock["coq"] == kept["coq"])
    ]
    if differ:
        print(f"the lock has other {', '.join(differ)}: python proofs/rocq/build.py --write", file=sys.stderr)
        return 1
    print(f"{len(lock['theorems'])} theorems, {CLOSED.lower()}; {len(lock['files'])} files as in the lock")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
