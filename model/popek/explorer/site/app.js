// The page: its state is the address, what changes it goes through `go`.

import { detail, best } from "./detail.js";
import { EXAMPLE, diagnosis } from "./doctor.js";
import { SIGNS, at, make, spoken } from "./dom.js";
import { PLAIN, fragmentOf, stateOf } from "./link.js";
import { Table } from "./table.js";
import { connect } from "./talk.js";

const OWN = "own";
let state = structuredClone({ ...PLAIN });
let popek, known, machine, table, running = null, opened = 0, gone = 0, read = 0, trusted = "", example = "";
// What no longer belongs to the state, and is asked anew: it is never shown meanwhile as if it did.
const due = { machine: true, classes: true, detail: false };

const engine = (text) => { at("engine").textContent = text; };
const tell = (text, ...more) => { at("told").replaceChildren(text, ...more); at("told").hidden = !text; };

async function one(message) {
  let found = {};
  await popek.ask(message, (answer) => { found = answer; });
  return found;
}

const about = () => ({ machine: state.machine, technique: state.technique || undefined, settings: state.settings,
  edits: state.edits, ...(state.machine === OWN ? { text: state.text } : {}) });

// Python that a link brings runs in the browser's sandbox, but `popek explore` runs it on this machine: only when told to.
const code = () => JSON.stringify([state.edits, state.machine === OWN ? state.text : ""]);
const foreign = () => !popek.built && (Object.keys(state.edits).length || (state.machine === OWN && (state.text || example) !== example))
  && trusted !== code();

// -- going from one state to another

async function go(change, { write = true } = {}) {
  const before = state, mine = ++gone;
  state = { ...state, ...change };
  const differs = (...names) => names.some((name) => state[name] !== before[name]);
  if (differs("machine", "text")) due.machine = true;
  if (due.machine || differs("technique", "settings", "promises", "edits")) due.classes = true;
  if (due.classes || differs("form", "question")) due.detail = true;
  if (due.classes) { running?.abort(); waiting(); }
  if (due.detail) at("detail").setAttribute("aria-busy", "true");
  views();
  if (write) {
    const fragment = await fragmentOf(state);
    if (mine !== gone) return; // a later one has what is due to do
    history.replaceState(null, "", `#${fragment}`);
  }
  if (state.view !== "machine") return;
  if (foreign()) return warn();
  tell("");
  if (due.machine) {
    const found = await choose();
    if (mine !== gone) return;
    if (!offer(found)) return;
    due.machine = false;
  }
  if (due.classes) {
    due.classes = false;
    await classify();
    if (mine !== gone) return;
  } else table?.mark(state.form, state.question);
  if (state.form && (due.detail || !at("detail").firstChild)) await open();
  if (!state.form) closed();
  due.detail = false;
}

function closed() {
  at("detail").replaceChildren();
  at("detail").removeAttribute("aria-busy");
}

function views() {
  for (const name of ["machine", "doctor", "about"]) {
    at(name).hidden = state.view !== name;
    if (state.view === name) at(`view-${name}`).setAttribute("aria-current", "page");
    else at(`view-${name}`).removeAttribute("aria-current");
  }
}

function warn() {
  running?.abort();
  at("verdict").className = "verdict";
  at("verdict").removeAttribute("aria-busy");
  at("verdict").replaceChildren();
  tell("This link brings Python, which would run on this machine. Read it first. ",
    make("button", { type: "button", id: "trust", onclick: () => { trusted = code(); go({}, { write: false }).catch(failed); } }, "Run it"),
    make("pre", { class: "code" }, state.machine === OWN ? state.text : "",
      ...Object.entries(state.edits).map(([form, text]) => `# ${form}\n${text}\n`)));
}

// -- the machine, its techniques and settings

async function choose() {
  at("own").hidden = state.machine !== OWN;
  if (state.machine === OWN && !state.text) state.text = example;
  if (state.machine === OWN && at("own-text").value !== state.text) at("own-text").value = state.text;
  try { return await one({ ask: "machine", ...about(), edits: {} }); } catch (error) { return { error: error.message }; }
}

function offer(found) {
  if (found.error) { wrong(found.error); closed(); return false; }
  machine = found;
  at("machine-name").value = state.machine;
  at("technique").replaceChildren(...machine.techniques.map((t) => make("option", { value: t.name, title: t.title }, t.name)));
  at("technique").value = machine.techniques.some((t) => t.name === state.technique) ? state.technique : machine.techniques[0]?.name;
  at("settings").hidden = !machine.settings.length;
  at("switches").replaceChildren(...machine.settings.map(setting));
  return true;
}

function setting(one) {
  const value = () => state.settings[one.name] ?? one.default;
  const label = (v) => one.values.find((each) => each.value === v)?.label ?? String(v);
  const set = (v) => {
    const settings = { ...state.settings, [one.name]: v };
    if (v === one.default) delete settings[one.name];
    return go({ settings });
  };
  const moved = (element) => element.classList.toggle("moved", value() !== one.default);
  if (one.values.length === 2) {
    const [off, on] = one.values.map((v) => v.value);
    const shown = make("span", { class: "value" });
    const button = make("button", { type: "button", role: "switch", class: "setting", title: one.summary, "data-setting": one.name },
      make("span", { class: "track" }), make("span", { class: "name" }, one.name), shown);
    const show = () => {
      button.setAttribute("aria-checked", String(value() === on));
      button.setAttribute("aria-label", `${one.name}: ${one.summary}, ${label(value())}`);
      shown.textContent = label(value());
      moved(button);
    };
    button.addEventListener("click", () => { const next = value() === on ? off : on; set(next).catch(failed); show(); });
    show();
    return button;
  }
  const pick = make("select", { "data-setting": one.name, "aria-label": `${one.name}: ${one.summary}`, title: one.summary },
    ...one.values.map((v) => make("option", { value: v.value }, v.label)));
  const line = make("label", { class: "setting" }, make("span", { class: "name" }, one.name), pick);
  pick.value = value() ?? one.values[0].value;
  pick.addEventListener("change", () => { set(Number(pick.value)).catch(failed); moved(line); });
  moved(line);
  return line;
}

// -- the table

async function classify() {
  running?.abort();
  const mine = (running = new AbortController());
  edits();
  const columns = state.promises ? known.withPromises : known.columns;
  table.begin(machine.forms, columns);
  table.mark(state.form, state.question);
  verdict({ waiting: 0 });
  at("stop").hidden = machine.forms.length < 30;
  let done = 0, last = {};
  const slow = setTimeout(() => table.stale(), 250);
  try {
    await popek.ask({ ask: "classify", ...about(), promises: state.promises }, (answer) => {
      if (mine.signal.aborted) return;
      if (answer.row) { table.row(answer.row); verdict({ waiting: ++done }); }
      else last = answer;
    }, mine.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    last = { error: error.message };
  } finally {
    clearTimeout(slow);
    if (running === mine) at("stop").hidden = true;
  }
  if (mine.signal.aborted) return;
  if (last.error) return wrong(last.error);
  verdict(last);
}

function wrong(text) {
  at("verdict").className = "verdict unknown";
  at("verdict").removeAttribute("aria-busy");
  at("verdict").replaceChildren(make("p", { class: "main" }, "No verdict"), make("p", {}, text));
  at("table-place").replaceChildren();
  table.forms = undefined;
}

const SAYS = {
  holds: (theorem) => `✓ The premise of Theorem ${theorem} holds`,
  refuted: (theorem) => `✗ The premise of Theorem ${theorem} is refuted`,
  unknown: (theorem) => `? The premise of Theorem ${theorem} is unknown`,
};
const BECAUSE = { holds: ["every sensitive instruction is privileged", "every user-sensitive instruction is privileged"],
  unknown: ["an answer is missing", "an answer is missing"] };

function waiting(text = "") {
  const place = at("verdict");
  place.className = "verdict";
  place.setAttribute("aria-busy", "true");
  place.replaceChildren(make("p", { class: "main" }, "Deriving…"), make("p", {}, text));
}

function verdict(told) {
  const place = at("verdict");
  if (told.waiting !== undefined) return waiting(`${told.waiting} of ${machine.forms.length} forms`);
  place.removeAttribute("aria-busy");
  const names = (found) => (found.length > 9 ? `${found.slice(0, 9).join(", ")} and ${found.length - 9} more` : found.join(", "));
  const line = (theorem, answer, found) => `${SAYS[answer](theorem)}: ${answer === "refuted"
    ? `${names(found)} ${found.length > 1 ? "are" : "is"} ${theorem === 3 ? "user-" : ""}sensitive and not privileged` : BECAUSE[answer][theorem === 3 ? 1 : 0]}.`;
  place.className = `verdict ${told.theorem1}`;
  place.replaceChildren(make("p", { class: "main" }, line(1, told.theorem1, told.critical)), make("p", {}, line(3, told.theorem3, told.user_critical)));
}

function edits() {
  const forms = Object.keys(state.edits);
  at("edits").hidden = !forms.length;
  at("edits").replaceChildren(`Rewritten: ${forms.join(", ")}. `, make("button", { type: "button", class: "quiet",
    onclick: () => edit(null, null) }, "All as it was"));
}

// -- one answer

async function open() {
  const place = at("detail"), mine = ++opened;
  place.setAttribute("aria-busy", "true"); // what was said of this form stays readable until it is answered anew
  if (place.dataset.form !== state.form || !place.firstChild) place.replaceChildren(make("p", { role: "status" }, `Asking about ${state.form}…`));
  let told;
  try { told = await one({ ask: "explain", ...about(), form: state.form }); } catch (error) { told = { error: error.message }; }
  if (mine !== opened) return;
  place.removeAttribute("aria-busy");
  if (!state.form) return;
  place.dataset.form = state.form;
  if (told.error) {
    const text = place.querySelector("#python");
    place.querySelector(".error")?.remove();
    if (text) return text.before(make("p", { class: "error", role: "alert" }, told.error));
    const kept = state.edits[state.form];
    const again = make("textarea", { class: "code", rows: 12, id: "python", "aria-label": `Python of ${state.form}` });
    again.value = kept ?? "";
    return place.replaceChildren(make("h2", {}, make("code", {}, state.form)), make("p", { class: "error", role: "alert" }, told.error),
      ...(kept ? [again, make("div", { class: "bar" }, make("button", { type: "button", id: "derive", onclick: () => edit(state.form, again.value) }, "Derive with this"),
        make("button", { type: "button", class: "quiet", id: "restore", onclick: () => edit(state.form, null) }, "As it was"))] : []));
  }
  show(told);
}

function show(told) {
  const question = best(told, state.question);
  at("detail").replaceChildren(...detail(told, question, {
    choose: (name) => {
      state = { ...state, question: name };
      fragmentOf(state).then((fragment) => history.replaceState(null, "", `#${fragment}`));
      table.mark(state.form, name);
      show(told);
      at("detail").querySelector('[aria-pressed="true"]').focus();
    },
    edit,
    step: (message) => one({ ask: "step", ...about(), ...message }),
  }));
}

function edit(form, text) {
  const edits = form === null ? {} : { ...state.edits, [form]: text };
  if (text === null) delete edits[form];
  state = { ...state }; // what is typed here is the user's own
  trusted = JSON.stringify([edits, state.machine === OWN ? state.text : ""]);
  go({ edits }).catch(failed);
}

async function derive() {
  trusted = JSON.stringify([{}, at("own-text").value]);
  due.machine = true;
  await go({ text: at("own-text").value, edits: {}, form: "", question: "", settings: {}, technique: "" });
}

async function diagnose() {
  const mine = ++read;
  at("diagnosis").replaceChildren(make("p", { role: "status" }, "Reading…"));
  await go({ dump: at("dump").value });
  const found = await one({ ask: "doctor", text: state.dump });
  if (mine === read) at("diagnosis").replaceChildren(...diagnosis(found));
}

const failed = (error) => { if (error.name !== "AbortError") tell(`${error.message}`); };

// -- beginning

function wire() {
  for (const name of ["machine", "doctor", "about"])
    at(`view-${name}`).addEventListener("click", () => go({ view: name }).then(() => at("main").focus()).catch(failed));
  at("skip").addEventListener("click", (event) => { event.preventDefault(); at(state.view === "machine" ? "table-place" : "main").focus(); });
  at("machine-name").addEventListener("change", () => go({ machine: at("machine-name").value, technique: "", settings: {}, form: "", question: "", edits: {},
    text: at("machine-name").value === OWN ? example : "" }).catch(failed));
  at("technique").addEventListener("change", () => go({ technique: at("technique").value }).catch(failed));
  at("choice").addEventListener("submit", (event) => event.preventDefault());
  at("promises").addEventListener("change", () => go({ promises: at("promises").checked }).catch(failed));
  at("stop").addEventListener("click", () => { running?.abort(); at("stop").hidden = true; at("verdict").removeAttribute("aria-busy"); at("verdict").replaceChildren(make("p", { class: "main" }, "Stopped: what is shown is derived, the rest was not asked.")); });
  at("own-derive").addEventListener("click", () => derive().catch(failed));
  at("own-text").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) derive().catch(failed); });
  at("diagnose").addEventListener("click", () => diagnose().catch(failed));
  at("example").addEventListener("click", () => { at("dump").value = EXAMPLE; diagnose().catch(failed); });
  at("copy").addEventListener("click", async () => {
    const link = location.href;
    try { await navigator.clipboard.writeText(link); tell("The link is copied: it holds all that you see."); } catch { tell(`The link: ${link}`); }
  });
  window.addEventListener("hashchange", () => follow().catch(failed));
}

async function follow() {
  const { state: wanted, wrong: odd } = await stateOf(location.hash);
  at("promises").checked = wanted.promises;
  at("dump").value = wanted.dump;
  due.machine = true;
  at("detail").replaceChildren();
  await go(wanted, { write: false });
  if (odd) tell(odd);
  if (wanted.dump && wanted.view === "doctor") await diagnose();
}

async function begin() {
  wire();
  popek = await connect(engine);
  known = await one({ ask: "machines" });
  known.withPromises = [...known.columns, ...known.promises];
  example = known.example;
  at("machine-name").replaceChildren(...known.machines.map((m) => make("option", { value: m.name }, `${m.name}: ${m.title}`)),
    make("option", { value: OWN }, "Your own machine, in Python"));
  at("words").replaceChildren(...known.withPromises.flatMap((c) => [make("dt", {}, spoken(c.name)), make("dd", {}, c.means)]));
  at("about-mode").textContent = popek.built
    ? "This page runs in your browser alone: Python and the solver were loaded with it, and nothing leaves it. The tables of the big machines were derived when it was built; what you change is derived here."
    : "This page is served by popek explore on your machine, which answers with its own solvers.";
  table = new Table(at("table-place"), known.columns, (form, question) => go({ form, question }).then(() => {
    if (matchMedia("(max-width: 66rem)").matches) at("detail").scrollIntoView({ block: "start" });
    at("detail").focus({ preventScroll: true });
  }).catch(failed));
  await follow();
}

begin().catch(failed);
