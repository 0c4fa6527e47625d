"""Reads the `dump_vmcs` layout of Linux KVM and Xen from a stream of text, wherever its lines are broken."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Mapping

import attrs

from popek.architectures.logs import LogLine, rejoined

from ..fields import FIELDS
from .breaks import HEADED, HEADINGS, KEYS, alternatives, straddles
from .layouts import (
    AMBIGUOUS,
    GROUPS,
    HOST,
    MSR_LISTS,
    SECTIONS,
    SEGMENT_REGISTERS,
    TABLE_REGISTERS,
    WITH_0X,
    LayoutWord,
    segment_words,
    sysenter_words,
)
from .model import DumpBuilder
from .placing import HeadedWords, Part, PrintedWord

_TOKEN = re.compile(
    rf"""
      (?P<section>\*{{1,3}}\s*(?P<which>Guest|Host|Control)\s+State\s*\*{{1,3}}
          | ^[^\w\n]*(?P<bare>(?i:guest|host|control))\s+(?i:state)[^\w\n]*$)
    | (?<!\w)(?P<heading>{alternatives(set(HEADINGS))})(?=\s*(?:{alternatives(HEADED)})\s*=)
    | (?<!\w)(?P<sysenter>Sysenter)(?=\s+(?:RSP|CS:RIP)\s*=)
    | (?<!\w)(?P<segment>{"|".join((*SEGMENT_REGISTERS, *TABLE_REGISTERS))}):(?=\s+[0-9a-z])
    | MSR\s+(?P<list>guest\s+autoload|autostore|host\s+autoload):
    | (?<!\w)(?P<place>\d+):\s+msr=0x(?P<msr>[0-9a-f]{{8}})\s+value=0x(?P<msr_value>[0-9a-f]{{16}})(?!\w)
    | ve_info:(?P<ve>(?:\s+0x[0-9a-f]+){{6}})
    | (?<![\w.:|-])(?P<key>{alternatives(KEYS)})\s*=\s*(?P<value>[^\s,()=]*)
    """,
    re.VERBOSE | re.MULTILINE,
)
_XEN_SEGMENT = re.compile(r"\s+([0-9a-f]{4,})\s+([0-9a-f]{5,8})\s+([0-9a-f]{8})\s+([0-9a-f]{16})(?!\S)")
_KVM_SEGMENT = re.compile(r"\s*(?:sel|attr|limit|base)=")
_KVM_TABLE = re.compile(r"\s*(?:limit\s*=\s*[^\s=]+\s*,\s*base\s*=|base\s*=)")
_XEN_TABLE = re.compile(r"\s+([0-9a-f]{8})\s+([0-9a-f]{16})(?!\S)")
_PARENTHESES = re.compile(r"\s*\(([^()\n]*)\)")
_OPEN = re.compile(r"\s*\(")
_HEX = re.compile(r"(?:0[xX])?([0-9a-fA-F]+)\Z")
_WORDS = frozenset({"reason", "qualification", *(f"target{n}" for n in range(4)), "sel", "attr", *HEADED})
_WORDS |= {"limit", "base"}
"""Keys that other lines of a log use, too."""

_BAD_ENTRY = re.compile(r"\d+:\s+msr=")
_PARENTHESISED = frozenset({"RSP", "RIP", "RFLAGS", "EFER"})


_CUT_LINES = 3
"""So many longest lines of equal length show that all were cut at a column."""


@attrs.frozen
class _Place:
    """Where a value stands: its line, and whether nothing follows it in the whole text, or all lines end there."""

    line: int
    is_last: bool
    at_column: bool


@attrs.define
class Scanner:
    """Feeds lines of one log into dumps.

    `builder` is the dump being read; `next_dump` closes it and returns a fresh one. `foreign` says that the text
    has another format, so that such words are somebody else's.
    """

    builder: DumpBuilder
    next_dump: Callable[[], DumpBuilder]
    foreign: bool = False
    _section: str = ""
    _words: Mapping[str, LayoutWord] = attrs.field(factory=dict)
    _is_sysenter: bool = False
    _list: str = ""
    _run: HeadedWords = attrs.field(factory=HeadedWords)
    _text: str = ""
    _starts: list[int] = attrs.field(factory=list)
    _numbers: list[int] = attrs.field(factory=list)
    _last: int = 0
    _broken: bool = False
    _cut: frozenset[int] = frozenset()

    def scan(self, lines: list[LogLine], *, at_end: bool) -> None:
        """Read a run of lines; `at_end` says that nothing follows, so that a cut last value is no error."""
        longest = max((line.width for line in lines), default=0)
        cut = [line.number for line in lines if line.width == longest]
        self._cut = frozenset(cut if len(cut) >= _CUT_LINES else ())
        lines = rejoined(lines, straddles)
        self._text = "\n".join(line.text for line in lines)
        self._numbers = [line.number for line in lines]
        self._starts = []
        offset = 0
        for line in lines:
            self._starts.append(offset)
            offset += len(line.text) + 1
        position = 0
        self._last = len(self._text.rstrip()) if at_end else -1
        if self.foreign:
            self._residue(0, len(self._text))
            return
        while match := _TOKEN.search(self._text, position):
            self._residue(position, match.start())
            if match["key"] and self._behind_words(position, match.start()):
                self._residue(match.start(), match.end())
                position = match.end()
                continue
            position = self._token(match)
        self._residue(position, len(self._text))

    def _behind_words(self, position: int, start: int) -> bool:
        """Whether words that mean nothing here stand before a key on its line: then it is part of a sentence."""
        before = self._text[max(position, self._text.rfind("\n", 0, start) + 1) : start]
        return re.search(r"\w", before) is not None

    def finish(self, following: str = "end") -> None:
        """Place the words that guest and host share; `following` is the heading behind them, if any is."""
        run, self._run = self._run, HeadedWords()
        nobodys: list[PrintedWord] = []
        for word, part in zip(run.words, run.parts(following), strict=True):
            if word.read is None:
                continue
            if part is None or (part == "host" and run.part != "host"):
                # What no heading makes the host's is not the host's: a guest has the same registers.
                nobodys.append(word)
                self.builder.unrecognise(word.line, f"{word.key} = {word.text}")
            else:
                word.read(part)
        if nobodys:
            keys = ", ".join(dict.fromkeys(word.key for word in nobodys))
            self.builder.remark(
                nobodys[0].line,
                f"{keys}: a section heading is missing, so that nothing tells whose: not read",
            )

    def reset(self, builder: DumpBuilder) -> None:
        """Start on another dump."""
        self.builder = builder
        self._section, self._words, self._list = "", {}, ""

    def _line(self, offset: int) -> int:
        return self._numbers[max(bisect.bisect_right(self._starts, offset) - 1, 0)]

    def _place(self, start: int, end: int) -> _Place:
        newline = self._text.find("\n", end)
        rest = self._text[end : len(self._text) if newline < 0 else newline]
        line = self._line(start)
        return _Place(line, 0 <= self._last <= end, line in self._cut and not rest.strip())

    def _residue(self, start: int, end: int) -> None:
        for piece in re.finditer(r"[^\n]+", self._text[start:end]):
            text = piece[0].strip(" \t,;|")
            if text and re.search(r"\w", text):
                self.builder.unrecognise(self._line(start + piece.start()), text)
                if self._list and _BAD_ENTRY.match(text):
                    # One more entry, but nobody knows which.
                    self.builder.contradicted[MSR_LISTS[self._list][0]] = "damaged"

    def _enter(self, section: str) -> None:
        """A heading, or a word of the control part, which is printed last."""
        self.finish(section)
        self._section = section
        self._run = HeadedWords(section)

    def _belongs(self, section: str, name: str, line: int) -> None:
        """A word that only one part has shows where in the dump we are."""
        if section == "control":
            if self._section != "control":
                self._enter("control")
        elif section in ("guest", "host"):
            self._run.add(PrintedWord(name, line, only="guest" if section == "guest" else "host"))
            if section == "guest":
                self._section = "guest"

    def _token(self, match: re.Match[str]) -> int:
        kind = match.lastgroup
        if match["section"]:
            which = (match["which"] or match["bare"]).lower()
            self.finish(which)
            if which == "guest" and (self._section or self.builder.fields):
                self.reset(self.next_dump())
            self.builder.format = self.builder.format or "Linux KVM"
            self.builder.line = self.builder.line or self._line(match.start())
            self._enter(which)
            self._words = {}
        elif match["heading"]:
            section, self._words = GROUPS[match["heading"]]
            self._is_sysenter = False
            self._belongs(section, match["heading"], self._line(match.start()))
        elif match["sysenter"]:
            self._words, self._is_sysenter = sysenter_words("guest"), True
        elif match["segment"]:
            return self._segment(match)
        elif match["list"]:
            self._list = " ".join(match["list"].split())
        elif match["msr"]:
            self._msr(match)
        elif match["ve"]:
            self.builder.report("ve_info", " ".join(match["ve"].split()))
        else:
            assert kind is not None
            return self._key(match)
        return match.end()

    def _segment(self, match: re.Match[str]) -> int:
        register, end = match["segment"], match.end()
        words = segment_words(register)
        if (_KVM_TABLE if register in TABLE_REGISTERS else _KVM_SEGMENT).match(self._text, end):
            self._belongs("guest", "segment", self._line(match.start()))
            self._words, self._is_sysenter = words, False
            return end
        is_table = register in TABLE_REGISTERS
        row = (_XEN_TABLE if is_table else _XEN_SEGMENT).match(self._text, end)
        keys = ("limit", "base") if is_table else ("sel", "attr", "limit", "base")
        if row is None:
            newline = self._text.find("\n", end)
            stop = newline if newline >= 0 else len(self._text)
            if self._section == "guest" and self.builder.format == "Xen":
                wanted = f"{register}: expected {', '.join(keys)} in hexadecimal"
                self._bad(self._place(match.start(), stop), wanted)
                return stop
            self._residue(match.start(), end)
            self._words = {}
            return end
        self.builder.format = self.builder.format if "Xen" in self.builder.format else "Xen"
        self._belongs("guest", "segment", self._line(match.start()))
        for key, value in zip(keys, row.groups(), strict=True):
            self._value(key, words[key], value, self._place(row.start(), row.end()))
        return row.end()

    def _msr(self, match: re.Match[str]) -> None:
        if not self._list:
            self._residue(match.start(), match.end())
            return
        count_field, name = MSR_LISTS[self._list]
        self.builder.report(name, f"{int(match['msr'], 16):#x}={int(match['msr_value'], 16):#x}")
        index, value = int(match["msr"], 16), int(match["msr_value"], 16)
        self.builder.list_msr(count_field, int(match["place"]), index, value, self._line(match.start()))

    def _key(self, match: re.Match[str]) -> int:
        key, value, end = " ".join(match["key"].split()), match["value"], match.end()
        self._broken = "\n" in match[0]
        place = self._place(match.start("value"), end)
        aside = None
        if key in _PARENTHESISED and (note := _PARENTHESES.match(self._text, end)):
            end, aside = note.end(), note[1].strip()
        elif match[0].startswith("EFER=") and (
            place.is_last or place.at_column or _OPEN.match(self._text, end)
        ):
            # Behind it may have stood that the VMCS holds none, and that this is the processor's.
            self._residue(match.start(), end)
            return end
        if key in self._words and self._is_sysenter and key == "RSP":
            self._hold(key, "Sysenter", "IA32_SYSENTER_ESP", value, place)
        elif key == "CS:RIP" and self._is_sysenter:
            self._hold(key, "Sysenter", "CS:RIP", value, place)
        elif key == "SVI|RVI":
            self._virtual_interrupts(value, place)
        elif key == "EFER(MSR LL)":
            self.builder.report("guest_efer_msr_load_list", value)
        elif key in self._words:
            self._value(key, self._words[key], value, place)
        else:
            self._words, self._is_sysenter = {}, False
            section = self._section_of(key, value)
            if section == "host" and self._run.part != "host":
                # What no heading makes the host's is not the host's: a guest has the same registers.
                if _fits(HOST[key].digits, value):
                    self._belongs(section, key, place.line)
                self._residue(match.start(), end)
            elif (
                section is None
                or not _is_numeric(value)
                or self._is_spelt_otherwise(match)
                or self._is_prose(key, section, value, place)
            ):
                self._residue(match.start(), end)
            elif section == "":
                self._hold(key, key, "", value, place, aside)
            else:
                self._belongs(section, key, place.line)
                self._free_word(section, key, value, place, aside)
        return end

    @staticmethod
    def _is_spelt_otherwise(match: re.Match[str]) -> bool:
        """Whether a word stands there as another program writes it: `CR3=1`, `reason = 5`."""
        key, value = " ".join(match["key"].split()), match["value"]
        if key == "CR3":
            return value[:2].lower() == "0x" and match[0][3] == "="
        if key in WITH_0X:
            return _HEX.match(value) is not None and len(value) > 1 and value[:2].lower() != "0x"
        return key in ("reason", "qualification") and match[0][len(match["key"])] != "="

    def _hold(
        self, key: str, name: str, field: str, value: str, place: _Place, aside: str | None = None
    ) -> None:
        """Keep a word until it is known whose it is."""
        broken = self._broken

        def read(part: Part) -> None:
            self._broken = broken
            if field == "CS:RIP":
                words = sysenter_words(part)
                selector, _, address = value.partition(":")
                self._value("CS:RIP", words["CS"], selector, place)
                self._value("CS:RIP", words["RIP"], address, place)
            elif field:
                self._value(key, sysenter_words(part)[key], value, place)
            else:
                self._free_word(part, key, value, place, aside)

        self._run.add(PrintedWord(name, place.line, key, value, read=read))

    def _section_of(self, key: str, value: str) -> str | None:
        """The section a word belongs to: None if it means nothing here, empty if guest and host share it."""
        if key == "CR3":
            return "guest" if value[:2].lower() == "0x" else "host"
        if key in AMBIGUOUS:
            # Nothing of the kind is printed behind the first word of the control part.
            return ""
        return next((name for name, words in SECTIONS.items() if key in words), None)

    def _is_prose(self, key: str, section: str, value: str, place: _Place) -> bool:
        """Whether a value of the wrong width is no part of a dump: outside any section, or far too short."""
        word = SECTIONS[section or "guest"][key]
        if _fits(word.digits, value) or (place.is_last and (self._section or self.builder.fields)):
            return False
        match = _HEX.match(value)
        short = match is not None and 2 * len(match[1]) < word.digits
        return not self._section or (short and key in _WORDS)

    def _free_word(self, section: str, key: str, value: str, place: _Place, aside: str | None) -> None:
        if key == "EFER" and aside in {"autoload", "effective"}:
            self.builder.report(f"{section}_efer_{aside}", value)
            return
        self._value(key, SECTIONS[section][key], value, place)
        if aside is not None:
            suffix = "register" if _HEX.match(aside) else "symbol"
            self.builder.report(f"{section}_{key.lower()}_{suffix}", aside)
        if section == "control" and "target" in key:
            count = max(self.builder.implied.get("CR3_TARGET_COUNT", (0, 0))[0], int(key[-1]) + 1)
            self.builder.imply("CR3_TARGET_COUNT", count, place.line)

    def _virtual_interrupts(self, value: str, place: _Place) -> None:
        self._belongs("control", "SVI|RVI", place.line)
        servicing, _, requesting = value.partition("|")
        svi = self._digits("SVI|RVI", servicing, 2, place)
        rvi = self._digits("SVI|RVI", requesting, 2, place)
        if svi and rvi:
            self.builder.set("GUEST_INTERRUPT_STATUS", int(svi, 16) << 8 | int(rvi, 16), place.line)

    def _value(self, key: str, word: LayoutWord, text: str, place: _Place) -> None:
        digits = self._digits(key, text, word.digits, place)
        if not digits:
            return
        field = FIELDS[word.field]
        if int(digits, 16) > field.mask:
            wide = f"{key}: {text} does not fit in the {field.width} bits of {field.id}"
            self.builder.remark(place.line, f"{wide}: not read")
            return
        self.builder.format = self.builder.format or "Linux KVM"
        self.builder.set(word.field, int(digits, 16), place.line)

    def _digits(self, key: str, text: str, expected: int, place: _Place) -> str:
        """Return the digits of a value, or an empty string if it is the cut end of the dump."""
        if digits := _fits(expected, text):
            return digits
        match = _HEX.match(text)
        foreign = key in _WORDS and match is not None and 2 * len(match[1]) < expected
        if (self._broken or foreign) and not place.is_last:
            # Nothing says that what stands on the next line is this value.
            self.builder.unrecognise(place.line, f"{key} = {text}")
            return ""
        found = f"found {text[:40]!r}" if text else "found nothing"
        message = f"{key}: expected {expected} hexadecimal digits, {found}"
        if place.at_column and match is not None and len(match[1]) < expected and not place.is_last:
            self.builder.remark(place.line, f"the line is cut here ({message})")
        else:
            self._bad(place, message)
        return ""

    def _bad(self, place: _Place, message: str) -> None:
        """A value that is hidden, cut or mistyped is not read; what is known without it stands."""
        if place.is_last:
            self.builder.remark(place.line, f"the dump is cut here ({message})")
        else:
            self.builder.remark(place.line, f"{message}: not read")


def _fits(expected: int, text: str) -> str:
    """Return the digits of a number of at least the expected width, or an empty string."""
    match = _HEX.match(text)
    return match[1] if match and expected <= len(match[1]) <= 16 else ""


def _is_numeric(text: str) -> bool:
    """Whether a value is meant as a number (perhaps a damaged or cut one), and not prose behind an `=`."""
    return not text or text[0].isdigit() or _HEX.match(text) is not None
