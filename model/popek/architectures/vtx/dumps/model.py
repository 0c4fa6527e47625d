"""What a dump says: fields, what is reported beside them, and what was not understood."""

from __future__ import annotations

from collections.abc import Container, Mapping

import attrs

from popek.architectures.dump import DumpError as DumpError
from popek.architectures.dump import Remark as Remark
from popek.architectures.dump import printable as printable

from ..vmcs import Launch


@attrs.frozen
class Dump:
    """One VMCS as a text gave it. Fields that were not printed are absent, which means unknown, not zero.

    `fields` and `lines` (the line each field was read from) are keyed by field id. `reported` holds what
    is said beside the fields (header lines, saved registers, MSR lists), by snake-case name. `capabilities`
    is a preset name, a mapping as in the JSON input, or None. `entered` tells that the text says, beside the
    fields, that the last entry succeeded; `launch` what the processor does, where JSON says it; `areas` the
    entries of MSR areas that are listed whole.
    """

    name: str
    format: str
    line: int
    fields: Mapping[str, int]
    lines: Mapping[str, int] = attrs.field(factory=dict)
    reported: Mapping[str, str] = attrs.field(factory=dict)
    unrecognised: tuple[Remark, ...] = ()
    remarks: tuple[Remark, ...] = ()
    capabilities: str | Mapping[str, object] | None = None
    default: int | None = None
    memory: tuple[tuple[int, int, int], ...] = ()
    entered: bool = False
    launch: Launch | None = None
    areas: Mapping[str, tuple[tuple[int, int], ...]] = attrs.field(factory=dict)


@attrs.define
class DumpBuilder:
    """Collects one dump while a text is read."""

    format: str = ""
    line: int = 0
    fields: dict[str, int] = attrs.field(factory=dict)
    lines: dict[str, int] = attrs.field(factory=dict)
    implied: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    reported: dict[str, str] = attrs.field(factory=dict)
    unrecognised: list[Remark] = attrs.field(factory=list)
    remarks: list[Remark] = attrs.field(factory=list)
    capabilities: dict[str, object] = attrs.field(factory=dict)
    upper_halves: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    entered: bool = False
    amd: int = 0
    shows_guest: bool = True
    open_line: int = 0
    doubtful: frozenset[int] = frozenset()
    unended: frozenset[int] = frozenset()
    styles: Container[object] | None = None
    contradicted: dict[str, str] = attrs.field(factory=dict)
    listed: dict[str, dict[int, tuple[int, int]]] = attrs.field(factory=dict)

    @property
    def empty(self) -> bool:
        """Whether no field is known, not even indirectly."""
        return not (self.fields or self.implied or self.upper_halves)

    def set(self, field: str, value: int, line: int) -> None:
        """Record a printed field; of two different values neither is taken, and a remark names both lines."""
        if field in self.contradicted:
            return
        if field in self.fields:
            if self.fields[field] != value:
                earlier = self.fields.pop(field)
                self.contradicted[field] = "twice"
                self.remark(
                    line,
                    f"{field} is {value:#x} here but {earlier:#x} on line {self.lines.pop(field)}: neither is taken; "
                    "keep one dump per file, or separate them by a line '*** Guest State ***'",
                )
            return
        self.fields[field] = value
        self.lines[field] = line
        self.line = self.line or line

    def imply(self, field: str, value: int, line: int) -> None:
        """Record a value that follows from another line; a printed value of the field takes precedence."""
        self.implied[field] = (value, line)

    def may_go_on(self, number: str, line: int) -> bool:
        """Whether a number at the end of a line may have been cut; if so, a remark says so."""
        if line not in self.unended:
            return False
        self.remark(line, f"the number {number} may go on behind the end of the line: not read")
        return True

    def view(self, field: str, value: int, line: int) -> None:
        """Record what the guest sees of a field; of two different values neither is taken."""
        earlier = self.implied.get(field)
        if field in self.contradicted:
            return
        if earlier is not None and earlier[0] != value:
            del self.implied[field]
            self.contradicted[field] = "twice"
            self.remark(
                line, f"{field} is {value:#x} here but {earlier[0]:#x} on line {earlier[1]}: neither is taken"
            )
            return
        self.imply(field, value, line)

    def list_msr(self, count: str, place: int, index: int, value: int, line: int) -> None:
        """Record an entry of an MSR area; the field `count` follows from the last one, if nothing contradicts it."""
        entries = self.listed.setdefault(count, {})
        if entries.setdefault(place, (index, value)) != (index, value):
            self.contradicted[count] = "twice"
        self.imply(count, max(entries) + 1, line)

    def areas(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """The entries of the areas of which every one is listed."""
        return {
            count.removesuffix("_COUNT"): tuple(entries[place] for place in sorted(entries))
            for count, entries in self.listed.items()
            if self.fields.get(count) == len(entries) == max(entries) + 1
        }

    def report(self, key: str, value: int | str) -> None:
        """Record something said beside the fields; a later, different value is kept after the earlier one."""
        text = printable(value) if isinstance(value, str) else f"{value:#x}"
        earlier = self.reported.get(key)
        if earlier is None:
            self.reported[key] = text
        elif text not in earlier.split("; "):
            self.reported[key] = f"{earlier}; {text}"

    def unrecognise(self, line: int, text: str) -> None:
        """List a piece of text that means nothing here; pieces of one line stay together."""
        if self.unrecognised and self.unrecognised[-1].line == line:
            text = f"{self.unrecognised.pop().text} … {text}"
        self.unrecognised.append(Remark(line, printable(text)))

    def remark(self, line: int, text: str) -> None:
        """Record a remark once."""
        if (remark := Remark(line, text)) not in self.remarks:
            self.remarks.append(remark)

    def build(self, name: str) -> Dump:
        """Return the finished dump; values that only follow from other lines fill the gaps."""
        for field, (upper, line) in self.upper_halves.items():
            lower = self.fields.get(field)
            if field in self.contradicted:
                continue
            if lower is None:
                self.remark(line, f"{field}: only its upper half ({upper:#x}) is printed")
            elif lower >> 32 not in {0, upper}:
                self.remark(
                    line,
                    f"{field}: {lower:#x} and an upper half of {upper:#x} contradict each other: neither is taken",
                )
                del self.fields[field]
            else:
                self.fields[field] = upper << 32 | lower & 0xFFFF_FFFF
        for field, (value, line) in self.implied.items():
            if field not in self.fields and field not in self.contradicted:
                self.fields[field] = value
                self.lines[field] = line
        return Dump(
            name=name,
            format=self.format or "listing",
            line=self.line or 1,
            fields=self.fields,
            lines=self.lines,
            reported=self.reported,
            unrecognised=tuple(self.unrecognised),
            remarks=tuple(self.remarks),
            capabilities=self.capabilities or None,
            entered=self.entered,
            areas=self.areas(),
        )
