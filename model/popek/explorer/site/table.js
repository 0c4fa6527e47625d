// The table of classes: a row for each form, a cell for each answer; arrow keys move in it.

import { SIGNS, WORDS, make, spoken } from "./dom.js";

const BAD = { critical: "yes", faithful: "no", safe: "no" };

export class Table {
  // `open(form, question)` is called for a cell that is chosen.
  constructor(place, columns, open) {
    Object.assign(this, { place, columns, open, rows: new Map(), before: new Map() });
    place.addEventListener("keydown", (event) => this.move(event));
  }

  begin(forms, columns) {
    const same = this.forms?.join() === forms.join() && this.columns === columns;
    this.columns = columns;
    this.before = same ? new Map(this.rows) : new Map();
    this.rows = new Map();
    if (same) {
      for (const cell of this.place.querySelectorAll("td")) cell.classList.remove("changed");
      return;
    }
    this.forms = forms;
    const head = make("tr", {}, make("th", { scope: "col" }, "instruction"),
      ...columns.map((c) => make("th", { scope: "col", title: c.means }, c.title)), make("th", { scope: "col" }, "what leaks or changes"));
    this.body = make("tbody");
    for (const form of forms) this.body.append(this.waiting(form));
    this.place.replaceChildren(make("table", { class: "classes" }, make("caption", { class: "visually-hidden" },
      "Classes of each instruction"), make("thead", {}, head), this.body));
    this.enter(0, 0);
  }

  waiting(form) {
    return make("tr", { "data-form": form }, make("th", { scope: "row" }, this.button(form, "", form, form)),
      ...this.columns.map((c) => make("td", { class: "waiting" }, this.button(form, c.name, "…", `${form}, ${c.title}: not yet`))),
      make("td", { class: "leaks" }));
  }

  button(form, question, text, label) {
    return make("button", { type: "button", class: "cell", tabindex: "-1", "aria-label": label,
      "data-question": question, onclick: () => this.open(form, question) }, text);
  }

  row(told) {
    this.rows.set(told.form, told);
    const line = this.body.querySelector(`tr[data-form="${CSS.escape(told.form)}"]`);
    if (!line) return;
    const old = this.before.get(told.form);
    line.className = told.critical === "yes" ? "critical" : "";
    line.querySelector("th .cell").title = told.summary ?? "";
    this.columns.forEach(({ name, title }, number) => {
      const cell = line.children[number + 1], answer = told[name] ?? "not-asked";
      const bad = BAD[name] === answer, open = cell.classList.contains("open"), changed = old && (old[name] ?? "not-asked") !== answer;
      cell.className = `${answer}${bad ? " bad" : ""}${changed ? " changed" : ""}${open ? " open" : ""}`;
      const button = cell.firstChild;
      button.textContent = (bad ? "✗ " : "") + (name === "faithful" || name === "safe" ? { ...SIGNS, no: "no" } : SIGNS)[answer];
      button.setAttribute("aria-label", `${told.form}, ${spoken(name)}: ${WORDS[answer]}${changed ? `, was ${WORDS[old[name] ?? "not-asked"]}` : ""}`);
      button.title = changed ? `was ${WORDS[old[name] ?? "not-asked"]}` : told.not_asked?.[name] ?? "";
    });
    line.lastChild.textContent = told.remark || told.leaks;
  }

  // What is not yet answered under the new settings is marked, and the old answer is not shown as one.
  stale() {
    for (const [form] of this.before) {
      if (this.rows.has(form)) continue;
      for (const cell of this.body.querySelectorAll(`tr[data-form="${CSS.escape(form)}"] td`)) {
        cell.classList.add("waiting");
        if (cell.firstElementChild) cell.firstElementChild.textContent = "…";
      }
    }
  }

  mark(form, question) {
    for (const cell of this.place.querySelectorAll(".open")) cell.classList.remove("open");
    const line = form && this.body?.querySelector(`tr[data-form="${CSS.escape(form)}"]`);
    const button = line && line.querySelector(`[data-question="${question ?? ""}"]`);
    if (button) {
      button.parentElement.classList.add("open");
      this.reach(button, false);
    }
  }

  // One cell of the table is reached with Tab; from there, arrows lead on.
  enter(row, column) {
    const button = this.body.children[row]?.children[column]?.querySelector(".cell");
    if (button) this.reach(button, false);
  }

  reach(button, focus) {
    for (const other of this.place.querySelectorAll('.cell[tabindex="0"]')) other.tabIndex = -1;
    button.tabIndex = 0;
    if (focus) button.focus();
  }

  move(event) {
    const button = event.target.closest(".cell");
    const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    if (!button || !(event.key in steps || event.key === "Home" || event.key === "End")) return;
    event.preventDefault();
    const line = button.closest("tr"), lines = [...this.body.children], row = lines.indexOf(line);
    let column = [...line.children].indexOf(button.parentElement), to = row;
    if (event.key === "Home") column = 0;
    else if (event.key === "End") column = this.columns.length;
    else { to += steps[event.key][0]; column += steps[event.key][1]; }
    const next = lines[to]?.children[column]?.querySelector(".cell");
    if (next) this.reach(next, true);
  }
}
