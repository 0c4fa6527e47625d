"""drat-trim, where it is installed: the checker of proofs that the SAT competitions use (Wetzler, Heule, Hunt 2014).

It is asked about long proofs, which take `proof_checker` half a minute each.  Both files are the same for either.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from .proof_checker import ProofError

PROGRAM: Final = "drat-trim"


def available() -> bool:
    """Whether it is installed."""
    return shutil.which(PROGRAM) is not None


def check(cnf: str, proof: str) -> int:
    """How many steps of a proof were needed, and checked.

    Args:
        cnf: in DIMACS format.
        proof: in DRAT's text format.

    Raises:
        ProofError: it does not refute the CNF.
        OSError: the program cannot be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "question.cnf"), Path(folder, "question.drat")
        for path, text in zip(paths, (cnf, proof), strict=True):
            path.write_text(text, encoding="utf-8")
        done = subprocess.run([PROGRAM, *map(str, paths)], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or "s VERIFIED" not in lines:
        said = [line for line in lines if line.startswith("s ")] or lines[-1:] or [done.stderr.strip()]
        raise ProofError(f"{PROGRAM} says {said[-1]!r}")
    needed = re.search(r"^c (\d+) of \d+ lemmas in core", done.stdout, re.MULTILINE)
    return int(needed.group(1)) if needed else 0


__all__ = ["PROGRAM", "available", "check"]
