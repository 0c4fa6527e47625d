"""Questions and figures for a notebook: each function asks one thing and returns something that shows itself.

    from popek.notebook import *

    classify("ia32", "SGDT", "POPF", UMIP=1)

Settings are keywords; `"?"` leaves one open.  An answer is a table in a notebook and plain text elsewhere; it
passes on the attributes of the result behind it, and many can draw themselves: `classify("pg74").figure()`.

One module, though long: `import *` brings what it has and nothing else; each function is a few lines.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import attrs

from popek import machines as registry
from popek.errors import PopekError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from popek.architectures.vtx.capabilities import Capabilities
    from popek.architectures.vtx.dumps.comparison import DumpComparison
    from popek.architectures.vtx.dumps.diagnosis import Diagnosis
    from popek.architectures.vtx.dumps.model import Dump
    from popek.assistance.desk import Desk
    from popek.assistance.exits import Governed
    from popek.assistance.judgement import Judgement
    from popek.assistance.needs import NeedRow
    from popek.assistance.synthesis import Synthesis
    from popek.checks.conditions import Conditions
    from popek.checks.device_traces import DeviceTrace
    from popek.checks.explanation import Explanation
    from popek.checks.subject import Subject
    from popek.checks.survey import Request, Survey
    from popek.kernel.machine import Machine
    from popek.report import assistance as assistance_report
    from popek.report.svg import Figure
    from popek.vmcs.edits import Repair
    from popek_proofs.assistance.comparison import Table as Beside
    from popek_proofs.claims import Claim, ClaimVerdict
    from popek_proofs.devices import DeviceSafety
    from popek_proofs.safety import Safety
    from popek_proofs.theorems.instantiate import Instantiation
    from popek_proofs.theorems.red_pill import RedPill, Search

T = TypeVar("T")
P = ParamSpec("P")
Setting = int | str


class NotebookError(PopekError):
    """A question that cannot be asked; the message says what was expected."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the one line."""
        return [str(self)]


def _in_one_line(ask: Callable[P, T]) -> Callable[P, T]:
    """Turn what is wrong with names, settings and files into a `NotebookError`."""

    @functools.wraps(ask)
    def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return ask(*args, **kwargs)
        except (PopekError, OSError) as error:
            raise NotebookError(" ".join(str(error).split())) from None

    return asked


@attrs.frozen(eq=False, repr=False)
class Shown(Generic[T]):
    """An answer that shows itself.

    Attributes:
        answer: the result; its attributes, or the items of a list, can be reached here, too.
    """

    answer: T
    _report: Callable[[T], RenderableType]
    _figure: Callable[..., Figure] | None = None

    def figure(self, *about: str) -> Figure:
        """The answer as a figure.

        Raises:
            NotebookError: it has none.
        """
        if self._figure is None:
            raise NotebookError(f"there is no figure of a {type(self.answer).__name__}")
        return _in_one_line(self._figure)(*about)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.answer, name)

    def __getitem__(self, index: Any) -> Any:
        return self.answer[index]  # type: ignore[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.answer)  # type: ignore[call-overload, no-any-return]

    def __len__(self) -> int:
        return len(self.answer)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True

    def __dir__(self) -> Iterable[str]:
        return [*object.__dir__(self), *(n for n in dir(self.answer) if not n.startswith("_"))]

    def __repr__(self) -> str:
        from popek.report import html

        return html.plain(self._report(self.answer))

    def _repr_html_(self) -> str:
        from popek.report import html

        return html.page(self._report(self.answer))


def _pg74() -> Machine[Any]:
    return registry.machine("pg74")


# -- machines and classes -------------------------------------------------------------------------


def machines() -> Shown[list[Machine[Any]]]:
    """The machines that come with popek."""

    from popek.report import machines as machines_report

    return Shown([make() for make in registry.makers().values()], machines_report.machines)


@_in_one_line
def machine(name: str | Machine[Any]) -> Shown[Machine[Any]]:
    """A machine: its instructions with their sources, its settings and what it leaves out.

    Args:
        name: as `machines()` lists it, a Python file that declares one, or a machine itself.
    """

    from popek.report import machines as machines_report

    return Shown(registry.machine(name), machines_report.machine)


def _request(
    name: str | Machine[Any], technique: str | None, settings: Mapping[str, Setting], **options: Any
) -> Request:
    from popek.checks.survey import Request

    return Request(_subject(name, technique, settings), **options)


def _subject(
    name: str | Machine[Any], technique: str | None, settings: Mapping[str, Setting]
) -> Subject[Any]:
    from popek.checks.subject import Subject

    return Subject.of(name, technique, [f"{name}={value}" for name, value in settings.items()])


def _forms(known: Machine[Any], instructions: Iterable[str]) -> list[str] | None:
    return list(dict.fromkeys(i.form for wanted in instructions for i in known.find(wanted))) or None


@_in_one_line
def classify(
    name: str | Machine[Any],
    *instructions: str,
    technique: str | None = None,
    promises: bool = False,
    **settings: Setting,
) -> Shown[Survey]:
    """The classes of instructions, all of a machine by default; its figure is the premise of Theorem 1.

    Args:
        name: of the machine, or a machine itself, such as one that a cell declares.
        instructions: mnemonics or forms.
        technique: a way to virtualize it; the machine's first by default.
        promises: check fidelity and safety, too.
        settings: the configuration; `"?"` leaves a setting open.
    """

    from popek.checks import survey
    from popek.report import classification as report
    from popek.report import graphs

    request = _request(name, technique, settings, promises=promises, witnesses=survey.ONE_EACH)
    found = survey.survey(request, forms=_forms(request.subject.machine, instructions))
    return Shown(found, report.survey, lambda: graphs.premise(found))


@_in_one_line
def explain(
    name: str | Machine[Any], instruction: str, *, technique: str | None = None, **settings: Setting
) -> Shown[Explanation]:
    """Everything about an instruction, with witnesses; its figure is what leaks into what."""

    from popek.checks import explanation
    from popek.report import explanation as explanation_report
    from popek.report import graphs

    request = _request(name, technique, settings, promises=True)
    found = explanation.explain(request, instruction)
    drawn = [form.leaks for form in found.forms if form.leaks is not None]
    return Shown(found, explanation_report.explanation, lambda: graphs.sensitivity_figure(drawn))


@_in_one_line
def critical_when(
    name: str | Machine[Any], *instructions: str, technique: str | None = None, **settings: Setting
) -> Shown[Conditions]:
    """Under which of the settings that are left open (`"?"`) instructions are critical."""

    from popek.checks import conditions
    from popek.report import conditions as conditions_report
    from popek.report import graphs

    request = _request(name, technique, settings)
    found = conditions.critical_when(request, forms=_forms(request.subject.machine, instructions))
    values = {each: request.subject.machine.setting(each).values for each in found.open}
    return Shown(found, conditions_report.conditions, lambda: graphs.settings(found, values))


@_in_one_line
def leaks(
    name: str | Machine[Any], *instructions: str, technique: str | None = None, **settings: Setting
) -> Figure:
    """Which state component leaks through which instruction into which result."""

    from popek.checks.classify import Classifier
    from popek.checks.leaks import leaks_of
    from popek.report import graphs

    subject = _subject(name, technique, settings)
    known, classifier = subject.machine, Classifier(subject)
    forms = _forms(known, instructions) or list(known.instructions)
    return graphs.sensitivity_figure(
        leaks_of(classifier.classify(known.instructions[form])) for form in forms
    )


@_in_one_line
def paths(name: str | Machine[Any], instruction: str) -> Figure:
    """The path tree of an instruction's first form: what it asks, in order, and how each way ends.

    In the machine's usual operating mode.
    """

    from popek.checks.subject import Subject
    from popek.report import graphs

    subject = Subject.of(name)
    first = subject.machine.find(instruction)[0]
    return graphs.path_tree(subject.machine, first, subject.explore(first))


@_in_one_line
def beside(*names: str, only: Iterable[str] = ()) -> Shown[Beside]:
    """Kinds of hardware assistance, such as `"vt-i"` and `"vt-x"`, with the same questions asked of each."""

    from popek.report import assistance as assistance_report
    from popek_proofs.assistance.comparison import Compared, find_queries
    from popek_proofs.assistance.comparison import compare as compare_assistances

    chosen = [Compared(_desk(name)) for name in names or registry.assistances()]
    found = compare_assistances(chosen, find_queries(tuple(only)))
    return Shown(found, assistance_report.table)


# -- theorems and claims --------------------------------------------------------------------------


@_in_one_line
def prove(name: str | Machine[Any], *, technique: str | None = None, **settings: Setting) -> Shown[Any]:
    """A proposition or a group of them (`"theorem1"`), or what the theorems say of a machine.

    The figure of a group shows how its propositions rest on one another.
    """

    from popek.report import graphs
    from popek.report import proofs as proofs_report
    from popek_proofs import known_propositions
    from popek_proofs import prove as prove_propositions
    from popek_proofs.theorems.instantiate import instantiate

    if not isinstance(name, str) or name in registry.makers() or name.endswith(".py"):
        found: Instantiation[Any] = instantiate(_subject(name, technique, settings))
        return Shown(found, proofs_report.instantiation)
    proved = prove_propositions([name], second_solver=_second_solver())
    group = [p for p in known_propositions() if p.id.partition(".")[0] == name.partition(".")[0]]
    return Shown(proved, proofs_report.propositions, lambda: graphs.propositions(group))


@_in_one_line
def safety(
    name: str | Machine[Any],
    *instructions: str,
    technique: str | None = None,
    shows: bool = False,
    **settings: Setting,
) -> Shown[Safety]:
    """Whether a guest can get out: with all that the VMM sees to, and without each of it.

    Args:
        instructions: mnemonics or forms that alone are asked about.
        shows: find the instructions whose result shows something of the VMM's, too.
    """

    from popek.report import safety as safety_report
    from popek_proofs.safety import safety as find_ways_out

    subject = _subject(name, technique, settings)
    forms = [i for wanted in instructions for i in subject.machine.find(wanted)] or None
    found = find_ways_out(subject, forms=forms, shows=shows)
    return Shown(found, safety_report.safety)


@_in_one_line
def devices(
    name: str, attachment: str | None = None, *, drop: Sequence[str] = (), forms: Sequence[str] | None = ()
) -> Shown[DeviceSafety]:
    """What a guest's own device can do to the monitor, by induction; the figure is of a trace, if there is one.

    Args:
        name: a machine with a device.
        attachment: how the monitor attaches it.
        drop: rules, duties and premises to leave out.
        forms: of the processor; None for those that the machine names.
    """
    from popek.report import devices as devices_report
    from popek_proofs.devices import device_safety

    found = device_safety(registry.with_devices(name), attachment, drop, forms)
    return Shown(found, devices_report.safety, lambda: devices_report.figure(_only_trace(found)))


def _only_trace(found: DeviceSafety) -> DeviceTrace:
    if not found.traces:
        raise NotebookError("there is no trace: every promise holds, or none was found")
    return found.traces[0]


def _second_solver() -> Any:
    """cvc5, where it is installed."""
    from popek.solving.second_solver import available, second_answer

    return second_answer if available() else None


@_in_one_line
def check(*claims: str, of: Machine[Any] | None = None) -> Shown[list[ClaimVerdict]]:
    """Published claims, or those of a TOML file, against the semantics.

    Args:
        claims: ids, files, or the TOML text of a claim itself.
        of: the machine of which a text speaks, whatever it names.
    """

    from popek.report import claims as claims_report
    from popek_proofs.claim_checks import evaluate

    chosen = [one for claim in claims or [""] for one in _claims(claim, of)]
    return Shown(evaluate(chosen), claims_report.claims)


def _claims(claim: str, of: Machine[Any] | None) -> list[Claim]:
    from popek_proofs.claims import parse, select

    return parse(claim, "claim", of) if "\n" in claim else select([claim] if claim else [])


# -- Popek and Goldberg's machine, running --------------------------------------------------------


@_in_one_line
def vm_map(**settings: Setting) -> Figure:
    """Where the guest's storage and registers are in the hardware, on Popek and Goldberg's machine."""

    from popek.report import graphs
    from popek_proofs import paper_machine

    known = _pg74()
    chosen = _subject(known, None, settings).configuration
    return graphs.storage_map(paper_machine.monitor(known, chosen), paper_machine.guest(chosen))


@_in_one_line
def run(*program: str, hybrid: bool = False, user: bool = False, **settings: Setting) -> Figure:
    """A program on Popek and Goldberg's machine, bare and under a monitor.

    Args:
        program: instructions, with operands such as `"MOVE 2, 3"`.
        hybrid: interpret everything in virtual supervisor mode (Theorem 3).
        user: start in user mode.
    """

    from popek.kernel.machine import UnknownNameError
    from popek.report import graphs
    from popek_proofs import paper_machine
    from popek_proofs.theorems.red_pill import lines

    known = _pg74()
    chosen = _subject(known, None, settings).configuration
    spelled = {str(line): line for line in lines(known, range(paper_machine.CELLS))}
    for text in program:
        if text not in spelled:
            raise UnknownNameError("line", text, spelled)
    monitor = paper_machine.monitor(known, chosen, hybrid=hybrid)
    return graphs.trace(monitor, paper_machine.guest(chosen, user=user), [spelled[text] for text in program])


@_in_one_line
def red_pill(*, hybrid: bool = False, longest: int = 2, **settings: Setting) -> Shown[Search[Any]]:
    """The shortest program that tells Popek and Goldberg's machine from a virtual one; its figure runs it."""

    from popek.report import graphs
    from popek_proofs import paper_machine

    known = _pg74()
    chosen = _subject(known, None, settings).configuration
    found = paper_machine.search(known, chosen, hybrid=hybrid, longest=longest)
    monitor = paper_machine.monitor(known, chosen, hybrid=hybrid)

    def figure() -> Figure:
        if found.pill is None:
            raise NotebookError(f"no program of up to {longest} instructions tells")
        return graphs.trace(monitor, found.pill.start, found.pill.program)

    return Shown(found, _search_report, figure)


def _search_report(found: Search[Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    pill: RedPill[Any] | None = found.pill
    tried = ", ".join(f"{count} of length {n}" for n, count in enumerate(found.tried, 1)) or "none"
    if pill is None:
        return Group(Text("no program tells", "bold green"), Text(f"programs tried: {tried}", "dim"))
    return Group(
        Text.assemble((f"breaks {pill.breaks}: ", "bold red"), str(pill)),
        Text(f"programs that do not tell: {tried}", "dim"),
    )


# -- VMCSs ----------------------------------------------------------------------------------------


@_in_one_line
def vmcs(source: str | Path, capabilities: str | None = None) -> Shown[Diagnosis]:
    """What a VM entry with the VMCS of a dump does, and why; a field's figure shows the bits to repair in red.

    Args:
        source: a file, or the text of a dump itself.
        capabilities: a processor: a preset's name, or a file with capability MSRs.
    """

    from popek.architectures.vtx.dumps.diagnosis import diagnose
    from popek.report import html
    from popek.report import vmcs as vmcs_report

    dump = _dump(source)
    found = diagnose(dump, _processor(dump, capabilities))
    return Shown(
        found, lambda it: html.printed(vmcs_report.print_check, it), lambda field: _bits(found, field)
    )


@_in_one_line
def vmcs_repair(patient: Shown[Diagnosis], *, keep: Collection[str] = ()) -> Shown[Repair]:
    """The smallest change with which the entry succeeds.

    Args:
        patient: what `vmcs` returned.
        keep: ids of fields that must not change.
    """

    from popek.report import html
    from popek.report.vmcs_repair import print_repair

    name = patient.answer.dump.name
    return Shown(
        _repair(patient.answer, keep),
        lambda it: html.printed(lambda console, found: print_repair(console, name, found), it),
    )


@_in_one_line
def vmcs_diff(first: str | Path, second: str | Path) -> Shown[DumpComparison]:
    """Two dumps, field by field and bit by bit."""

    from popek.architectures.vtx.dumps.comparison import compare
    from popek.report import html
    from popek.report import vmcs as vmcs_report

    pair = _dump(first), _dump(second)
    found = compare(*pair, (_processor(pair[0], None), _processor(pair[1], None)))
    return Shown(found, lambda it: html.printed(vmcs_report.print_comparison, it))


@_in_one_line
def vmcs_explain(subject: str) -> Shown[list[Any]]:
    """A check, a field or a bit, such as `GUEST-CR-09`, `0x6802` or `PCIDE`."""

    from rich.console import Group

    from popek.architectures.vtx.dumps.explanation import explain as explain_vmcs
    from popek.report import html
    from popek.report import vmcs as vmcs_report

    found = explain_vmcs(subject)
    return Shown(found, lambda it: Group(*(html.printed(vmcs_report.print_explanation, one) for one in it)))


# -- hardware assistance --------------------------------------------------------------------------


@_in_one_line
def assist_exits(technique: str, *instructions: str) -> Shown[list[Governed]]:
    """Which control decides about which exit; the figure draws it.

    Args:
        technique: a kind of hardware assistance, such as `"vt-x"`.
        instructions: mnemonics or forms; all about which a control decides by default.
    """

    from popek.assistance.exits import governs
    from popek.report import assistance as assistance_report
    from popek.report import assistance_figures

    desk = _desk(technique)
    found = [row for form in _governed(desk, instructions) for row in governs(desk, form)]
    return Shown(
        found,
        lambda it: assistance_report.exits(desk.assistance, it),
        lambda: assistance_figures.exits(desk.assistance, found),
    )


@_in_one_line
def assist_requirements(
    technique: str,
    *instructions: str,
    own: Collection[str] | None = None,
    assume: Mapping[str, int] | None = None,
    witnesses: bool = False,
) -> Shown[list[NeedRow]]:
    """The weakest condition on the controls under which each instruction is faithful and safe.

    Args:
        technique, instructions: as for `assist_exits`.
        own: what the VMM owns; what it does not own is the guest's, and switched.
        assume: what else holds, such as `{"unrestricted": 1}`.
        witnesses: show for each need what happens without it.
    """

    from popek.assistance.needs import derive
    from popek.report import assistance as assistance_report

    desk = _desk(technique)
    profile = desk.assistance.owner(own, assume=assume)
    found = list(derive(desk, _governed(desk, instructions), profile, witnesses=witnesses))
    owner = _owner(desk, own, assume)
    return Shown(found, lambda rows: assistance_report.requirements(owner, rows))


@_in_one_line
def assist_synthesize(
    technique: str,
    processor: str | None = None,
    *,
    own: Collection[str] | None = None,
    assume: Mapping[str, int] | None = None,
    only: Collection[str] = (),
) -> Shown[Synthesis]:
    """The controls that are faithful and safe, exist, and exit least; the figure shows their bits.

    Args:
        technique: as for `assist_exits`.
        processor: for VT-x a capability preset's name, or a file with capability MSRs.
        own, assume: as for `assist_requirements`.
        only: mnemonics or forms that alone are asked about.
    """

    from popek.assistance.synthesis import processor_of, synthesize
    from popek.report import assistance as assistance_report
    from popek.report import assistance_figures

    desk = _desk(technique)
    chosen = processor_of(desk, processor)
    forms = desk.find(only) if only else None
    found = synthesize(desk, chosen, None if own is None else list(own), assume=assume, forms=forms)
    owner = _owner(desk, own, assume)
    return Shown(
        found,
        lambda it: assistance_report.synthesis(owner, it),
        lambda: assistance_figures.controls(chosen, found),
    )


@_in_one_line
def assist_judge(technique: str, configuration: str, *instructions: str) -> Shown[Judgement]:
    """Which instructions run untrapped under a known configuration's controls, and whom that harms.

    Args:
        technique: as for `assist_exits`.
        configuration: a name, such as `KVM`.
        instructions: mnemonics or forms; one form of each about which a control decides by default.
    """

    from popek.assistance.judgement import judge
    from popek.kernel.machine import UnknownNameError
    from popek.report import assistance as assistance_report

    desk = _desk(technique)
    known = {name.lower(): settings for name, settings in desk.assistance.configurations().items()}
    if configuration.lower() not in known:
        raise UnknownNameError("configuration", configuration, desk.assistance.configurations())
    forms = _governed(desk, instructions) if instructions else None
    found = judge(desk.assistance, known[configuration.lower()], forms=forms)
    return Shown(found, assistance_report.judgement)


def _desk(technique: str) -> Desk[Any]:
    from popek.assistance.desk import desk_of

    return desk_of(registry.assistance(technique))


def _governed(desk: Desk[Any], instructions: Iterable[str]) -> Sequence[str]:
    return desk.find(instructions) or desk.forms


def _owner(
    desk: Desk[Any], own: Collection[str] | None, assume: Mapping[str, int] | None
) -> assistance_report.Owner:
    from popek.report import assistance as assistance_report

    names = desk.assistance.everything if own is None else own
    return assistance_report.Owner(desk.assistance, names, assume or {})


def _dump(source: str | Path) -> Dump:
    from popek.architectures.vtx.dumps.reading import read_dumps

    if isinstance(source, str) and "\n" in source:
        found = read_dumps(source.encode(), "text")
    else:
        found = read_dumps(Path(source).read_bytes(), Path(source).name)
    if len(found) != 1:
        raise NotebookError(f"{found[0].name}: holds {len(found)} dumps: expected one")
    return found[0]


def _processor(dump: Dump, wanted: str | None) -> Capabilities:
    from popek.architectures.vtx.capabilities import UNKNOWN
    from popek.architectures.vtx.capability_files import from_mapping, load_capabilities

    said = wanted if wanted is not None else dump.capabilities
    if isinstance(said, str):
        return load_capabilities(said)
    return UNKNOWN if said is None else from_mapping(said, name=dump.name)


def _repair(found: Diagnosis, keep: Collection[str]) -> Repair:
    from popek.architectures.vtx.dumps.diagnosis import vmcs_of
    from popek.vmcs.repair import repair as smallest_repair

    return smallest_repair(vmcs_of(found.dump), found.capabilities, keep=keep)


def _bits(found: Diagnosis, field: str) -> Figure:
    from popek.architectures.vtx.dumps.bits import decode
    from popek.architectures.vtx.fields import FIELDS
    from popek.kernel.machine import UnknownNameError
    from popek.report import graphs

    if field not in found.dump.fields:
        raise UnknownNameError("field of this dump", field, found.dump.fields)
    value = found.dump.fields[field]
    wrong = [bit for change in _repair(found, ()).changes if change.field == field for bit in change.bits]
    return graphs.bit_strip(field, value, FIELDS[field].width, decode(field, value), wrong)


__all__ = [
    "assist_exits",
    "assist_judge",
    "assist_requirements",
    "assist_synthesize",
    "beside",
    "check",
    "classify",
    "critical_when",
    "explain",
    "leaks",
    "machine",
    "machines",
    "paths",
    "prove",
    "red_pill",
    "run",
    "safety",
    "vm_map",
    "vmcs",
    "vmcs_diff",
    "vmcs_explain",
    "vmcs_repair",
]
