"""What `popek assist` is given: a declaration, a VMM, a configuration; each wrong name gets one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from popek.assistance.desk import Desk
    from popek.kernel.assistance import Assistance, Settings
    from popek.report.assistance import Owner


def desk_named(technique: str) -> Desk[Any]:
    """The declaration that a technique's name, or a file, means, at work."""
    from popek.architectures import MachineFileError, assistance
    from popek.assistance.desk import desk_of
    from popek.kernel.machine import UnknownNameError

    try:
        return desk_of(assistance(technique))
    except (UnknownNameError, MachineFileError) as error:
        raise UserError(str(error)) from None


def owner_of(
    assistance: Assistance[Any],
    own: str | None,
    grant: Sequence[str],
    assume: Sequence[str],
    mode: str = "",
) -> tuple[Owner, Any]:
    """What the VMM owns by name, and the profile."""
    from popek.kernel.assistance import AssistanceError
    from popek.report.assistance import Owner

    wanted = "everything" if own is None else own
    names = {name.strip() for name in wanted.split(",") if name.strip()}
    if "help" in names:
        raise UserError(
            "--own takes " + "; ".join(f"{n}: {o.summary}" for n, o in assistance.ownable.items())
        )
    if "everything" in names:
        names = (names - {"everything"}) | assistance.everything
    for name in grant:
        if name not in assistance.ownable:
            raise UserError(f"--grant {name}: expected one of {', '.join(assistance.ownable)}")
    assumed = dict(_assumed(assistance, text) for text in assume)
    try:
        profile = assistance.owner(names - set(grant), assume=assumed)
    except AssistanceError as error:
        raise UserError(f"--own {wanted}: {error}") from None
    return Owner(assistance, names - set(grant), assumed, mode), profile


def _assumed(assistance: Assistance[Any], text: str) -> tuple[str, int]:
    known = {name.lower(): name for name in assistance.options}
    if text == "help":
        listed = "; ".join(f"{name}: {summary}" for name, summary in assistance.options.items())
        raise UserError(f"--assume takes {listed or 'nothing'}")
    name, sign, value = text.partition("=")
    if name.lower() not in known or (sign and value not in ("0", "1")):
        raise UserError(
            f"--assume {text}: expected NAME, NAME=0 or NAME=1 with NAME of {', '.join(assistance.options) or 'none'}"
        )
    return known[name.lower()], int(value or 1)


def circumstances(assistance: Assistance[Any], given: Sequence[str]) -> dict[str, int]:
    """NAME=0 or NAME=1 of what nobody chooses."""
    known = [control.name for control in assistance.controls if not control.chosen]
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known or value not in ("0", "1"):
            raise UserError(
                f"--given {text}: expected NAME=0 or NAME=1 with NAME of {', '.join(known) or 'none'}"
            )
        found[name] = int(value)
    return found


def mode_named(desk: Desk[Any], mode: str) -> str:
    """The name of an operating mode, the first one where nobody says."""
    from popek.kernel.machine import UnknownNameError

    try:
        return desk.mode(mode).name
    except UnknownNameError as error:
        raise UserError(f"--mode {mode}: {error}") from None


def assert_possible(desk: Desk[Any], profile: Any, mode: str) -> None:
    """There is a guest in this mode under the profile."""
    refused = desk.mode(mode).refused(profile)
    if refused:
        raise UserError(f"--mode {mode}: {refused}")


def forms_named(desk: Desk[Any], names: Sequence[str]) -> list[str]:
    """The forms that names mean."""
    from popek.kernel.machine import UnknownNameError

    try:
        return desk.find(names)
    except UnknownNameError as error:
        raise UserError(str(error)) from None


def configurations(assistance: Assistance[Any], what: str | None, fields: Sequence[str]) -> list[Settings]:
    """The configurations that a file, a known name, or fields mean."""
    import sys
    from pathlib import Path

    from popek.kernel.assistance import AssistanceError

    if what is not None and fields:
        raise UserError("give a configuration or --set, not both")
    known = assistance.configurations()
    by_name = {name.lower(): settings for name, settings in known.items()}
    if what is not None and what.lower() in by_name:
        return [by_name[what.lower()]]
    try:
        if what is None:
            pairs = [text.partition("=") for text in fields]
            for name, sign, _ in pairs:
                if not sign:
                    raise UserError(f"--set {name}: expected FIELD=VALUE")
            values = {name: value for name, _, value in pairs}
            return [
                _of_controls(assistance, values) if assistance.written is None else assistance.written(values)
            ]
        if assistance.read is None or (what != "-" and not Path(what).exists()):
            import difflib

            near = difflib.get_close_matches(what.lower(), by_name, 2, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
            raise UserError(f"{what}: neither a file nor a known configuration; {hint}")
        data = sys.stdin.buffer.read() if what == "-" else Path(what).read_bytes()
        return assistance.read("standard input" if what == "-" else what, data)
    except OSError as error:
        raise UserError(f"{what}: {error.strerror or error}") from None
    except AssistanceError as error:
        raise UserError(str(error)) from None


def _of_controls(assistance: Assistance[Any], fields: Mapping[str, str]) -> Settings:
    """A configuration by the names of the controls, every one of which must be given."""
    from popek.kernel.assistance import Settings

    known = [control.name for control in assistance.controls if control.chosen]
    for name, value in fields.items():
        if name not in known or value not in ("0", "1"):
            raise UserError(
                f"--set {name}={value}: expected NAME=0 or NAME=1 with NAME of {', '.join(known)}"
            )
    missing = [name for name in known if name not in fields]
    if missing:
        raise UserError(f"--set: not given, and it decides what exits: {', '.join(missing)}")
    return Settings("command line", "command line", {name: int(value) for name, value in fields.items()})
