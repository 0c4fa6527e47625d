"""The atlas: its rows, what they say against other ways to ask, and the page as a document."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import commands
from popek.checks import counterexample
from popek.checks.explanation import explain
from popek.checks.subject import Subject
from popek.checks.survey import Request
from popek.checks.verdict import Status, Truth
from popek.keeping.store import Store
from popek.machines import machine as find_machine
from popek.machines import makers
from popek.report import atlas_page
from popek.report.atlas_page import page
from popek.solving.second_solver import second_answer
from popek_proofs.atlas import Asked, Verdict, derivation, derive, places
from popek_proofs.atlas.derivation import Depth
from popek_proofs.atlas.entries import KINDS
from popek_proofs.atlas.places import variants
from popek_proofs.claims import THEOREM_1, THEOREM_3, shipped
from popek_proofs.theorems.instantiate import instantiate
from small_atlas import DEEP, TOY, entry, small_atlas

SILENT = "pg74.ring-deprivileging.lpsw-0-srel-0-grel-0-gmode-0-lra-0-drop-0"


def questions() -> list[Asked]:
    return [asked for one in small_atlas().entries for form in one.forms for asked in form.asked.values()]


# -- rows -----------------------------------------------------------------------------------------


def test_every_machine_and_technique_of_the_registry_has_a_row() -> None:
    known = {(name, technique) for name, make in makers().items() for technique in make().techniques}
    found = places()
    assert known <= {(place.name, place.technique) for place in found}
    assert known == {(place.name, place.technique) for place in found if not place.settings}
    assert all(re.fullmatch(r"[a-z0-9.-]+", place.id) for place in found)
    assert not [one for one, count in Counter(place.id for place in found).items() if count > 1]


def test_the_shipped_configurations_fit_their_machines_and_differ_from_the_default() -> None:
    for variant in variants():
        machine = makers()[variant.machine]()
        assert variant.source
        assert set(variant.techniques) <= set(machine.techniques)
        assert any(machine.setting(name).default != value for name, value in variant.settings.items())


def test_a_machine_of_a_file_appears_with_no_edit() -> None:
    (place,) = places([TOY])
    assert (place.name, place.technique, place.id) == (
        "toy",
        "ring-deprivileging",
        "toy.ring-deprivileging.default",
    )


# -- what they say --------------------------------------------------------------------------------


def test_the_verdicts_are_those_of_the_published_claims() -> None:
    compared = 0
    for claim in shipped().values():
        if claim.machine != "pg74" or claim.statement not in (THEOREM_1, THEOREM_3):
            continue
        for one in small_atlas().entries:
            settings = one.place.configuration
            if one.place.name == "pg74" and all(settings[k] == v for k, v in claim.configuration.items()):
                assert {THEOREM_1: one.theorem1, THEOREM_3: one.theorem3}[claim.statement] is claim.expected
                compared += 1
    assert compared >= 4


@pytest.mark.parametrize("number", range(4))
def test_the_verdicts_are_those_of_every_hypothesis_asked(number: int) -> None:
    one = small_atlas().entries[number]
    machine = makers()["pg74"]()
    found = instantiate(
        Subject.of(machine, machine.technique(one.place.technique), one.place.as_configuration())
    )
    assert (one.theorem1, one.theorem3) == (found.theorem1, found.theorem3)


def test_hypotheses_besides_sensitivity_count_where_it_refutes_nothing(tmp_path: Path) -> None:
    text = Path(TOY).read_text(encoding="utf-8").partition('@toy.instruction("GETT"')[0]
    kept, owned = tmp_path / "kept.py", tmp_path / "owned.py"
    kept.write_text(text)
    owned.write_text(text.replace('owned=("mode", "timer")', 'owned=("mode", "timer", "acc")'))
    (plain,) = derive(places([str(kept)]), jobs=1).entries
    assert (plain.verdict, plain.hypotheses) == (Verdict.VIRTUALIZABLE, ())
    (failing,) = derive(places([str(owned)]), jobs=1).entries
    assert failing.verdict is Verdict.NEITHER
    assert {(h.name, h.form) for h in failing.hypotheses} == {
        ("A5_control", form) for form in ("INC", "DINC")
    }


def test_a_hypothesis_that_fails_refutes_and_an_open_one_leaves_open() -> None:
    one = entry("pg74.ring-deprivileging.default")
    assert one.verdict is Verdict.VIRTUALIZABLE
    for name, truth, expected in (
        ("A5_control", Truth.NO, Verdict.NEITHER),
        ("A5_control", Truth.UNKNOWN, Verdict.UNDECIDED),
        ("A1_fidelity", Truth.NO, Verdict.HYBRID),
    ):
        failing = derivation.FailedHypothesis(name, "MOVE a, b", truth, "made up")
        assert type(one)(one.place, one.forms, (failing,)).verdict is expected


def test_the_bars_count_every_form_once_and_needless_traps_as_the_classification_does() -> None:
    for one in small_atlas().entries:
        counts = one.efficiency.counts
        assert set(counts) == set(KINDS)
        assert sum(counts.values()) == len(one.forms)
        needless = sum(form.row.needless_trap is Truth.YES for form in one.forms)
        assert (counts["needless"], one.efficiency.needless) == (needless, needless)
        assert counts["critical"] == sum(form.row.classes["critical"] is Truth.YES for form in one.forms)
    assert entry(SILENT).efficiency.counts["critical"] == 6


def test_every_form_is_there_in_the_order_of_the_machine() -> None:
    for one in small_atlas().entries:
        machine = find_machine(one.place.machine)
        assert [form.row.form for form in one.forms] == list(machine.instructions)
    toy = entry("toy.ring-deprivileging.default")
    assert [form.row.mnemonic for form in toy.forms] == ["INC", "INC", "SETT", "GETT", "GETT"]


def test_a_form_of_which_something_is_unknown_is_undecided() -> None:
    form = entry("toy.ring-deprivileging.default").forms[0]
    assert form.kind == "direct"
    unsure = {**form.row.classes, "sensitive": Truth.UNKNOWN}
    row = type(form.row)(form.row.form, form.row.mnemonic, "", unsure, needless_trap=Truth.NO)
    assert type(form)(row).kind == "undecided"
    for needless, kind in ((Truth.UNKNOWN, "undecided"), (Truth.YES, "needless"), (Truth.NO, "direct")):
        row = type(form.row)(form.row.form, form.row.mnemonic, "", form.row.classes, needless_trap=needless)
        assert type(form)(row).kind == kind


def test_witnesses_and_hashes_are_those_of_an_explanation() -> None:
    one = entry("pg74.ring-deprivileging.gmode-0")
    request = Request(Subject.of("pg74", None, one.place.as_configuration()), promises=True)
    (explained,) = explain(request, "GMODE").forms
    (form,) = [form for form in one.forms if form.row.form == "GMODE a"]
    assert form.witnesses["mode_sensitive"] == explained.witnesses["mode_sensitive"]
    assert form.witnesses["fidelity"] == explained.witnesses["fidelity"]
    hashes = {name: asked.sha256 for name, asked in form.asked.items() if asked.sha256}
    assert hashes == {name: explained.evidence[name]["smtlib_sha256"] for name in hashes}
    assert len(hashes) >= 3


def test_every_class_that_is_met_is_shown_by_a_witness_of_the_mnemonic() -> None:
    shown = 0
    for one in small_atlas().entries:
        known = {(f.row.mnemonic, name.removeprefix("user_")) for f in one.forms for name in f.witnesses}
        for form in one.forms:
            for name, asked in form.asked.items():
                if asked.truth is Truth.YES and name.endswith("_sensitive"):
                    assert (form.row.mnemonic, name.removeprefix("user_")) in known
                    shown += 1
    assert shown > 20


def test_a_second_solver_gives_the_same_answers_to_the_texts() -> None:
    texts = {asked.sha256: asked for asked in questions() if asked.packed}
    assert len(texts) > 60
    for sha256, asked in texts.items():
        assert hashlib.sha256(asked.smtlib.encode()).hexdigest() == sha256
        assert second_answer(asked.smtlib).value == asked.answer, asked.title


# -- how they are made ----------------------------------------------------------------------------


def test_several_processes_find_the_same() -> None:
    wanted = [place for place in places(["pg74"]) if not place.settings]
    depth = Depth(witnesses=True)
    assert derive(wanted, depth, jobs=2).entries == derive(wanted, depth, jobs=1).entries


def test_kept_answers_are_used_unless_they_are_spoilt_or_of_other_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("popek.STARTED_NS", 2**62)  # a developer edits while tests run
    wanted, kept = places([TOY]), Store(tmp_path)
    first = derive(wanted, DEEP, jobs=1, cache=kept)
    work, done = derivation._work, []
    monkeypatch.setattr(derivation, "_work", lambda task: done.append(task.mnemonic) or work(task))
    assert derive(wanted, DEEP, jobs=1, cache=kept).entries == first.entries
    assert done == []
    get = kept.get
    monkeypatch.setattr(kept, "get", lambda key: b"[[{}]]" if get(key) else None)
    assert derive(wanted, DEEP, jobs=1, cache=kept).entries == first.entries
    assert len(done) == 3
    monkeypatch.setattr(kept, "get", get)
    monkeypatch.setattr("popek.keeping.sources.LIBRARIES", ("attrs", "no such library"))
    assert derive(wanted, DEEP, jobs=1, cache=kept).entries == first.entries
    assert len(done) == 6
    assert derive(wanted, DEEP, jobs=1, cache=kept).entries == first.entries
    assert len(done) == 6


def test_a_witness_that_does_not_replay_is_told_and_hides_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise counterexample.ReplayError("it does not replay")

    monkeypatch.setattr("popek.checks.class_witness.assert_replay", never)
    found = derive(places([TOY]), Depth(witnesses=True), jobs=1)
    assert found.defects
    assert found.entries[0].theorem1 is Status.REFUTED
    assert "it does not replay" in page(found)


# -- the page as a document -----------------------------------------------------------------------

VOID = {"meta", "link", "input", "br", "img", "hr"}


class Document(HTMLParser):
    """Start tags with their attributes; tags that are not closed in order are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


@pytest.fixture(scope="module")
def document() -> Document:
    return Document(page(small_atlas()))


def data_of(document: Document) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document.scripts[0])
    return found


def test_tags_are_closed_and_ids_are_unique(document: Document) -> None:
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert [one for one, count in Counter(ids).items() if count > 1] == []
    assert len(document.scripts) == 2
    labelled = [
        attributes["aria-labelledby"] for _, attributes in document.tags if "aria-labelledby" in attributes
    ]
    assert set(labelled) - set(ids) == {"place-title", "instruction-title"}  # the script makes these


def test_nothing_is_loaded_from_elsewhere(document: Document) -> None:
    for _, attributes in document.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)", page(small_atlas()))


def test_each_row_has_a_link_a_bar_with_words_and_theorems(document: Document) -> None:
    hrefs = [attributes.get("href") for tag, attributes in document.tags if tag == "a"]
    bars = [attributes["aria-label"] for tag, attributes in document.tags if tag == "svg"]
    for one in small_atlas().entries:
        assert f"#/{one.place.id}" in hrefs
    assert len(bars) == len(small_atlas().entries)
    assert "6 critical: sensitive and not privileged" in str(bars[3])


def test_texts_are_never_taken_for_markup(document: Document) -> None:
    data = data_of(document)
    (toy,) = [place for place in data["places"].values() if place["name"] == "toy"]
    assert toy["title"] == "A toy </script><b>&amp; more"
    assert not [tag for tag, _ in document.tags if tag == "b" and "class" in _]
    assert "A toy &lt;/script&gt;&lt;b&gt;&amp;amp; more" in page(small_atlas())


def test_the_data_name_the_texts_by_their_hashes(document: Document) -> None:
    data = data_of(document)
    seen = set()
    for place in data["places"].values():
        for form in place["forms"]:
            assert len(form["answers"]) == len(data["answers"])
            for _, answer, _, *rest in form.get("asked", {}).values():
                assert answer in ("sat", "unsat", "unknown")
                if rest:
                    sha256, number, size = rest
                    text = gzip.decompress(base64.b64decode(data["texts"][number]))
                    assert (hashlib.sha256(text).hexdigest(), len(text)) == (sha256, size)
                    seen.add(number)
    assert seen == set(range(len(data["texts"])))


def test_the_page_stays_small_texts_behind_witnesses_are_kept_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    behind = {
        form.asked[name].sha256: len(form.asked[name].packed)
        for one in small_atlas().entries
        for form in one.forms
        for name in form.witnesses
        if form.asked[name].packed
    }
    kept = atlas_page._kept_texts(small_atlas(), sum(behind.values()))
    assert set(kept) == set(behind)
    assert len({asked.sha256 for asked in questions() if asked.packed}) > len(kept)
    whole = len(page(small_atlas()))
    monkeypatch.setattr(atlas_page, "PAGE", whole // 2)
    small = page(small_atlas())
    assert len(small) < 0.75 * whole
    data = data_of(Document(small))
    left_out = [rest for p in data["places"].values() for f in p["forms"] for rest in f["asked"].values()]
    assert any(rest[4:5] == [-1] for rest in left_out)


# -- the command ----------------------------------------------------------------------------------


popek = partial(commands.popek, "atlas")


def test_the_command_writes_the_page_and_prints_the_table(tmp_path: Path) -> None:
    svg = tmp_path / "atlas.svg"
    done = popek("--machines", TOY, "--html", str(tmp_path / "made"), "--jobs", "1", "--svg", str(svg))
    assert done.returncode == 0, done.stderr
    assert "refuted by classes  refuted by classes  neither theorem" in done.stdout
    assert "GETT" in done.stdout
    file = tmp_path / "made" / "index.html"
    assert str(file) in done.stdout
    words = ElementTree.parse(svg).getroot().get("aria-label") or ""
    assert "2 direct, 1 emulated, 2 critical; by neither theorem; needless traps 0 of 2, 0%" in words
    assert data_of(Document(file.read_text(encoding="utf-8")))["places"]["toy.ring-deprivileging.default"]


def test_the_json_has_its_schema_and_nothing_else_on_standard_output() -> None:
    done = popek("--machines", TOY, "--json", "--jobs", "1")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    (row,) = found["entries"]
    assert found["schema"] == "popek/atlas/1"
    assert (row["theorem1"], row["theorem3"], row["verdict"]) == ("refuted", "refuted", "by neither theorem")
    assert row["refuted_by_classes"] == [1, 3]
    assert row["critical_mnemonics"] == ["GETT"]
    assert row["efficiency"] == {
        "forms": {"direct": 2, "needless": 0, "emulated": 1, "critical": 2, "undecided": 0},
        "needless": 0,
        "innocuous": 2,
        "share": 0.0,
    }


def bad() -> Iterator[tuple[list[str], str]]:
    yield ["--machines", "pg47"], "popek: unknown machine 'pg47'; did you mean pg74?"
    yield ["--machines", "./none.py"], "popek: none.py: No such file or directory"
    yield ["--machines", TOY, "{file}.py"], "popek: {file}.py: toy is the name of a machine of "
    yield ["--techniques", "ring"], "popek: unknown technique 'ring'"
    yield ["--machines", "pg74", "--timeout", "-1"], "popek: --timeout -1: expected a number of seconds"
    yield ["--machines", "pg74", "--jobs", "-1"], "popek: --jobs -1: expected a number of processes"
    yield (
        ["--machines", "pg74", "--html", "{file}"],
        "popek: --html {file}: expected a folder, and this is a file",
    )
    yield ["--machines", "pg74", "--html", "{file}/in"], "popek: --html {file}/in: "
    yield ["--machines", "pg74", "--svg", "{file}/a.svg"], "popek: --svg {file}/a.svg: there is no folder"
    yield ["--machines", "pg74", "--cache", "{file}"], "popek: --cache {file}: expected a folder"


@pytest.mark.parametrize(("arguments", "line"), list(bad()))
def test_bad_input_gets_one_line(arguments: list[str], line: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    file.with_suffix(".py").write_text(Path(TOY).read_text(encoding="utf-8"))
    done = popek(*(argument.replace("{file}", str(file)) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(line.replace("{file}", str(file))), done.stderr
    assert done.stderr.count("\n") == 1


def test_the_kinds_in_a_bar_are_told_without_colours() -> None:
    html = page(small_atlas())
    kinds = re.findall(r'<rect class="(\w+)"[^>]*/>(<path class="mark" d="M[\d.]+ ([\d.]+))?', html)
    places = {kind: place for kind, _, place in kinds}
    assert {"needless", "critical", "emulated"} <= places.keys()
    assert len(set(places.values())) == len(places)  # each at a height of its own, or without a line
