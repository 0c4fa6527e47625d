// One answer: the question in words, the witness as two states, the paths, the Python.

import { WORDS, make, spoken } from "./dom.js";

const QUESTIONS = ["privileged", "control_sensitive", "location_sensitive", "mode_sensitive", "resource_sensitive",
  "user_sensitive", "critical", "user_critical", "faithful", "safe", "needless_trap"];
const QUESTION = { needless_trap: "trapping needlessly" };
const WITNESSES = { faithful: ["fidelity"], safe: ["safety"],
  critical: ["mode_sensitive", "resource_sensitive", "location_sensitive", "control_sensitive"],
  user_critical: ["mode_sensitive", "resource_sensitive", "location_sensitive", "control_sensitive"],
  user_sensitive: ["mode_sensitive", "resource_sensitive", "location_sensitive", "control_sensitive"] };
const ASKED = { faithful: "fidelity", safe: "safety" };

export function best(told, wanted) {
  if (wanted && told.row[wanted] !== undefined) return wanted;
  return QUESTIONS.find((name) => witnessOf(told, name) && told.row[name] !== undefined) ?? "privileged";
}

function witnessOf(told, question) {
  if (["critical", "user_critical", "user_sensitive"].includes(question) && told.row[question] !== "yes") return null;
  const name = (WITNESSES[question] ?? [question]).find((one) => told.witnesses[one]);
  return name ? told.witnesses[name] : null;
}

// `acts` has choose(question), edit(form, text), step(message) and `own`.
export function detail(told, question, acts) {
  const answer = told.row[question] ?? "not-asked";
  const parts = [
    make("h2", {}, make("code", {}, told.form)),
    make("p", {}, told.summary),
    make("p", { class: "hint" }, told.source),
    make("div", { class: "questions", role: "group", "aria-label": "Questions" }, ...QUESTIONS
      .filter((name) => told.row[name] !== undefined)
      .map((name) => make("button", { type: "button", "aria-pressed": String(name === question), onclick: () => acts.choose(name) },
        `${spoken(name)}: ${WORDS[told.row[name]]}`))),
    make("h3", {}, "Is ", make("code", {}, told.form), ` ${QUESTION[question] ?? spoken(question)}?`),
    make("p", {}, `That is: ${told.definitions[question]}.`),
    make("p", { class: "answer" }, make("b", {}, `${WORDS[answer][0].toUpperCase()}${WORDS[answer].slice(1)}`), reason(told, question, answer)),
  ];
  const asked = told.asked[ASKED[question] ?? question];
  if (asked) parts.push(make("p", { class: "hint" }, `Asked: ${asked.question}. Answered by: ${asked.by.join(", ")}.`));
  if (told.disagreement) parts.push(make("p", { class: "note" }, told.disagreement));
  const found = witnessOf(told, question);
  if (found) parts.push(...witness(found));
  parts.push(...paths(told), ...numbers(told, found, acts), ...python(told, acts));
  return parts;
}

function reason(told, question, answer) {
  if (told.row.not_asked?.[question]) return `: ${told.row.not_asked[question]}.`;
  if (question === "critical" && answer === "yes") return ": it is sensitive and it is not privileged, which refutes the premise of Theorem 1.";
  if (question === "user_critical" && answer === "yes") return ": it is user-sensitive and not privileged, which refutes the premise of Theorem 3.";
  const broken = told.row.breaches?.[ASKED[question]];
  if (broken) return `: ${broken}.`;
  if (told.row.remark && answer === "unknown") return `: ${told.row.remark}.`;
  if (question === "privileged") return ": see how its paths end.";
  return ".";
}

// -- a witness: two states side by side, before and after the step

function witness(found) {
  const place = make("div", { class: "witness" });
  let after = false;
  const show = (focus) => {
    const step = make("button", { type: "button", class: "step", onclick: () => { after = !after; show(true); } },
      after ? "Step back" : `Step: ${found.assembly}`);
    place.replaceChildren(make("h3", {}, "Witness"), make("p", {}, found.story), states(found, after),
      make("div", { class: "bar" }, step, make("span", { role: "status", class: "hint" }, after
        ? found.runs.map((run) => `${run.label}: ${run.describe}`).join("; ") : "Before the instruction, on numbers.")));
    if (focus) step.focus();
  };
  show(false);
  return [place];
}

function states(found, after) {
  const names = [...new Set(found.runs.flatMap((run) => [...Object.keys(run.before), ...Object.keys(run.changes)]))];
  const value = (run, name, then) => {
    if (then && run.changes[name]) return run.changes[name][1];
    if (run.before[name] !== undefined) return run.before[name];
    if (run.changes[name]) return run.changes[name][0];
    const other = found.runs.find((one) => one.reset[name] !== undefined) ?? null;
    return other ? other.reset[name] : found.runs.find((one) => one.changes[name])?.changes[name][0] ?? "";
  };
  const rows = names.map((name) => {
    const shown = found.runs.map((run) => value(run, name, after));
    const fresh = after && found.runs.some((run) => run.changes[name]);
    return make("tr", { class: `${new Set(shown).size > 1 ? "apart" : ""}${fresh ? " fresh" : ""}` }, make("th", { scope: "row" }, name),
      ...found.runs.map((run, number) => make("td", {}, after && run.changes[name]
        ? `${run.changes[name][0]} → ${run.changes[name][1]}` : shown[number])));
  });
  const ends = found.runs.map((run) => make("td", {}, !after ? "…" : run.kind === "completes" ? "completes" : run.describe));
  rows.push(make("tr", {}, make("th", { scope: "row" }, found.assembly), ...ends));
  return make("table", { class: "states" }, make("caption", { class: "visually-hidden" }, after ? "After the step" : "Before the step"),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, after ? "after" : "before"),
      ...found.runs.map((run) => make("th", { scope: "col" }, run.label)))), make("tbody", {}, ...rows));
}

// -- the paths

function paths(told) {
  if (!told.tree) return [];
  return [make("h3", {}, `What it asks, in order: ${told.paths} ${told.paths === 1 ? "path" : "paths"}`),
    make("ul", { class: "tree" }, branch(told.tree, ""))];
}

function branch(node, way) {
  const line = [way ? make("span", { class: "way" }, `${way}:`) : ""];
  if (node.kind) line.push(make("span", { class: `end ${node.kind}` }, node.text));
  else line.push(make("code", { title: node.whole }, node.text));
  const below = ["yes", "no"].filter((name) => node[name]).map((name) => branch(node[name], name));
  return make("li", {}, ...line, below.length ? make("ul", {}, ...below) : "");
}

// -- one step on numbers of one's own

function numbers(told, found, acts) {
  const run = found?.runs[0];
  const lines = run ? [...Object.entries(run.before).map(([name, value]) => `${name} = ${value}`),
    ...Object.entries(run.operands ?? {}).map(([name, value]) => `operand ${name} = ${value}`)] : [];
  const text = make("textarea", { rows: Math.max(4, lines.length + 1), class: "code", spellcheck: "false", id: "step-numbers" });
  text.value = lines.join("\n");
  const place = make("div", { "aria-live": "polite" });
  const run_it = async () => {
    const before = {}, operands = {};
    for (const line of text.value.split("\n").map((one) => one.trim()).filter(Boolean)) {
      const [name, value] = line.split("=").map((part) => part.trim());
      if (name.startsWith("operand ")) operands[name.slice(8)] = value ?? "";
      else before[name] = value ?? "";
    }
    const answer = await acts.step({ form: told.form, before, operands });
    if (answer.error) return place.replaceChildren(make("p", { class: "error" }, answer.error));
    const rows = Object.entries(answer.changes).map(([name, [old, fresh]]) => make("tr", {}, make("th", { scope: "row" }, name),
      make("td", {}, old), make("td", {}, fresh)));
    place.replaceChildren(make("p", {}, make("b", {}, answer.assembly), answer.trap ? ` traps: ${answer.trap}`
      : answer.not_modelled ? ` is not modelled here: ${answer.not_modelled}` : " completes."),
      rows.length ? make("table", { class: "states" }, make("thead", {}, make("tr", {}, ...["changed", "before", "after"]
        .map((title) => make("th", { scope: "col" }, title)))), make("tbody", {}, ...rows)) : make("p", { class: "hint" }, "Nothing changes."));
  };
  return [make("details", {}, make("summary", {}, "Run it on numbers of yours"),
    make("label", { for: "step-numbers" }, "NAME = value, a line each; the rest is as after reset"), text,
    make("div", { class: "bar" }, make("button", { type: "button", onclick: run_it }, "Run")), place)];
}

// -- its Python

function python(told, acts) {
  if (!told.python) return [];
  const text = make("textarea", { rows: Math.min(24, told.python.split("\n").length + 1), class: "code", spellcheck: "false",
    autocapitalize: "off", id: "python", "aria-label": `Python of ${told.form}` });
  text.value = told.python;
  const derive = () => acts.edit(told.form, text.value);
  text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) derive(); });
  return [make("details", { open: told.edited }, make("summary", {}, told.edited ? "Its Python, as you wrote it" : "Its Python: rewrite it"), text,
    make("div", { class: "bar" }, make("button", { type: "button", id: "derive", onclick: derive }, "Derive with this"),
      told.edited ? make("button", { type: "button", class: "quiet", id: "restore", onclick: () => acts.edit(told.form, null) }, "As it was") : ""))];
}
