"""Check that a proof refutes a CNF.  One file that needs nothing but Python, so that it can be read whole and copied.

    python proof_checker.py QUESTION.cnf QUESTION.drat

The CNF is in DIMACS format, the proof in DRAT's text format: a clause a line, which follows by unit propagation (RUP),
or else keeps satisfiable what is there because of its first literal (RAT); `d` deletes a clause; the last is the empty
clause.  The proof is read to the first contradiction, and checked from there backwards; what nothing later needs is
passed over, and so is the deletion of a clause that implies a literal, as in drat-trim (Wetzler, Heule, Hunt 2014).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

Clause = list[int]
Step = tuple[bool, Clause]  # whether it is deleted

ASSUMED = -1  # the reason of a literal that has none


class ProofError(ValueError):
    """A file that is no CNF or no proof, or a proof that does not refute; the message says where and why."""


def parse_cnf(text: str) -> tuple[int, list[Clause]]:
    """The number of variables and the clauses of a DIMACS file; ProofError where it is none, or not whole."""
    lines = [line for line in text.split("\n") if line and not line.startswith("c")]
    header = lines[0].split() if lines else []
    if len(header) != 4 or header[:2] != ["p", "cnf"] or not (header[2] + header[3]).isdigit():
        raise ProofError("no CNF: expected a line 'p cnf VARIABLES CLAUSES'")
    variables, count = int(header[2]), int(header[3])
    clauses = [_numbers(line, f"clause {number}") for number, line in enumerate(lines[1:], 1)]
    if len(clauses) != count:
        raise ProofError(f"the CNF announces {count} clauses and has {len(clauses)}")
    for number, clause in enumerate(clauses, 1):
        if clause and max(map(abs, clause)) > variables:
            raise ProofError(f"clause {number} has a variable above {variables}")
    return variables, clauses


def parse_proof(text: str) -> list[Step]:
    """The steps of a DRAT file in text format; ProofError where it is none, or not whole."""
    steps: list[Step] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.startswith("c"):
            continue
        deletes = line.startswith("d")
        clause = _numbers(line[1:] if deletes else line, f"step {number}")
        literals = set(clause)
        if any(-literal in literals for literal in clause):
            raise ProofError(f"step {number} is a tautology")
        steps.append((deletes, clause))
    if not steps or steps[-1] != (False, []):
        raise ProofError("the proof does not end with the empty clause")
    return steps


def _numbers(line: str, where: str) -> Clause:
    try:
        numbers = list(map(int, line.split()))
    except ValueError:
        raise ProofError(f"{where}: expected numbers, not {line[:40]!r}") from None
    if not numbers or numbers.pop() != 0 or 0 in numbers:
        raise ProofError(f"{where}: expected one 0, at its end")
    return numbers


class _Checker:
    """Clauses with two watched literals each; literals index values and watches, a negative one from the end."""

    def __init__(self, variables: int, cnf: Sequence[Clause]) -> None:
        size = 2 * variables + 1
        self.values = [0] * size  # 1 true, -1 false
        self.watches: list[list[int]] = [[] for _ in range(size)]
        self.reasons = [ASSUMED] * (variables + 1)
        self.places = [0] * (variables + 1)  # on the trail
        self.trail: list[int] = []
        self.head = 0
        self.clauses: list[Clause] = []
        self.pivots: list[int] = []
        self.active = bytearray()
        self.needed = bytearray()
        self.told = bytearray(variables + 1)  # whose reasons are noted as needed
        self.variables = variables
        self.conflict = ASSUMED
        for clause in cnf:
            if self.conflict == ASSUMED:
                self.conflict = self.add(clause)
        if self.conflict == ASSUMED:
            self.conflict = self.propagate()

    def add(self, clause: Clause) -> int:
        """Take up a clause; its number if it is false already."""
        number = len(self.clauses)
        literals = list(dict.fromkeys(clause))
        self.clauses.append(literals)
        self.pivots.append(literals[0] if literals else 0)
        self.active.append(1)
        self.needed.append(0)
        return self.attach(number)

    def attach(self, number: int) -> int:
        """Watch two literals that are not false, or those that became so last; the number if all are false."""
        literals, values, places = self.clauses[number], self.values, self.places
        if not literals:
            return number
        if len(literals) == 1:
            literals = self.clauses[number] = literals * 2
        if values[literals[0]] < 0 or values[literals[1]] < 0:
            literals.sort(key=lambda x: (values[x] >= 0, places[abs(x)]), reverse=True)
        first, second = literals[0], literals[1]
        self.watches[first].append(number)
        if second != first:
            self.watches[second].append(number)
        if values[first] < 0:
            return number
        if values[first] == 0 and (values[second] < 0 or second == first):
            self.assign(first, number)
        return ASSUMED

    def implies(self, number: int) -> int:
        """The literal that a clause is the reason of, or 0."""
        for literal in self.clauses[number][:2]:
            if self.values[literal] > 0 and self.reasons[abs(literal)] == number:
                return literal
        return 0

    def assign(self, literal: int, reason: int) -> None:
        variable = abs(literal)
        self.values[literal], self.values[-literal] = 1, -1
        self.reasons[variable], self.places[variable] = reason, len(self.trail)
        self.trail.append(literal)

    def cut(self, length: int) -> None:
        """Take back what was assigned last."""
        for literal in self.trail[length:]:
            self.values[literal] = self.values[-literal] = 0
            self.told[abs(literal)] = 0
        del self.trail[length:]
        self.head = length

    def propagate(self) -> int:
        """Assign what follows; the number of a clause that became false, or none."""
        values, clauses, watches, active, trail = (
            self.values,
            self.clauses,
            self.watches,
            self.active,
            self.trail,
        )
        while self.head < len(trail):
            false = -trail[self.head]
            self.head += 1
            watching = watches[false]
            kept: list[int] = []
            for position, number in enumerate(watching):
                literals = clauses[number]
                if not active[number]:
                    continue
                if literals[0] == false:
                    literals[0], literals[1] = literals[1], false
                elif literals[1] != false:  # it went elsewhere while it was deleted
                    continue
                other = literals[0]
                if values[other] > 0:
                    kept.append(number)
                    continue
                for place in range(2, len(literals)):
                    literal = literals[place]
                    if values[literal] >= 0:
                        literals[1], literals[place] = literal, false
                        watches[literal].append(number)
                        break
                else:
                    kept.append(number)
                    if values[other] < 0:
                        watches[false] = kept + watching[position + 1 :]
                        return number
                    self.assign(other, number)
            watches[false] = kept
        return ASSUMED

    def note(self, reason: int) -> None:
        """A clause is needed, if there is one, and all that made its literals false or true."""
        pending = [reason]
        while pending:
            number = pending.pop()
            if number == ASSUMED:
                continue
            self.needed[number] = 1
            for variable in map(abs, self.clauses[number]):
                if self.values[variable] and not self.told[variable]:
                    self.told[variable] = 1
                    pending.append(self.reasons[variable])

    def read(self, steps: Sequence[Step]) -> list[tuple[bool, int]]:
        """Follow the steps up to the first contradiction: what was done, and to which clause."""
        done: list[tuple[bool, int]] = []
        known: dict[frozenset[int], list[int]] = {}  # the active clauses by their literals
        for number, clause in enumerate(self.clauses):
            known.setdefault(frozenset(clause), []).append(number)
        for number, (deletes, clause) in enumerate(steps, 1):
            if self.conflict != ASSUMED:
                break
            if clause and max(map(abs, clause)) > self.variables:
                raise ProofError(f"step {number} has a variable above {self.variables}")
            if deletes:
                alike = known.get(frozenset(clause))
                if not alike:
                    raise ProofError(f"step {number} deletes a clause that is not there")
                if not self.implies(alike[-1]):
                    done.append((True, alike.pop()))
                    self.active[done[-1][1]] = 0
            elif clause:
                known.setdefault(frozenset(clause), []).append(len(self.clauses))
                done.append((False, len(self.clauses)))
                self.conflict = self.add(clause)
                if self.conflict == ASSUMED:
                    self.conflict = self.propagate()
        if self.conflict == ASSUMED:
            raise ProofError("the empty clause does not follow by unit propagation")
        return done

    def check(self, steps: Sequence[Step]) -> int:
        """The number of steps that were needed and checked."""
        done = self.read(steps)
        self.note(self.conflict)
        checked = 0
        for deleted, number in reversed(done):
            if deleted:
                self.active[number] = 1
                self.attach(number)
                continue
            implied = self.implies(number)
            if implied:
                self.cut(self.places[abs(implied)])
            self.active[number] = 0
            if self.needed[number]:
                checked += 1
                if not self.follows(number):
                    shown = " ".join(map(str, dict.fromkeys(self.clauses[number])))
                    raise ProofError(f"the clause {shown} does not follow")
        return checked

    def follows(self, number: int) -> bool:
        """Whether a clause follows from the active ones: by RUP, or else by RAT."""
        before = len(self.trail)
        try:
            if self._contradicted(self.clauses[number]):
                return True
            pivot, after = self.pivots[number], len(self.trail)
            for other in range(number):
                if self.active[other] and -pivot in self.clauses[other]:
                    rest = [literal for literal in self.clauses[other] if literal != -pivot]
                    if not self._contradicted(rest):
                        return False
                    self.needed[other] = 1
                    self.cut(after)
            return True
        finally:
            self.cut(before)

    def _contradicted(self, clause: Clause) -> bool:
        """Whether denying every literal leads to a contradiction by unit propagation."""
        for literal in clause:
            if self.values[literal] > 0:
                self.note(self.reasons[abs(literal)])
                return True
            if self.values[literal] == 0:
                self.assign(-literal, ASSUMED)
        conflict = self.propagate()
        self.note(conflict)
        return conflict != ASSUMED


def check(cnf: str, proof: str) -> int:
    """How many steps of a proof were needed, and checked; ProofError where it does not refute the CNF."""
    steps = parse_proof(proof)
    return _Checker(*parse_cnf(cnf)).check(steps)


def main(arguments: Sequence[str]) -> int:
    """Check two files; 0 if the proof refutes the CNF."""
    if len(arguments) != 2:
        print("expected: QUESTION.cnf QUESTION.drat", file=sys.stderr)
        return 2
    try:
        steps = check(*(Path(name).read_text(encoding="utf-8") for name in arguments))
    except (OSError, UnicodeDecodeError, ProofError) as error:
        print(f"not verified: {error}")
        return 1
    print(f"verified: {steps} steps were needed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
