"""What Coq proved, as the lock says: statements, assumptions, and of which files.

The theorems are in `proofs/rocq` of a checkout, which is not in the wheel; the lock is.  It was written by
`proofs/rocq/build.py` after Coq had compiled every file, printed each theorem's assumptions, and its checker had
gone through the result.  So a theorem can be stated where Coq is not installed; `compare` says whether the files of
a checkout are still the ones of the lock.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import attrs

SCHEMA: Final = "popek/rocq-lock/1"
CLOSED: Final = "Closed under the global context"


class LockError(Exception):
    """The lock is not one, or does not have what is asked for."""


@attrs.frozen
class Theorem:
    """One theorem.

    Attributes:
        name: file and name, as in `Theorem1.theorem_1`.
        says: what it says, in a sentence.
        statement: as Coq prints it.
        assumptions: as Coq prints them: "Closed under the global context" says that there are none.
    """

    name: str
    says: str
    statement: str
    assumptions: str

    @property
    def premises(self) -> tuple[str, ...]:
        """The premises A0 to A10 among its hypotheses, in order."""
        return tuple(dict.fromkeys(re.findall(r"\bA\d+s?_\w+", self.statement.partition(":")[2])))

    @property
    def closed(self) -> bool:
        """Whether it rests on no axiom."""
        return self.assumptions == CLOSED


@attrs.frozen
class Lock:
    """What was compiled and proved.

    Attributes:
        coq: version of Coq.
        files: SHA-256 of each file, in the order in which they are read.
        theorems: the top theorems by name.
        premises: A0 to A10 as Coq prints them, by name.
        definitions: the definitions that statements are made of, by name.
        sha256: of the lock itself.
    """

    coq: str
    files: Mapping[str, str]
    theorems: Mapping[str, Theorem]
    premises: Mapping[str, str]
    definitions: Mapping[str, str]
    sha256: str

    def theorem(self, name: str) -> Theorem:
        """A theorem by name, as in `Theorem1.theorem_1`.

        Raises:
            LockError: there is none of that name.
        """
        if name not in self.theorems:
            raise LockError(f"no theorem {name} in the lock; it has {', '.join(self.theorems)}")
        return self.theorems[name]

    def to_json(self, name: str) -> dict[str, object]:
        """What a verdict says of the theorem that it uses."""
        theorem = self.theorem(name)
        return {
            "name": theorem.name,
            "says": theorem.says,
            "assumptions": theorem.assumptions,
            "coq": self.coq,
            "lock": self.sha256,
        }


def read(text: str) -> Lock:
    """A lock from its text.

    Raises:
        LockError: it is no lock, of another schema, or has a theorem that rests on something.
    """
    try:
        data: dict[str, Any] = json.loads(text)
        if data["schema"] != SCHEMA:
            raise LockError(f"a lock of schema {data['schema']}, where {SCHEMA} was expected")
        theorems = {t["name"]: Theorem(**t) for t in data["theorems"]}
        lock = Lock(
            data["coq"],
            data["files"],
            theorems,
            data["premises"],
            data["definitions"],
            hashlib.sha256(text.encode()).hexdigest(),
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise LockError(f"not a lock of the proofs: {error}") from error
    open_ones = [theorem.name for theorem in theorems.values() if not theorem.closed]
    if open_ones:
        raise LockError(f"not proved outright: {', '.join(open_ones)}")
    return lock


@cache
def load() -> Lock:
    """The lock that popek was shipped with."""
    return read(files(__package__).joinpath("rocq.lock.json").read_text(encoding="utf-8"))


def checkout() -> Path | None:
    """Where the Coq files are; None where popek was installed from a wheel."""
    folder = Path(__file__).resolve().parent.parent / "rocq"
    return folder if (folder / "_CoqProject").is_file() else None


def compare(lock: Lock, folder: Path) -> list[str]:
    """What is in a folder of Coq files and not as the lock has it: one line per file, none if all is."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.v")}
    lines = [f"{name}: not in the lock" for name in sorted(found.keys() - lock.files.keys())]
    for name, digest in lock.files.items():
        if name not in found:
            lines.append(f"{name}: not there")
        elif hashlib.sha256(found[name].read_bytes()).hexdigest() != digest:
            lines.append(f"{name}: changed since the lock was written")
    return lines
