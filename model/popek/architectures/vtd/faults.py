"""Lines in which Linux reports what a remapping unit refused, of VT-d and of AMD's IOMMU, read and explained.

Prefixes, quotes and encodings are taken off by `architectures/logs.py`, as for dumps of VMCSs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from popek.architectures.logs import LogLine, unwrap

from .ledger import RemappingRule, rules

_ID = r"\[{0,2}(?:0x)?(?:[0-9a-f]{4}:)?(?P<bus>[0-9a-f]{2}):(?:0x)?(?P<slot>[0-9a-f]{2})\.(?P<function>[0-7])\]?"
_REASON = r"\[fault reason (?P<reason>0x[0-9a-f]+|\d+)\]\s*(?P<words>.*)"
_DMA = re.compile(
    rf"\[DMA (?P<kind>Read|Write)(?: (?P<pasid>NO_PASID|PASID))?\] Request device {_ID}"
    r"(?: PASID (?P<number>0x[0-9a-f]+|[0-9a-f]+))?\s*fault addr (?P<address>0x[0-9a-f]+|[0-9a-f]+)"
    rf"\s*(?:{_REASON})?$",
    re.IGNORECASE,
)
_INTERRUPT = re.compile(
    rf"\[?INTR-REMAP[:\]]\s*Request device {_ID} fault index (?P<index>0x[0-9a-f]+|[0-9a-f]+)\s*(?:{_REASON})?$",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"(?:DMAR:|\[?INTR-REMAP[:\]])\s*{_REASON}$", re.IGNORECASE)
_STATUS = re.compile(r"DRHD: handling fault status reg (?P<status>[0-9a-f]+)", re.IGNORECASE)
_AMD = re.compile(r"AMD-Vi:\s*Event logged \[\s*(?P<event>[A-Z_]+)?(?P<rest>.*)$")
_AMD_TAIL = re.compile(r"^(?P<event>[A-Z][A-Z_]{6,})\s+(?P<rest>(?:device|domain|pasid|address)=.*)$")
_PAIR = re.compile(r"(\w+)=(?:0x)?([0-9a-fA-F:.]+)")

NO_PASID = 0xFFFFFFFF
STATUS_BITS = {
    0: "records were lost (PFO)", 1: "a fault is pending (PPF)", 2: "advanced fault log overflow (AFO)",
    3: "advanced faults pending (APF)", 4: "an invalidation queue error (IQE)",
    5: "an invalidation completion error (ICE)", 6: "an invalidation time-out (ITE)",
}  # fmt: skip
AMD_FLAGS = {
    0: ("GN", "the address is a guest's, with a PASID"), 1: ("NX", "an instruction fetch"), 2: ("US", "user mode"),
    3: ("I", "an interrupt request"), 4: ("PR", "the translation was there"), 5: ("RW", "a write"),
    6: ("PE", "the device lacks the permission"), 7: ("RZ", "a reserved bit was set"),
    8: ("TR", "a translation request"),
}  # fmt: skip
"""Bits of `flags` in an IO_PAGE_FAULT, as Linux prints them (AMD's IOMMU specification, event log; likely)."""
AMD_EVENTS = {
    "ILLEGAL_DEV_TABLE_ENTRY": "the device table's entry for the device has a reserved value",
    "IO_PAGE_FAULT": "the tables do not let the request through",
    "DEV_TAB_HARDWARE_ERROR": "the device table could not be read",
    "PAGE_TAB_HARDWARE_ERROR": "a page table could not be read",
    "ILLEGAL_COMMAND_ERROR": "the command buffer holds a command that is none",
    "COMMAND_HARDWARE_ERROR": "the command buffer could not be read",
    "IOTLB_INV_TIMEOUT": "the device did not answer that its translations are invalidated",
    "INVALID_DEVICE_REQUEST": "the device may not send such a request, or not to such an address",
    "INVALID_PPR_REQUEST": "the device asked for a page in a way that makes no sense, or may not ask",
    "RMP_HARDWARE_ERROR": "the reverse map (SEV-SNP) could not be read",
    "RMP_PAGE_FAULT": "the reverse map (SEV-SNP) does not give the page to whom the request is for",
    "EVENT_COUNTER_ZERO": "a performance counter ran out",
    "GUEST_EVENT_FAULT": "the event log that is a guest's could not be written",
}
_CAUSES: Mapping[str, str] = {
    "DMA-ROOT-P": "nobody set up the device's bus: the device was still running when the unit was switched on",
    "DMA-CONTEXT-P": "the device is in no domain: no driver attached it, or it sends requests with another source-id "
    "(a bridge's, another function's)",
    "DMA-PAGE-R": "the driver never mapped this address for reading, or unmapped it before the device was done",
    "DMA-PAGE-W": "the driver never mapped this address for writing, or unmapped it before the device was done",
    "DMA-PAGE-RSVD": "the entry was overwritten, or the tables use what this unit has not",
    "FS-P": "nobody mapped this address for the PASID, or it was unmapped before the device was done",
    "FS-PASID-P": "no address space was bound to the PASID, or it was unbound before the device was done",
    "DMA-WIDTH": "the device was given an address that is wider than the unit or its tables take",
    "INT-ENTRY-P": "the interrupt was torn down, or the unit's cache of entries was not invalidated when it was set up",
    "INT-COMPATIBILITY": "the device, or its firmware, still has a message from before interrupt remapping was on",
    "INT-SOURCE": "the message came with another source-id than the entry admits",
    "INT-INDEX": "the message has a handle that nobody gave it",
}  # fmt: skip


@attrs.frozen
class Explained:
    """One report, read.

    Attributes:
        line: where it starts, counted from 1.
        what: what happened, in one sentence.
        why: what it means, sentence by sentence.
        rules: of the ledger, those that the reason may be of.
        fields: what the line gives.
    """

    line: int
    what: str
    why: tuple[str, ...]
    rules: tuple[str, ...]
    fields: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "line": self.line, "what": self.what, "why": list(self.why), "rules": list(self.rules),
            "fields": dict(self.fields),
        }  # fmt: skip


class NoFaultError(ValueError):
    """A text without a line that is known."""


def explain(text: str) -> tuple[Explained, ...]:
    """Every report in a text, in order.

    Raises:
        NoFaultError: there is none.
    """
    found = [one for lines in unwrap(text) for one in _explained(lines)]
    if not found:
        raise NoFaultError(
            "expected a line such as 'DMAR: [DMA Read] Request device …', 'INTR-REMAP: Request device …' "
            "or 'AMD-Vi: Event logged […'; found none"
        )
    return tuple(sorted(found, key=lambda one: one.line))


def _explained(lines: Sequence[LogLine]) -> Iterator[Explained]:
    rest = list(lines)
    for number, line in enumerate(rest):
        text = line.text
        following = rest[number + 1].text if number + 1 < len(rest) else ""
        if match := _DMA.search(text):
            yield _dma(line.number, match, following)
        elif match := _INTERRUPT.search(text):
            yield _interrupt(line.number, match, following)
        elif match := _STATUS.search(text):
            bits = [name for bit, name in STATUS_BITS.items() if int(match["status"], 16) >> bit & 1]
            yield Explained(
                line.number,
                "the unit reports: " + ("; ".join(bits) or "nothing"),
                (),
                (),
                {"status": match["status"]},
            )
        elif match := _AMD.search(text):
            event, tail = match["event"], match["rest"]
            if not event and (next_one := _AMD_TAIL.match(following)):
                event, tail = next_one["event"], next_one["rest"]
            if event:
                yield _amd(line.number, text[: match.start()].strip(" :"), event, tail)


def _reason(match: re.Match[str], following: str) -> tuple[int | None, str]:
    """The reason, and Linux's words; in old kernels it stands on the next line.  Without 0x it is decimal."""
    given = match
    if match["reason"] is None:
        found = _ALONE.search(following)
        if found is None:
            return None, ""
        given = found
    text = given["reason"]
    return int(text, 16 if text.lower().startswith("0x") else 10), given["words"].strip()


def _device(match: re.Match[str]) -> str:
    return f"{match['bus']}:{match['slot']}.{match['function']}".lower()


def _because(reason: int | None, words: str, kind: str) -> tuple[list[str], tuple[RemappingRule, ...]]:
    if reason is None:
        return ["the line gives no reason"], ()
    kinds = ("dma", "first-stage") if kind == "dma" else (kind,)
    found = tuple(rule for rule in rules().values() if rule.reason == reason and rule.kind in kinds)
    same_words = tuple(rule for rule in found if rule.linux.lower() == words.lower())
    why = [f"reason {reason:#04x}: {rule.rule[:-1]}; here it is not so ({rule.id})" for rule in found]
    why += [f"likely: {_CAUSES[rule.id]}" for rule in found if rule.id in _CAUSES]
    if not found:
        why = [
            f"reason {reason:#04x} is in none of the rules that are modelled; Linux says: {words or 'nothing'}"
        ]
    elif words and not same_words:
        why.append(f"but Linux' words for it are other ones: {words}")
    return why, found


def _dma(line: int, match: re.Match[str], following: str) -> Explained:
    reason, words = _reason(match, following)
    kind, address, device = match["kind"].lower(), int(match["address"], 16), _device(match)
    why, found = _because(reason, words, "dma")
    verb = "read from" if kind == "read" else "write to"
    number = match["number"]
    pasid = None if number is None or int(number, 16) == NO_PASID else int(number, 16)
    with_pasid = "" if pasid is None else f" with PASID {pasid:#x}"
    wrong_way = {5: "read", 6: "write"}.get(reason or 0)
    if wrong_way == kind:
        why.append(f"but the request is a {kind}: line and reason do not fit together")
    if address >> 20 == 0xFEE:
        why.append("the address is in the interrupt range: as a write it would be an interrupt request")
    what = f"device {device} tried to {verb} {address:#x}{with_pasid}, and was refused"
    fields = {
        "device": device,
        "kind": kind,
        "address": hex(address),
        "reason": reason,
        "words": words,
        "pasid": pasid,
    }
    return Explained(line, what, tuple(why), tuple(rule.id for rule in found), fields)


def _interrupt(line: int, match: re.Match[str], following: str) -> Explained:
    reason, words = _reason(match, following)
    index, device = int(match["index"], 16), _device(match)
    why, found = _because(reason, words, "interrupt")
    what = f"device {device} raised an interrupt by message with index {index:#x}, and was refused"
    fields = {"device": device, "kind": "interrupt", "index": index, "reason": reason, "words": words}
    return Explained(line, what, tuple(why), tuple(rule.id for rule in found), fields)


def _amd(line: int, before: str, event: str, tail: str) -> Explained:
    pairs = dict(_PAIR.findall(tail))
    named = re.search(r"(?:[0-9a-f]{4}:)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])$", before)
    device = str(pairs.get("device", named[1] if named else ""))
    device = device.split(":", 1)[1] if device.count(":") == 2 else device
    fields: dict[str, Any] = {"event": event, "device": device or None}
    fields |= {name: hex(int(pairs[name], 16)) for name in ("domain", "address", "flags") if name in pairs}
    why = [AMD_EVENTS.get(event, "an event that is not in our list")]
    if event == "IO_PAGE_FAULT" and "flags" in pairs:
        flags = int(pairs["flags"], 16)
        kind = "a write" if flags >> 5 & 1 else "a read"
        if flags >> 3 & 1:
            kind = "an interrupt request"
        state = (
            "the translation was there, without the permission"
            if flags >> 4 & 1
            else "there was no translation"
        )
        set_bits = ", ".join(name for bit, (name, _) in AMD_FLAGS.items() if flags >> bit & 1) or "none"
        why.append(f"{kind}; {state} (flags: {set_bits})")
    where = f" at {fields['address']}" if "address" in fields else ""
    what = f"device {device or 'unknown'}: {event}{where}"
    return Explained(line, what, tuple(why), (), fields)
