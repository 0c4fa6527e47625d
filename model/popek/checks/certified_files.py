"""The folder of a verification, which another person can check with standard tools alone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from popek.solving import proof_checker
from popek.solving.certificate import ASSIGNMENTS

from .ladder import NOT_WANTED

QUESTIONS = "questions"


class FolderError(OSError):
    """A folder that cannot be used; the message says why."""


@attrs.frozen
class Files:
    """Texts, clauses, proofs and results by the hash of the text.

    Attributes:
        folder: where.
    """

    folder: Path

    @staticmethod
    def name_of(text: str) -> str:
        """The SHA-256 of a text."""
        return hashlib.sha256(text.encode()).hexdigest()

    def begin(self) -> None:
        """Make the folder, with how to check what will be in it.

        Raises:
            FolderError: it holds something else, or cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            others = {entry.name for entry in self.folder.iterdir()} - {QUESTIONS, *_WRITTEN}
            if others:
                raise FolderError(f"{self.folder}: holds {min(others)}, which is no part of a verification")
            (self.folder / QUESTIONS).mkdir(exist_ok=True)
            self._write(self.folder / "proof_checker.py", Path(proof_checker.__file__).read_text("utf-8"))
            self._write(self.folder / "README.md", _README.format(assignments=ASSIGNMENTS))
        except FolderError:
            raise
        except OSError as error:
            raise FolderError(f"{self.folder}: {error.strerror}") from None

    def kept(self, text: str, *, certified: bool) -> dict[str, Any] | None:
        """What an earlier run found; None where it is not there, not whole, or less than is wanted."""
        name = self.name_of(text)
        try:
            found: dict[str, Any] = json.loads(self._path(name, ".json").read_text(encoding="utf-8"))
            hashes = found["files"]
            whole = all(
                hashlib.sha256(self._path(name, ending).read_bytes()).hexdigest() == value
                for ending, value in hashes.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if not whole or hashes.get(".smt2") != name or set(found) != _KEYS or found["wrong"]:
            return None
        if found["certified"] and not {".cnf", ".drat"} <= hashes.keys():
            return None
        return None if certified and not found["certified"] and found["why"] == NOT_WANTED else found

    def keep(self, texts: Mapping[str, str], found: Mapping[str, Any]) -> None:
        """Write what belongs to one question; its result comes last, so that a run can be stopped at any time.

        Args:
            texts: question, and clauses and proof if there are any, by how the files' names end.
            found: the result.
        """
        name = self.name_of(texts[".smt2"])
        for ending, content in texts.items():
            self._write(self._path(name, ending), content)
        self._write(self._path(name, ".json"), json.dumps(found, sort_keys=True) + "\n")

    def finish(self, summary: dict[str, Any], questions: Sequence[tuple[str, str, bool]]) -> None:
        """Write the summary and the list of questions."""
        rows = [
            f"{'certified' if certified else 'not certified'}\t{sha256[:16]}\t{one}\n"
            for one, sha256, certified in questions
        ]
        self._write(self.folder / "questions.tsv", "".join(rows))
        self._write(self.folder / "summary.json", json.dumps(summary, indent=2, sort_keys=True) + "\n")

    def _path(self, name: str, ending: str) -> Path:
        return self.folder / QUESTIONS / f"{name[:16]}{ending}"

    @staticmethod
    def _write(path: Path, text: str) -> None:
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


_KEYS = {"sha256", "solvers", "certified", "why", "wrong", "figures", "files", "seconds"}
_WRITTEN = ("README.md", "proof_checker.py", "questions.tsv", "summary.json")
_README = """\
# Questions that have no answer, and proofs of it

Answers of popek ("no, it is not in this class", "the promise is kept", "the premise holds") rest on the questions that
are here being unsatisfiable.  Nothing of popek is needed to check that.

| file | what it is |
|---|---|
| `questions/NAME.smt2` | the question, in SMT-LIB 2; NAME is how the file's SHA-256 begins |
| `questions/NAME.cnf` | the same as clauses, in DIMACS format; comments name the variables of each input's bits |
| `questions/NAME.drat` | a proof that the clauses contradict one another, in DRAT's text format |
| `questions/NAME.json` | what was found, with the SHA-256 of each file |
| `questions.tsv` | after `popek verify`: each answer: certified or not, the name of its question, what it is about |
| `summary.json` | after `popek verify`: the figures, and what is not certified and why |
| `proof_checker.py` | one short Python file that checks proofs; it imports nothing but Python's own |

## Ask another solver

Any solver that reads SMT-LIB 2 should say `unsat` to every question; this names those where it does not:

    for f in questions/*.smt2; do z3 "$f" | grep -qx unsat || echo "$f"; done      # or cvc5, or bitwuzla

## Check the proofs

With drat-trim (https://github.com/marijnheule/drat-trim; newer Debians package it), or with the file that lies here; a
SAT solver can refute the clauses without a proof.  Each loop names what is not accepted:

    for f in questions/*.cnf; do cadical -q "$f" | grep -qx "s UNSATISFIABLE" || echo "$f"; done
    for f in questions/*.cnf; do drat-trim "$f" "${{f%.cnf}}.drat" | grep -q "s VERIFIED" || echo "$f"; done
    for f in questions/*.cnf; do python3 proof_checker.py "$f" "${{f%.cnf}}.drat" >/dev/null || echo "$f"; done

## What is not proved

That the clauses say what the SMT-LIB text says.  popek read the text back and compared it with its own terms node by
node, and compared all bits of all subterms with what the terms are worth on {assignments} assignments per question,
random and at the boundaries.  Whoever wants more makes clauses from `NAME.smt2` with another tool, and refutes those.

Two applications of one function are tied (equal arguments, equal values) only where that is needed: clauses that are
left out could only make it harder to refute the rest.

That the questions are the right ones is not proved either: that is what popek's semantics, its laws and its comparisons
with emulators are for.
"""


__all__ = ["Files", "FolderError"]
