"""A scanned program as a SARIF log, which editors and CI read.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) version 2.1.0; the sections are named below.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from popek import __version__
from popek.scan.judging import Scan, ScanFinding
from popek.scan.sweep import Occurrence

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
Json = dict[str, object]


def log(found: Scan) -> Json:
    """A log of one run: a rule for each form that breaks, a result for each place where it stands (3.13, 3.14)."""
    driver = {
        "name": "popek",
        "version": __version__,
        "rules": [_rule(one) for one in found.findings],
    }
    artifact: Json = {"roles": ["analysisTarget"]}
    if (location := _location(found)) is None:
        artifact["description"] = {"text": found.program.source}
    else:
        artifact["location"] = location
    results = [
        _result(found, number, one, place)
        for number, one in enumerate(found.findings)
        for place in one.places
    ]
    notifications = [{"level": "warning", "message": {"text": text}} for text in _remarks(found)]
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notifications}],
        "artifacts": [artifact],
        "results": results,
        "properties": {
            "machine": found.machine,
            "technique": found.technique,
            "configuration": dict(found.configuration),
            "mode": found.mode,
        },
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(one: ScanFinding) -> Json:
    """A reportingDescriptor (3.49)."""
    return {
        "id": one.form,
        "shortDescription": {"text": f"{one.form} is {', '.join(one.breaks)}."},
        "fullDescription": {"text": one.why},
        "defaultConfiguration": {"level": "error"},
        "properties": {"breaks": list(one.breaks)},
    }


def _result(found: Scan, rule: int, one: ScanFinding, place: Occurrence) -> Json:
    """A result (3.27) with the address (3.32) and, where the file holds the bytes, the region (3.30) of its place."""
    physical: Json = {
        "artifactLocation": (_location(found) or {}) | {"index": 0},
        "address": {
            "absoluteAddress": place.address,
            "length": len(place.raw),
            "kind": "instruction",
            "fullyQualifiedName": f"{place.section}:{place.address:#x}",
        },
    }
    if place.offset is not None:
        physical["region"] = {"byteOffset": place.offset, "byteLength": len(place.raw)}
    logical: list[Json] = [{"name": place.section, "kind": "section"}]
    if place.function:
        logical.append({"name": place.function, "kind": "function"})
    text = f"{place.text} ({one.form}) is {', '.join(one.breaks)}: {one.why}"
    return {
        "ruleId": one.form,
        "ruleIndex": rule,
        "level": "error",
        "message": {"text": text},
        "locations": [{"physicalLocation": physical, "logicalLocations": logical}],
        "properties": {
            "section": place.section,
            "function": place.function or None,
            "bytes": place.raw.hex(" "),
        },
    }


def _location(found: Scan) -> dict[str, object] | None:
    """An artifactLocation (3.4); None for what is no file."""
    path = found.program.path
    if path is None:
        return None
    return {"uri": path.as_uri() if path.is_absolute() else quote(Path(path).as_posix())}


def _remarks(found: Scan) -> Iterator[str]:
    """What is odd or was left undecided."""
    yield from found.program.remarks
    if found.swept.undecoded:
        yield f"{found.swept.undecoded} bytes begin no instruction"
    for form, count in found.undecided.items():
        yield f"undecided: {form}, which occurs {count} times"
    for mnemonic, count in sorted(found.swept.lacking.items()):
        yield f"not in the model: {mnemonic}, which occurs {count} times"
