"""Claims: what a publication says of a machine, checked against the semantics.

A claim is a TOML file: who says what, of which machine under which technique, and what we expect to find.
Its verdict is that of its statement; each row is a statement about one instruction.  `expected` is what an
earlier check of ours found; where it is not what the publication says, the row's `note` says why.

One module, though long: the kinds of rows that a claim may have, and how each is asked.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import cattrs
from cattrs.errors import ClassValidationError
from cattrs.gen import make_dict_structure_fn
from cattrs.v import format_exception, transform_error

from popek.checks.ladder import Ladder
from popek.checks.verdict import Status, Truth
from popek.errors import PopekError
from popek.kernel.configuration import SettingError, numbered
from popek.kernel.machine import Machine, UnknownNameError
from popek.machines import MachineFileError
from popek.machines import machine as find_machine

THEOREM_1 = "Theorem 1: every sensitive instruction is privileged"
THEOREM_3 = "Theorem 3: every user-sensitive instruction is privileged"
PREMISES = {THEOREM_1: "critical", THEOREM_3: "user_critical"}
PROMISES = {"faithful": "fidelity", "safe": "safety"}
ADJECTIVES = (
    "critical",
    "privileged",
    "innocuous",
    "sensitive",
    "control-sensitive",
    "location-sensitive",
    "mode-sensitive",
    "resource-sensitive",
    "user-sensitive",
    "user-critical",
    "faithful",
    "safe",
)
STATEMENTS = tuple(f"{sign}{adjective}" for adjective in ADJECTIVES for sign in ("", "not "))


class ClaimError(PopekError):
    """A claims file that cannot be used; the message names file, key and what was expected."""


@attrs.frozen
class RowClaim:
    """A statement about one instruction.

    Attributes:
        subject: a mnemonic, which stands for all of its forms, or one form.
        statement: one of `STATEMENTS`; said of a mnemonic, "critical" and the like mean some form, and
            "not critical", "privileged", "innocuous", "faithful" and "safe" mean every form.
        expected: the verdict we expect.
    """

    subject: str
    statement: str
    expected: Status
    source: str = ""
    confidence: str = ""
    note: str = ""


@attrs.frozen
class Claim:
    """What a publication says of a machine.

    Attributes:
        id: stable.
        title, source, statement: for people; a statement of `PREMISES` is checked as such, any other holds
            when every row does.
        machine, technique, configuration: of what it speaks; a file may give a setting's value as its label.
        expected: the verdict we expect.
        time_is_state: count clocks as resources.
        note: what a reader should know.
    """

    id: str
    title: str
    source: str
    statement: str
    machine: str | Machine[Any]
    expected: Status
    technique: str | None = None
    configuration: Mapping[str, int | str] = attrs.field(factory=dict)
    rows: tuple[RowClaim, ...] = ()
    time_is_state: bool = False
    note: str = ""

    @property
    def machine_name(self) -> str:
        """The machine as the claim spells it, or the name of the machine itself."""
        return self.machine if isinstance(self.machine, str) else self.machine.name


@attrs.frozen
class RowVerdict:
    """What became of a row.

    Attributes:
        forms: the answer per form.
        witness: of sensitivity, where the row speaks of a class.
        breach: how a promise is broken, where the row speaks of one.
    """

    claim: RowClaim
    verdict: Status
    forms: Mapping[str, Truth]
    witness: Mapping[str, Any] | None
    breach: str = ""

    @property
    def unexpected(self) -> bool:
        """Whether it turned out otherwise; unknown is not otherwise."""
        return self.verdict is not Status.UNKNOWN and self.verdict is not self.claim.expected

    def to_json(self) -> dict[str, object]:
        """A row of `popek/claims/1`."""
        evidence: dict[str, object] = {
            "forms": {form: truth.value for form, truth in self.forms.items()},
            "witness": self.witness,
        }
        if self.breach:
            evidence["breach"] = self.breach
        return {
            "subject": self.claim.subject,
            "statement": self.claim.statement,
            "source": self.claim.source,
            "confidence": self.claim.confidence,
            "note": self.claim.note,
            "verdict": self.verdict.value,
            "expected": self.claim.expected.value,
            "evidence": evidence,
        }


@attrs.frozen
class ClaimVerdict:
    """What became of a claim.

    Attributes:
        others: critical mnemonics that no row names.
        critical, forms: how many mnemonics and forms are critical.
        ladder: how far the evidence goes.
    """

    claim: Claim
    verdict: Status
    rows: tuple[RowVerdict, ...]
    others: tuple[str, ...]
    critical: int
    forms: int
    seconds: float
    ladder: Ladder = attrs.field(factory=lambda: Ladder(()), eq=False)

    @property
    def unexpected(self) -> bool:
        """Whether it, or a row of it, turned out otherwise."""
        otherwise = self.verdict is not Status.UNKNOWN and self.verdict is not self.claim.expected
        return otherwise or any(row.unexpected for row in self.rows)

    @property
    def unknown(self) -> bool:
        """Whether something could not be decided."""
        return Status.UNKNOWN in (self.verdict, *(row.verdict for row in self.rows))

    def to_json(self) -> dict[str, object]:
        """An entry of `popek/claims/1`."""
        return {
            "id": self.claim.id,
            "title": self.claim.title,
            "source": self.claim.source,
            "statement": self.claim.statement,
            "machine": self.claim.machine_name,
            "technique": self.claim.technique,
            "configuration": dict(self.claim.configuration),
            "verdict": self.verdict.value,
            "expected": self.claim.expected.value,
            "critical_mnemonics": self.critical,
            "critical_forms": self.forms,
            "critical_not_named": list(self.others),
            "rows": [row.to_json() for row in self.rows],
            "ladder": self.ladder.to_json(),
        }


# -- reading --------------------------------------------------------------------------------------


def shipped() -> dict[str, Claim]:
    """The claims that come with popek, by id.

    Raises:
        ClaimError: a defect of popek.
    """
    return {claim.id: claim for claims in _by_file().values() for claim in claims}


def _by_file() -> dict[str, list[Claim]]:
    """The claims that come with popek, by the name of their file without its ending."""
    folder = resources.files("popek_specs") / "claims"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): parse(f.read_text(encoding="utf-8"), f.name) for f in files}


def select(names: Sequence[str]) -> list[Claim]:
    """The claims that ids and files name; all that come with popek when none is named.

    Raises:
        ClaimError: no such claim, or a file that cannot be used.
    """
    known = shipped()
    if not names:
        return list(known.values())
    chosen: list[Claim] = []
    for name in names:
        if name in known:
            chosen.append(known[name])
        elif name.endswith(".toml") or "/" in name or Path(name).exists():
            chosen += read(Path(name))
        else:
            same = " or ".join(claim.id for claim in _by_file().get(name, ()))
            if same:
                raise ClaimError(f"unknown claim {name!r}; did you mean {same}?")
            about = [one for one in known if one.split(".")[0] == name.replace("-", ".").split(".")[0]]
            hint = _nearest(name, known) or "; known: " + ", ".join(about or known)
            raise ClaimError(f"unknown claim {name!r}{hint}")
    return chosen


def read(path: Path) -> list[Claim]:
    """The claims of a file.

    Raises:
        ClaimError: it cannot be read or used.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ClaimError(f"{path}: {reason}") from None
    return parse(text, str(path))


def parse(text: str, file: str, machine: Machine[Any] | None = None) -> list[Claim]:
    """The claim of a TOML text, or those of its `[[claims]]`.

    Args:
        text: the content of a claims file.
        file: its name, for messages.
        machine: what the claims speak of, whatever machine they name.

    Raises:
        ClaimError: with file, key and what was expected.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ClaimError(f"{file}: not TOML: {error}") from None
    several = data.get("claims")
    if several is None:
        return [_claim(data, file, "", machine)]
    if not isinstance(several, list) or len(data) != 1:
        raise ClaimError(f"{file}: claims: expected [[claims]] tables and nothing beside them")
    return [_claim(one, file, f"claims[{number}].", machine) for number, one in enumerate(several)]


def _claim(data: Mapping[str, Any], file: str, where: str, machine: Machine[Any] | None) -> Claim:
    if machine is not None and isinstance(data, Mapping):
        data = {**data, "machine": machine.name}
    _known_keys(data, Claim, file, where)
    rows = data.get("rows", [])
    if not isinstance(rows, list):
        raise ClaimError(f"{file}: {where}rows: expected [[rows]] tables, not {_quoted(rows)}")
    for number, row in enumerate(rows):
        _known_keys(row, RowClaim, file, f"{where}rows[{number}].")
    try:
        claim = _CONVERTER.structure(data, Claim)
    except ClassValidationError as error:
        first = transform_error(error, path="", format_exception=_expected)[0]
        reason, _, key = first.rpartition(" @ ")
        raise ClaimError(f"{file}: {where}{key.lstrip('.')}: {reason}") from None
    for key in ("id", "title", "source", "statement", "machine"):
        if not str(getattr(claim, key)).strip():
            raise ClaimError(f"{file}: {where}{key}: expected a text that is not empty")
    if claim.statement not in PREMISES:
        if near := difflib.get_close_matches(claim.statement, PREMISES, 1, 0.9):
            raise ClaimError(f"{file}: {where}statement: expected, word for word, {near[0]!r}")
        if not rows:
            raise ClaimError(
                f"{file}: {where}rows: expected [[rows]]; this statement holds when every row does"
            )
    return _checked(claim if machine is None else attrs.evolve(claim, machine=machine), file, where)


def _checked(claim: Claim, file: str, where: str) -> Claim:
    """The names in a claim, looked up."""
    name = claim.machine
    if isinstance(name, str) and name.endswith(".py") and not Path(name).is_absolute():
        name = str(Path(file).parent / name)
    key = "machine"
    try:
        machine = find_machine(name)
        key = "technique"
        machine.technique(claim.technique)
        key = "configuration"
        configuration = numbered(machine, claim.configuration)
        for number, row in enumerate(claim.rows):
            key = f"rows[{number}].subject"
            machine.find(row.subject)
            if row.statement not in STATEMENTS:
                hint = _nearest(row.statement, STATEMENTS) or f"; expected one of {', '.join(STATEMENTS)}"
                raise ClaimError(
                    f"{file}: {where}rows[{number}].statement: unknown statement {_quoted(row.statement)}{hint}"
                )
    except (UnknownNameError, SettingError, MachineFileError) as error:
        raise ClaimError(f"{file}: {where}{key}: {error}") from None
    return attrs.evolve(claim, machine=name, configuration=configuration)


def _quoted(value: object) -> str:
    """A value as a message quotes it."""
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _known_keys(data: object, kind: type, file: str, where: str) -> None:
    if not isinstance(data, Mapping):
        raise ClaimError(f"{file}: {where.rstrip('.')}: expected a table, not {type(data).__name__}")
    fields = attrs.fields(kind)
    known = [field.name for field in fields]
    for key in data:
        if key not in known:
            hint = _nearest(key, known) or f"; expected one of {', '.join(known)}"
            raise ClaimError(f"{file}: {where}{_cut(key)}: unknown key{hint}")
    for field in fields:
        if field.default is attrs.NOTHING and field.name not in data:
            raise ClaimError(f"{file}: {where}{field.name}: is missing; expected {_EXPECTED[field.name]}")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), 3, 0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


_EXPECTED = {
    "id": "a short stable name",
    "title": "a line for people",
    "source": "where it is published",
    "statement": "what is said",
    "machine": "a machine that `popek machines` lists, or a Python file",
    "expected": '"holds", "refuted" or "unknown"',
    "subject": "a mnemonic or a form",
}


def _expected(error: BaseException, kind: type | None) -> str:
    match error:
        case KeyError():
            return f"is missing; expected {_EXPECTED.get(str(error.args[0]), 'a value')}"
        case _StrictError():
            return str(error)
        case ValueError() if kind is Status:
            return f"expected {_EXPECTED['expected']}"
    return format_exception(error, kind)


class _StrictError(TypeError):
    """A value of another type."""


def _strict(kind: type, what: str) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise _StrictError(f"expected {what}, not {_quoted(value)}")
        return value

    return structure


def _number_or_label(value: Any, _: Any) -> int | str:
    if type(value) not in (int, str):
        raise _StrictError(f"expected a whole number or a label of the setting, not {_quoted(value)}")
    number_or_label: int | str = value
    return number_or_label


def _status(value: Any, _: Any) -> Status:
    try:
        return Status(value)
    except ValueError:
        raise _StrictError(f"expected {_EXPECTED['expected']}, not {_quoted(value)}") from None


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for kind, what in ((str, "a text"), (int, "a whole number"), (bool, "true or false")):
        converter.register_structure_hook(kind, _strict(kind, what))
    converter.register_structure_hook(Status, _status)
    converter.register_structure_hook(int | str, _number_or_label)
    # A file names its machine; `parse` puts a machine itself in the place of the name.
    converter.register_structure_hook(str | Machine[Any], _strict(str, "a text"))
    for cls in (RowClaim, Claim):
        converter.register_structure_hook(cls, make_dict_structure_fn(cls, converter))
    return converter


_CONVERTER = _converter()
