"""`popek atlas`: every machine under every technique and several configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .errors import UNEXPECTED, UNKNOWN, UserError
from .figures import Svg, assert_writable, write
from .options import HERE, AsJson, NoCache, Timeout, Work
from .output import console, print_json, progress, working


def atlas(
    *names: str,
    html: Annotated[
        Path | None, Parameter(help="A folder to write index.html to: a page that needs no network.")
    ] = None,
    machines: Annotated[
        tuple[str, ...],
        Parameter(negative="", consume_multiple=True, help="Only these: names, or Python files."),
    ] = (),
    techniques: Annotated[
        tuple[str, ...], Parameter(negative="", consume_multiple=True, help="Only these techniques.")
    ] = (),
    promises: Annotated[bool, Parameter(negative="", help="Check fidelity and safety, too.")] = False,
    devices: Annotated[
        bool, Parameter(negative="", help="Ask of machines with a device what a guest can do by that, too.")
    ] = False,
    timeout: Timeout = 0.0,
    work: Work = HERE,
    cache: Annotated[
        Path | None,
        Parameter(help="Another folder to keep answers in, for the next time; see popek cache."),
    ] = None,
    no_cache: NoCache = False,
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Show machines, techniques and configurations side by side: verdicts, critical instructions, efficiency.

    The figure is a bar per row: what becomes of the instruction forms.  With --html, a page to browse: from a row
    to its instructions, to a witness, to the exact question.

    Parameters
    ----------
    names
        Only these machines: names, or Python files; the same as --machines.
    """
    from popek.keeping.store import Store, store
    from popek.kernel.machine import UnknownNameError
    from popek.machines import MachineFileError
    from popek.report import atlas as report
    from popek_proofs.atlas import derive, places
    from popek_proofs.atlas.derivation import Depth
    from popek_proofs.devices import with_and_without

    try:
        chosen = places((*names, *machines), techniques)
    except (UnknownNameError, MachineFileError) as error:
        raise UserError(str(error)) from None
    assert_writable(svg)
    if html is not None:
        _make_folder(html, "--html")
    if cache is not None:
        _make_folder(cache, "--cache")
    depth = Depth(promises=promises, witnesses=html is not None or json, timeout=timeout)
    kept = None if no_cache else store() if cache is None else Store(cache)
    with work.begun(), progress("charting") as show:
        found = derive(chosen, depth, jobs=work.jobs, cache=kept, progress=show)
    if kept is not None:
        kept.close()
    beside = []
    if devices:
        with working("asking of devices"):
            names_of = dict.fromkeys(entry.place.name for entry in found.entries)
            beside = [row for name in names_of if (row := with_and_without(name)) is not None]
    if html is not None:
        from popek.report.atlas_page import page

        file = html / "index.html"
        try:
            file.write_text(page(found), encoding="utf-8")
        except OSError as error:
            raise UserError(f"--html {html}: {error.strerror}") from None
    if svg is not None:
        write(report.figure(found), svg)
    if json:
        print_json(found.to_json() | ({"devices": [row.to_json() for row in beside]} if devices else {}))
    else:
        console().print(report.atlas(found))
        if devices:
            console().print(report.with_devices(found, beside))
        if html is not None:
            console().print(f"\n{file}")
    if found.defects:
        return UNEXPECTED
    return UNKNOWN if found.unknown else 0


def _make_folder(folder: Path, option: str) -> None:
    """Find out before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "expected a folder, and this is a file" if folder.exists() else error.strerror
        raise UserError(f"{option} {folder}: {reason}") from None


__all__ = ["atlas"]
