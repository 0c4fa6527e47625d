"""Displays: what they say is what the results say, drawn so that it can be read."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from popek import notebook
from popek.checks.subject import Subject
from popek.notebook import NotebookError
from popek.report import html
from popek.report.svg import Figure
from popek_proofs.paper_machine import START

DUMPS = Path(__file__).parents[1] / "vtx" / "dumps"
CR3 = DUMPS / "16-drakvuf-388-cr3-bit63.txt"
SVG = "{http://www.w3.org/2000/svg}"
CHARACTER = 7.2  # pixels: the width of 12-pixel monospaced text, 0.6 em


def _boxes(figure: Figure) -> list[tuple[str, float, float, float, float, list[str]]]:
    """Kind, place, size and lines of every box."""
    found = []
    for group in ElementTree.fromstring(figure.svg).iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        assert rect is not None
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        lines = ["".join(text.itertext()) for text in group.findall(f"{SVG}text")]
        found.append((group.attrib.get("class", ""), x, y, width, height, lines))
    return found


def _kinds(figure: Figure) -> dict[str, str]:
    """The kind of the box with each first line."""
    return {lines[0]: kind for kind, *_, lines in _boxes(figure) if lines}


FIGURES = {
    "path tree": lambda: notebook.paths("ia32", "CLI"),
    "long path tree": lambda: notebook.paths("pg74", "LPSW"),
    "leaks": lambda: notebook.leaks("ia32", "SGDT", "SMSW r32", "POPF", "CLI"),
    "premise": lambda: notebook.classify("pg74", GMODE=0).figure(),
    "settings": lambda: notebook.critical_when("ia32", "SGDT", "STR", UMIP="?", TSD="?").figure(),
    "map": notebook.vm_map,
    "trace": lambda: notebook.red_pill(DROP=0).figure(),
    "bits": lambda: notebook.vmcs(CR3).figure("GUEST_CR3"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_boxes_neither_overlap_nor_overflow(name: str) -> None:
    figure = FIGURES[name]()
    boxes = _boxes(figure)
    assert len(boxes) >= 4
    for (_, x, y, w, h, _), (_, x2, y2, w2, h2, _) in itertools.combinations(boxes, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 + 0.2 or y2 + h2 <= y + 0.2
    for _, x, y, width, height, lines in boxes:
        assert 0 <= x <= x + width <= figure.width
        assert 0 <= y <= y + height <= figure.height
        assert all(len(line) * CHARACTER <= width for line in lines)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_say_in_words_what_they_draw(name: str) -> None:
    figure = FIGURES[name]()
    assert ElementTree.fromstring(figure.svg).attrib["aria-label"] == figure.words == str(figure)
    if name != "bits":
        words = " ".join(figure.words.split())
        for *_, lines in _boxes(figure):
            assert not lines or " ".join(lines[0].split()) in words


def test_a_saved_figure_is_a_file_of_its_own(tmp_path: Path) -> None:
    notebook.paths("ia32", "CLI").save(tmp_path / "cli.svg")
    text = (tmp_path / "cli.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text.encode())
    assert root.tag == f"{SVG}svg"
    assert "prefers-color-scheme:dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched


# -- what they say -----------------------------------------------------------------------------------


def test_path_tree_of_cli_is_that_of_the_manual() -> None:
    # SDM vol. 2A, CLI, protected mode: IF is cleared if CPL <= IOPL; with CR4.PVI at CPL 3, VIF; else #GP(0).
    tree = notebook.paths("ia32", "CLI")
    boxes = _boxes(tree)
    asked = [lines[0] for kind, *_, lines in boxes if not kind]
    assert asked == ["ss.rights.dpl <= eflags.iopl ?", "ss.rights.dpl = 3 ?", "cr4.pvi ?"]  # CPL is SS.DPL
    ends = [" ".join(lines) for kind, *_, lines in boxes if kind]
    assert [end.startswith("traps: #GP(0)") for end in ends] == [False, False, True, True]
    assert "eflags.if" in ends[0]
    assert ".vif" in ends[1]
    told = [" ".join(line.split()[:2]) for line in str(tree).split("\n")[1:]]
    assert told == [
        "yes: completes,",
        "no: ss.rights.dpl",
        "yes: cr4.pvi",
        "yes: completes,",
        "no: traps:",
        "no: traps:",
    ]


def test_sensitivity_graph_of_sgdt() -> None:
    from popek.checks.classify import Classifier
    from popek.checks.leaks import leaks_of
    from popek.machines import machine
    from popek.report.graphs import sensitivity

    ia32 = machine("ia32")
    for umip, kind in ((0, "red"), (1, "green")):
        classifier = Classifier(Subject.of(ia32, None, [f"UMIP={umip}"]))
        graph = sensitivity([leaks_of(classifier.classify(ia32.instructions["SGDT m"]))])
        assert graph.nodes["instruction", "SGDT m"]["kind"] == kind
        if umip == 0:  # the register leaks, both of its parts, into what is stored
            assert set(graph.nodes["state", "gdtr"]["leaves"]) == {".base", ".limit"}
            assert graph.has_edge(("state", "gdtr"), ("instruction", "SGDT m"))
            assert graph.has_edge(("instruction", "SGDT m"), ("result", "memory"))


def test_premise_puts_each_instruction_into_its_field() -> None:
    holds, refuted = notebook.classify("pg74").figure(), notebook.classify("pg74", GMODE=0).figure()
    assert "sensitive, not privileged: critical: none" in str(holds)
    assert "sensitive, not privileged: critical: GMODE\n" in str(refuted)
    assert "red" not in {kind for kind, *_ in _boxes(holds)}
    assert "red" in {kind for kind, *_ in _boxes(refuted)}


def test_settings_agree_with_one_question_per_point() -> None:
    figure = notebook.critical_when("ia32", "SGDT", "PUSHF", "RDTSC", UMIP="?", TSD="?").figure()
    for umip, tsd in itertools.product((0, 1), repeat=2):
        once = notebook.classify("ia32", "SGDT", "PUSHF", "RDTSC", UMIP=umip, TSD=tsd)
        for row in once.rows:
            line = next(text for text in str(figure).split("\n") if text.startswith(f"{row.mnemonic}:"))
            word = re.search(rf"UMIP={umip} TSD={tsd} (\S+?)(,|$)", line)
            assert word is not None
            assert (word[1] == "critical") == (row.classes["critical"].value == "yes")


def test_too_many_settings_are_not_drawn() -> None:
    found = notebook.critical_when(
        "pg74", "GMODE", LPSW="?", SREL="?", GREL="?", GMODE="?", LRA="?", DROP="?"
    )
    assert "GMODE=0" in str(found)
    with pytest.raises(ValueError, match="64 combinations"):
        found.figure()


def test_a_map_moves_every_cell() -> None:
    kinds = _kinds(notebook.vm_map())
    assert {f"memory[{START + address}]" for address in range(8)} <= set(kinds)
    assert kinds["mode = 0x1"] == "blue"


def test_traces_are_red_where_the_machines_part() -> None:
    alike = notebook.run("MOVE 4, 3", "SREL 2")
    assert "red" not in {kind for kind, *_ in _boxes(alike)}
    assert "SREL 2 [interpreted]" in " ".join(str(alike).split())
    apart = [(kind, lines[0]) for kind, *_, lines in _boxes(notebook.run("GMODE 2", GMODE=0))]
    assert ("red", "GMODE 2  [direct]") in apart
    # The same program under a hybrid monitor is interpreted, and tells nothing.
    hybrid = notebook.run("GMODE 2", GMODE=0, hybrid=True)
    assert "red" not in {kind for kind, *_ in _boxes(hybrid)}


def test_bits_to_repair_are_red() -> None:
    figure = notebook.vmcs(CR3).figure("GUEST_CR3")
    cells = [(kind, lines[0]) for kind, *_, lines in _boxes(figure)]
    assert len(cells) == 64
    assert int("".join(digit for _, digit in cells), 2) == 0x8000_0000_1A02_F080
    assert [63 - n for n, (kind, _) in enumerate(cells) if kind == "red"] == [63]


def test_lemmas_lead_to_their_theorem() -> None:
    figure = notebook.prove("theorem1.step").figure()
    assert "innocuous commutes → step" in str(figure)
    assert "step → sequences step" in str(figure)
    assert _kinds(figure)["sequences step"] == "green"


# -- tables ------------------------------------------------------------------------------------------


def test_html_keeps_text_styles_and_structure() -> None:
    table = Table("name", box=None)
    table.add_column("count", justify="right")
    table.add_row(Text("E[a] <b>", "bold red"), "1 & 2")
    found = html.fragment(Group("head", Padding(table, (0, 0, 0, 2)), Text("x").append("y", "dim")))
    root = ElementTree.fromstring(f"<body>{found}</body>")
    assert [cell.text for cell in root.iter("th")] == ["name", "count"]
    cells = list(root.iter("td"))
    assert ["".join(cell.itertext()) for cell in cells] == ["E[a] <b>", "1 & 2"]
    assert cells[0][0].attrib["class"] == "bold red"
    assert cells[1].attrib["class"] == "right"
    assert [e.attrib["class"] for e in root.iter("div")] == ["indented"]
    assert "".join(list(root.iter("p"))[-1].itertext()) == "xy"


def test_html_refuses_what_it_cannot_show() -> None:
    with pytest.raises(TypeError, match="Panel"):
        html.fragment(Panel("x"))


def test_plain_text_has_no_markup_and_no_colors() -> None:
    assert html.plain("E[a] := 1") == "E[a] := 1"
    found = str(notebook.machine("pg74"))
    assert "E[a] := E[b]." in found
    assert "\x1b" not in found
    assert "E[a] := E[b]." in notebook.machine("pg74")._repr_html_()


def test_vmcs_keeps_its_colors_in_html() -> None:
    patient = notebook.vmcs(CR3)
    assert '<span class="bold red">FAILS</span>' in patient._repr_html_()
    assert "\x1b" not in str(patient)
    assert "GUEST-CR-09" in str(patient)


def test_answers_pass_on_what_is_behind_them() -> None:
    found = notebook.classify("pg74", GMODE=0)
    assert found.mnemonics("critical") == ["GMODE"]
    assert "mnemonics" in dir(found)
    assert len(notebook.machines()) == len([m.name for m in notebook.machines()]) > 5
    with pytest.raises(AttributeError):
        found.nonsense  # noqa: B018
    with pytest.raises(NotebookError, match="no figure"):
        notebook.machine("pg74").figure()


def _contrast(color: str, page: str) -> float:
    """The contrast ratio of WCAG 2.2, section 1.4.3."""

    def luminance(text: str) -> float:
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(color), luminance(page)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("palette", "page"), [(html.LIGHT, "#ffffff"), (html.DARK, "#1e1e1e")])
def test_colors_can_be_read(palette: str, page: str) -> None:
    colors = re.findall(r"#[0-9a-f]{6}", palette)
    assert len(colors) == 4
    assert all(_contrast(color, page) >= 4.5 for color in colors)


# -- bad questions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: notebook.classify("ia23"), "unknown machine 'ia23'; did you mean ia32"),
        (lambda: notebook.classify("ia32", "SGTD"), "unknown instruction 'SGTD'; did you mean STD or SGDT"),
        (lambda: notebook.classify("ia32", "SGDT", UMPI=1), "did you mean UMIP"),
        (lambda: notebook.classify("ia32", "SGDT", UMIP=7), "UMIP is one of 0, 1"),
        (lambda: notebook.explain("ia32", "SGDT", technique="vtx"), "unknown technique"),
        (lambda: notebook.critical_when("pg74", "GMODE"), "unknown open setting"),
        (lambda: notebook.prove("theorem9"), "theorem9"),
        (lambda: notebook.check("ia32.tds"), "unknown claim 'ia32.tds'"),
        (lambda: notebook.run("MOVE 4"), "unknown line 'MOVE 4'"),
        (lambda: notebook.red_pill().figure(), "no program of up to 2 instructions tells"),
        (lambda: notebook.vmcs("nowhere.txt"), "nowhere.txt"),
        (lambda: notebook.vmcs("no dump at all\n"), "VMCS"),
        (lambda: notebook.vmcs(CR3, "pentium"), "pentium"),
        (lambda: notebook.vmcs(CR3).figure("GUEST_CR9"), "did you mean GUEST_CR4"),
        (lambda: notebook.vmcs_explain("NONSENSE-1"), "NONSENSE-1"),
        (lambda: notebook.machine("./nowhere.py"), "nowhere.py"),
    ],
)
def test_a_bad_question_gets_one_clear_line(ask: object, message: str) -> None:
    assert callable(ask)
    with pytest.raises(NotebookError, match=re.escape(message)) as caught:
        ask()
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert "\n" not in str(caught.value)
