// Views by address: #/  #/PLACE  #/PLACE/FORM  #/PLACE/FORM/CLASS  #/PLACE/FORM/CLASS/question

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const views = { overview: byId("overview"), place: byId("place"), instruction: byId("instruction"), lost: byId("lost") };
const column = Object.fromEntries(data.answers.map((name, n) => [name, n]));
const TITLES = {
  privileged: "privileged", control_sensitive: "control", location_sensitive: "location", mode_sensitive: "mode",
  resource_sensitive: "resource", user_sensitive: "user", critical: "critical", needless_trap: "needless trap",
  faithful: "unfaithful", safe: "unsafe",
};
const CLASSES = ["control_sensitive", "location_sensitive", "mode_sensitive", "resource_sensitive"];
const PROMISES = { faithful: "fidelity", safe: "safety" };
const KEPT = { fidelity: "faithful", safety: "safe" };
const SAID = { y: "yes", n: "no", u: "unknown" };

// -- what the data say --------------------------------------------------------------------------

const answer = (form, name) => SAID[form.answers[column[name]]];
const words = (form) => data.words[form.words];
const find = (place, form) => place.forms.find((one) => one.form === form);

/** The witness for a class: the form's own, or that of another form of its mnemonic. */
function witnessOf(place, form, name) {
  const names = name.startsWith("user_") ? [name] : ["user_" + name, name];
  const own = names.find((one) => form.witnesses && one in form.witnesses);
  if (own) return { form, name: own, witness: data.witnesses[form.witnesses[own]] };
  for (const other of place.forms) {
    if (other.mnemonic !== form.mnemonic || !other.witnesses) continue;
    const theirs = names.find((one) => one in other.witnesses);
    if (theirs) return { form: other, name: theirs, witness: data.witnesses[other.witnesses[theirs]] };
  }
  return null;
}
/** The class or promise whose witness speaks for an answer. */
function shownFor(place, form, name) {
  if (name in PROMISES) return answer(form, name) === "no" ? PROMISES[name] : null;
  if (answer(form, name) !== "yes") return null;
  const kinds = {
    critical: ["mode_sensitive", "resource_sensitive", "location_sensitive", "control_sensitive"],
    user_sensitive: ["user_resource_sensitive", "user_location_sensitive", "user_control_sensitive"],
  }[name] || [name];
  const met = kinds.find((kind) => kind.endsWith("_sensitive") && yes(form, kind) && witnessOf(place, form, kind));
  return met && yes(form, "user_" + met) ? "user_" + met : met || null;  // what is so in user mode is shown there
}
const yes = (form, kind) => truth(form, kind) === "yes";
/** The answer to a question that was asked about a form. */
const truth = (form, kind) => (form.asked && kind in form.asked ? SAID[form.asked[kind][0]] : undefined);

// -- overview -----------------------------------------------------------------------------------

const rows = [...document.querySelectorAll("tr.row")];
const filters = { q: byId("search"), machine: byId("by-machine"), technique: byId("by-technique"), verdict: byId("by-verdict") };

function filter() {
  const wanted = Object.fromEntries(Object.entries(filters).map(([name, field]) => [name, field.value.trim()]));
  const needle = wanted.q.toLowerCase();
  let count = 0;
  for (const row of rows) {
    const place = data.places[row.dataset.id];
    const found = needle ? matching(place, needle) : [];
    const told = [place.name, place.title, place.technique, place.label, place.note].join(" ").toLowerCase();
    const fits = (!wanted.machine || place.name === wanted.machine) && (!wanted.technique || place.technique === wanted.technique)
      && (!wanted.verdict || place.verdict === wanted.verdict) && (!needle || told.includes(needle) || found.length > 0);
    row.hidden = !fits;
    count += fits;
    row.querySelector(".found").replaceChildren(...found.slice(0, 6).map((form) =>
      link(address(row.dataset.id, form.form), `${form.mnemonic}: ${form.kind}`, { class: "chip " + form.kind, title: data.kinds[form.kind] })));
  }
  for (const body of document.querySelectorAll("tbody[data-machine]")) {
    body.hidden = !body.querySelector("tr.row:not([hidden])");
  }
  byId("shown").textContent = count === rows.length ? `${count} rows` : `${count} of ${rows.length} rows`;
  byId("none").hidden = count > 0;
  const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value)).toString();
  return "#/" + (query ? "?" + query : "");
}
/** The first form of each mnemonic that begins with what is looked for. */
function matching(place, needle) {
  const found = new Map();
  for (const form of place.forms) {
    const fits = form.mnemonic.toLowerCase().startsWith(needle) || form.form.toLowerCase().startsWith(needle);
    if (fits && !found.has(form.mnemonic)) found.set(form.mnemonic, form);
  }
  return [...found.values()];
}
function filtered() {
  const now = filter();
  if (now !== location.hash && !(now === "#/" && !location.hash)) history.replaceState(null, "", now);
}
for (const field of Object.values(filters)) field.addEventListener("input", filtered);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("reset", () => setTimeout(filtered));
byId("clear").addEventListener("click", () => byId("filters").reset());

// -- a place ------------------------------------------------------------------------------------

function showPlace(id, place) {
  const fixed = Object.entries(place.configuration).map(([name, value]) => `${name}=${value}`).join(" ");
  const bar = document.querySelector(`tr[data-id="${CSS.escape(id)}"] svg.bar`).cloneNode(true);
  const legend = Object.entries(place.counts).filter(([, count]) => count)
    .map(([kind, count]) => el("li", {}, el("i", { class: kind }), `${count} ${data.kinds[kind]}`));
  const critical = place.critical.map((mnemonic) => {
    const first = place.forms.find((form) => form.mnemonic === mnemonic && form.kind === "critical");
    return el("li", {}, link(address(id, first.form), mnemonic, { class: "chip critical" }));
  });
  fill(views.place,
    el("h1", { id: "place-title", tabindex: "-1" }, `${place.name} under ${place.technique}, ${place.label}`),
    el("p", { class: "lead" }, `${place.title}. ${capital(place.techniqueTitle)}.`, place.note ? ` ${capital(place.note)}.` : ""),
    el("div", { class: "cards" },
      el("div", { class: "card" }, el("h2", {}, "Virtualizable"), el("p", { class: "big" }, place.verdict),
        el("p", {}, "Theorem 1 ", status(place.theorem1)), el("p", {}, "Theorem 3 (hybrid) ", status(place.theorem3)),
        place.judged ? el("p", { class: "quiet" }, capital(place.judged), ": ", el("code", {}, command("prove", place))) : null),
      el("div", { class: "card" }, el("h2", {}, "Critical instructions"), el("p", { class: "big" }, String(place.critical.length)),
        el("p", { class: "quiet" }, place.userCritical.length ? `${place.userCritical.length} of them user-sensitive` : "none user-sensitive")),
      el("div", { class: "card" }, el("h2", {}, "Needless traps (of innocuous forms)"), el("p", { class: "big" }, place.needless), bar)),
    el("ul", { class: "legend" }, legend),
    critical.length ? [el("h2", { id: "critical-title" }, "Critical instructions"), el("ul", { class: "chips", "aria-labelledby": "critical-title" }, critical)] : null,
    place.hypotheses.length ? failing(id, place) : null,
    place.defects.length ? el("p", { class: "refuted" }, `A witness does not replay, a defect of popek: ${place.defects.join("; ")}`) : null,
    el("dl", { class: "facts" }, fixed ? [el("dt", {}, "Settings"), el("dd", { class: "code" }, fixed)] : null,
      place.source ? [el("dt", {}, "Source"), el("dd", {}, place.source)] : null,
      el("dt", {}, "The same at a prompt"), el("dd", { class: "code" }, command("classify", place))),
    el("h2", { id: "instructions-title" }, "Instructions"),
    el("div", { class: "tools" },
      el("label", {}, "Find ", el("input", { type: "search", id: "find", placeholder: "instruction or register", autocomplete: "off", spellcheck: "false", oninput: narrow })),
      el("label", {}, "Kind ", el("select", { id: "by-kind", oninput: narrow }, el("option", { value: "" }, "all"),
        Object.entries(data.kinds).filter(([kind]) => place.counts[kind]).map(([kind, told]) => el("option", { value: kind }, told))))),
    instructions(id, place));
  show("place", `${place.name} under ${place.technique}, ${place.label}`);
}
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function command(verb, place, ...more) {
  const quoted = (text) => (/^[\w./:-]+$/.test(text) ? text : `'${text}'`);
  const settings = Object.entries(place.settings).map(([name, value]) => `--set ${name}=${value}`);
  return ["popek", verb, place.name, ...more.map(quoted), "--technique", place.technique, ...settings].join(" ");
}
function failing(id, place) {
  return el("details", {}, el("summary", {}, "Hypotheses of the theorems that do not hold, or are unknown, besides sensitivity"),
    el("ul", {}, place.hypotheses.map((one) => el("li", {}, `${one.because} (${one.statement}): ${one.holds}`))));
}
const COLUMNS = ["privileged", "control_sensitive", "location_sensitive", "mode_sensitive", "resource_sensitive",
  "user_sensitive", "critical", "needless_trap", "faithful", "safe"];

/** Forms of a mnemonic with the same answers share a row. */
function groups(place) {
  const found = new Map();
  for (const form of place.forms) {
    const key = [form.mnemonic, form.answers, words(form).leaks].join("\n");
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(form);
  }
  return [...found.values()];
}
function instructions(id, place) {
  const columns = COLUMNS.filter((name) => place.forms.some((form) => form.answers[column[name]] !== "-"));
  const body = groups(place).map((forms) => {
    const [form] = forms;
    const text = [form.mnemonic, ...forms.map((one) => one.form), words(form).leaks].join(" ").toLowerCase();
    const names = forms.map((one) => one.form).join(", ");
    return el("tr", { "data-kind": form.kind, "data-text": text },
      el("th", { scope: "row" }, link(address(id, form.form), forms.length === 1 ? form.form : form.mnemonic, { class: "stop" }),
        forms.length === 1 ? null : el("span", { class: "forms" }, names)),
      columns.map((name) => cell(id, place, form, name)),
      el("td", { class: "kind", "data-title": "kind" }, el("i", { class: form.kind, title: data.kinds[form.kind] }), form.kind),
      el("td", { class: "leaks" }, words(form).leaks || form.remark || ""));
  });
  return el("div", { class: "scroll-wide" }, el("table", { class: "instructions", "aria-labelledby": "instructions-title" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "instruction"),
      columns.map((name) => el("th", { scope: "col", title: (name in PROMISES ? "not so: " : "") + data.definitions[name] }, TITLES[name])),
      el("th", { scope: "col" }, "kind"), el("th", { scope: "col" }, "what leaks or changes"))),
    el("tbody", {}, body)));
}
function cell(id, place, form, name) {
  const told = answer(form, name);
  const title = TITLES[name];
  if (told === undefined) return el("td", { class: "no", "data-title": title }, el("span", { class: "unseen" }, "not asked"));
  const broken = name in PROMISES;
  const about = shownFor(place, form, name);
  if (told === "unknown") return el("td", { class: "maybe", "data-title": title }, "unknown");
  if ((told === "no") !== broken) return el("td", { class: "no", "data-title": title }, el("span", { class: "unseen" }, "no"));
  const content = about ? link(address(id, form.form, dashed(about)), "yes", { "aria-label": `${form.mnemonic} ${title}: yes, witness` }) : "yes";
  return el("td", { class: "yes", "data-title": title }, content);
}
function narrow() {
  const needle = byId("find").value.trim().toLowerCase(), kind = byId("by-kind").value;
  for (const row of views.place.querySelectorAll(".instructions tbody tr")) {
    row.hidden = !(row.dataset.text.includes(needle) && (!kind || row.dataset.kind === kind));
  }
}

// -- an instruction -----------------------------------------------------------------------------

function showInstruction(id, place, form, about, open) {
  const number = place.forms.indexOf(form);
  const near = (step, label, rel) => {
    const other = place.forms[number + step];
    return other ? link(address(id, other.form), label(other.form), { rel, class: "chip" }) : el("span");
  };
  const elsewhere = Object.entries(data.places).filter(([, other]) => other.name === place.name && find(other, form.form));
  const siblings = place.forms.filter((one) => one.mnemonic === form.mnemonic);
  const told = words(form);
  fill(views.instruction,
    el("h1", { id: "instruction-title", tabindex: "-1" }, form.form),
    el("p", { class: "lead" }, told.summary),
    el("p", {}, el("span", { class: "chip " + form.kind }, data.kinds[form.kind]), " ", el("span", { class: "quiet" }, told.source)),
    form.remark ? el("p", { class: "unknown" }, form.remark) : null,
    el("dl", { class: "facts" },
      told.leaks ? [el("dt", {}, "Leaks or changes"), el("dd", { class: "code" }, told.leaks)] : null,
      told.undecided ? [el("dt", {}, "May, too"), el("dd", { class: "code" }, told.undecided)] : null,
      el("dt", {}, "The same at a prompt"), el("dd", { class: "code" }, command("explain", place, form.form))),
    siblings.length > 1 ? [el("h2", {}, `Forms of ${form.mnemonic}`), el("ul", { class: "chips" }, siblings.map((one) =>
      el("li", {}, link(address(id, one.form), one.form, { class: "chip " + one.kind, "aria-current": one === form && "true" }))))] : null,
    elsewhere.length > 1 ? [el("h2", {}, "Elsewhere on this machine"), el("ul", { class: "chips" }, elsewhere.map(([other, its]) => {
      const same = find(its, form.form);
      return el("li", {}, link(address(other, form.form), `${its.technique}, ${its.label}: ${same.kind}`,
        { class: "chip " + same.kind, "aria-current": other === id && "true" }));
    }))] : null,
    el("h2", { id: "classes-title" }, "Classes, witnesses and questions"),
    derived(form), classes(id, place, form, about),
    about ? witnessPart(id, place, form, about, open) : null,
    el("nav", { class: "pager", "aria-label": "Instructions" },
      near(-1, (name) => "← " + name, "prev"), near(1, (name) => name + " →", "next")));
  show("instruction", `${form.form}, ${place.name} under ${place.technique}${about ? ": " + dashed(about) : ""}`, about && (open ? "question" : "witness"));
}
const DERIVED = ["critical", "privileged", "user_critical", "needless_trap"];

function derived(form) {
  return el("ul", { class: "chips", "aria-label": "Answers" }, DERIVED.filter((name) => answer(form, name)).map((name) =>
    el("li", { class: "answer " + answer(form, name), title: data.definitions[name] }, `${dashed(name).replace("needless-", "needless ")}: `, el("b", {}, answer(form, name)))));
}
function classes(id, place, form, about) {
  const evidence = (name, title) => {
    const told = truth(form, name);
    if (told === undefined) return el("td", { class: "quiet", "data-title": title }, "–");
    const witness = witnessOf(place, form, name) && told === (name in KEPT ? "no" : "yes");
    const breach = (form.breaches || {})[name];
    return el("td", { class: "answer-" + told, "data-title": title, "aria-current": name === about && "true" },
      link(address(id, form.form, dashed(name)), told, { class: "stop",
        "aria-label": `${dashed(name)}: ${told}, ${witness ? "witness and question" : "question"}` }),
      el("span", { class: "quiet" }, witness ? " witness" : ""), breach ? el("span", { class: "label" }, breach) : null);
  };
  const rows = CLASSES.map((name) => el("tr", {}, el("th", { scope: "row" }, dashed(name)),
    evidence(name, "any mode"), evidence("user_" + name, "in user mode"), el("td", { class: "quiet" }, data.definitions[name])));
  for (const [name, adjective] of Object.entries(KEPT)) {
    if (truth(form, name)) {
      rows.push(el("tr", {}, el("th", { scope: "row" }, adjective), evidence(name, ""), el("td", { class: "quiet" }, ""),
        el("td", { class: "quiet" }, data.definitions[adjective])));
    }
  }
  return el("table", { class: "classes", "aria-labelledby": "classes-title" },
    el("thead", {}, el("tr", {}, ["class", "any mode", "in user mode", "it means"].map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, rows));
}

// -- a witness ----------------------------------------------------------------------------------

function witnessPart(id, place, form, about, open) {
  const found = witnessOf(place, form, about);
  const adjective = about in KEPT ? KEPT[about] : dashed(about).replace("user-", "") + (about.startsWith("user_") ? " in user mode" : "");
  const heading = found ? `Witness: ${found.witness.assembly} is ${about in KEPT ? "not " : ""}${adjective}` : `Question: is ${form.form} ${adjective}?`;
  const asked = form.asked[about];
  return el("section", { class: "witness", id: "witness", "aria-labelledby": "witness-title" },
    el("h2", { id: "witness-title", tabindex: "-1" }, heading),
    found && found.form !== form ? el("p", { class: "quiet" }, "Shown by another form of the same instruction: ",
      link(address(id, found.form.form, dashed(found.name)), found.form.form)) : null,
    found ? [el("p", {}, found.witness.story), states(found.witness)]
      : el("p", { class: "quiet" }, nothing(asked)),
    question(id, form, about, asked, open));
}

function nothing([told, said]) {
  if (said !== "unsat") return "There is no witness here: the solver gave up.";
  if (told === "u") return "The question below has no solution, but there are states in which the model does not say what happens: unknown.";
  return "No state shows it: the question below has no solution.";
}
// -- a question ---------------------------------------------------------------------------------

function question(id, form, about, asked, open) {
  const [, said, solver, sha256, number, size] = asked;
  const told = { sat: "it has a solution", unsat: "it has none", unknown: "the solver gave up" }[said];
  if (!sha256) {
    return el("p", { class: "quiet" }, "The question: one of its conditions is false by itself, so no solver was needed.");
  }
  const kilobytes = Math.max(1, Math.round(size / 1000));
  const place = el("div", {}, el("p", { class: "quiet" }, "…"));
  const details = el("details", { id: "question" },
    el("summary", {}, "The exact question in SMT-LIB 2"), el("dl", { class: "facts" },
      el("dt", {}, "Answer"), el("dd", {}, `${said}: ${told} (${solver})`),
      el("dt", {}, "SHA-256"), el("dd", { class: "hash" }, sha256), el("dt", {}, "Size"), el("dd", {}, `${kilobytes} kB`)), place);
  let filled = false;
  const unfold = async () => {
    if (!details.open || filled) return;
    filled = true;
    fill(place, await text(id, form, about, number));
    details.dataset.ready = "";
  };
  details.addEventListener("toggle", unfold);
  details.open = !!open;
  return details;
}
async function text(id, form, about, number) {
  if (number < 0) {
    const user = "user_" + about;
    return [el("p", { class: "quiet" }, "The text was left out of this page for its size; the hash names it."),
      yes(form, user) ? el("p", {}, "What is so in user mode is so: see ", link(address(id, form.form, dashed(user), "question"), "that question"), ".") : null];
  }
  const packed = data.texts[number];
  const name = `${form.form} ${about}`.replace(/[^A-Za-z0-9]+/g, "-").toLowerCase();
  if (!("DecompressionStream" in window)) {
    return [el("p", {}, "This browser cannot unpack the text. Save what is below and run ", el("code", {}, "base64 -d | gunzip"), " on it."),
      el("pre", { tabindex: "0" }, packed.replace(/.{76}/g, "$&\n"))];
  }
  const bytes = Uint8Array.from(atob(packed), (one) => one.charCodeAt(0));
  const plain = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const save = () => {
    const url = URL.createObjectURL(new Blob([plain], { type: "text/plain" }));
    el("a", { href: url, download: `${name}.smt2` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  return [el("p", {}, el("button", { type: "button", onclick: save }, "Save as .smt2"), " ",
    el("span", { class: "quiet" }, "z3 and cvc5 read it.")), el("pre", { tabindex: "0", "aria-label": "SMT-LIB text" }, plain)];
}

// -- addresses ----------------------------------------------------------------------------------

let current = "";
function show(view, title, part) {
  for (const [name, section] of Object.entries(views)) section.hidden = name !== view;
  document.title = title ? `${title} · Atlas` : "Atlas of virtualizable machines";
  const target = byId(part || "") || views[view];
  if (current && current !== location.hash) {
    const heading = (part && byId("witness-title")) || views[view].querySelector("h1");
    heading.focus({ preventScroll: true });
    if (part) target.scrollIntoView({ block: "start" }); else window.scrollTo(0, 0);
  } else if (part) target.scrollIntoView({ block: "start" });
  current = location.hash || "#/";
}
function trail(...steps) {
  byId("trail").replaceChildren(...steps.map(([text, where], n) =>
    (n === steps.length - 1 ? el("span", { "aria-current": "page" }, text) : link(where, text))));
}
function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  let parts;
  try { parts = path.split("/").filter(Boolean).map(decodeURIComponent); } catch { parts = ["?"]; }
  const [id, name, dashes, more] = parts;
  const about = dashes && dashes.replaceAll("-", "_");
  if (!id) {
    const wanted = new URLSearchParams(query || "");
    for (const [key, field] of Object.entries(filters)) field.value = wanted.get(key) || "";
    trail();
    filter();
    return show("overview");
  }
  const place = Object.hasOwn(data.places, id) ? data.places[id] : null;
  const form = place && name && find(place, name);
  const known = place && (!name || form) && (!about || Object.hasOwn(form.asked || {}, about)) && (!more || more === "question") && parts.length < 5;
  if (!known) { trail(["?", "#/"]); return show("lost", "Nothing is here"); }
  const steps = [[place.name, `#/?machine=${encodeURIComponent(place.name)}`], [`${place.technique}, ${place.label}`, address(id)]];
  if (form) steps.push([form.form, address(id, name)]);
  if (about) steps.push([dashed(about), address(id, name, dashes)]);
  trail(...steps);
  return form ? showInstruction(id, place, form, about, more === "question") : showPlace(id, place);
}
window.addEventListener("hashchange", route);

// -- keys ---------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    if (typing && typing.value && typing.type === "search") return;
    const up = location.hash.split("?")[0].split("/").slice(0, -1).join("/");
    location.hash = up.length > 1 ? up : "#/";
    return;
  }
  if (event.key === "ArrowDown" && typing && typing.type === "search") { move(1, event); return; }
  if (typing) return;
  if (event.key === "/") {
    const field = views.place.hidden ? byId("search") : byId("find");
    if (!views.overview.hidden || !views.place.hidden) { event.preventDefault(); field.focus(); }
    return;
  }
  if (event.target.closest("pre, .scroll, summary")) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") move(event.key === "ArrowDown" ? 1 : -1, event);
  if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && !views.instruction.hidden) {
    const next = views.instruction.querySelector(event.key === "ArrowLeft" ? "a[rel=prev]" : "a[rel=next]");
    if (next) { event.preventDefault(); next.click(); }
  }
});
/** To the next link of the view's table. */
function move(step, event) {
  const stops = [...document.querySelectorAll("main a.stop")].filter((one) => one.offsetParent !== null);
  const at = stops.indexOf(document.activeElement);
  const next = stops[at < 0 ? (step > 0 ? 0 : stops.length - 1) : at + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}
route();
