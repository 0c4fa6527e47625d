// Elements of the page, and the table of a witness: two states side by side with the differing bits marked.

/** An element; children are elements or texts, never markup. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}
const fill = (view, ...children) => view.replaceChildren(...el("div", {}, ...children).childNodes);
const link = (address, text, attributes = {}) => el("a", { href: address, ...attributes }, text);
const dashed = (name) => name.replaceAll("_", "-");
const address = (...parts) => "#/" + parts.map(encodeURIComponent).join("/");
const status = (value) => el("span", { class: "status " + value }, value);

/** Two values as hexadecimal digits, those that differ marked; and the numbers of the bits that differ. */
function compared(left, right) {
  if (!/^0x/.test(left) || !/^0x/.test(right) || left === right) return { left, right, bits: "" };
  const apart = BigInt(left) ^ BigInt(right);
  const size = Math.max(left.length, right.length) - 2;
  const digits = (value) => {
    const padded = value.slice(2).padStart(size, "0");
    const made = ["0x"];
    for (let n = 0; n < size; n += 1) {
      const differs = (apart >> BigInt(4 * (size - 1 - n))) & 15n;
      made.push(differs ? el("mark", {}, padded[n]) : padded[n]);
    }
    return made;
  };
  return { left: digits(left), right: digits(right), bits: bits(apart) };
}
function bits(apart) {
  const runs = [];
  for (let n = 0, rest = apart; rest; n += 1, rest >>= 1n) {
    if (!(rest & 1n)) continue;
    const last = runs[runs.length - 1];
    if (last && last[1] === n - 1) last[1] = n; else runs.push([n, n]);
  }
  return runs.map(([low, high]) => (low === high ? low : `${high}:${low}`)).reverse().join(", ");
}
function stateRow(name, left, right, differs) {
  const shown = differs ? compared(left, right) : { left, right, bits: "" };
  return el("tr", { class: differs && "differs" }, el("th", { scope: "row" }, name), el("td", {}, shown.left), el("td", {}, shown.right),
    el("td", { class: "bits" }, shown.bits));
}
function ending(run) {
  if (run.trap) return `traps: ${run.trap}${run.error_code ? `(${run.error_code})` : ""}`;
  return run.not_modelled ? `not modelled: ${run.not_modelled}` : "";
}
function states(witness) {
  const two = witness.virtualized;
  const head = two ? ["", ...witness.labels, "bits"] : ["", "before", "after", "bits"];
  const body = [];
  const start = witness.before, apart = witness.apart;
  for (const name of new Set([...Object.keys(start), ...Object.keys(apart)])) {
    const [left, right] = apart[name] || [start[name], two ? start[name] : ""];
    body.push(stateRow(name, left, right, name in apart));
  }
  if (!body.length) body.push(el("tr", {}, el("th", { scope: "row" }, "the plain reset state"), el("td"), el("td"), el("td")));
  const ends = [ending(witness.native), two ? ending(two) : ""];
  body.push(el("tr", { class: "step" }, el("th", { scope: "row" }, "▶ " + witness.assembly),
    el("td", {}, ends[0] || (two ? "completes" : "")), el("td", {}, ends[1] || "completes"), el("td")));
  if (!two) {
    for (const [name, [left, right]] of Object.entries(witness.differ)) body.push(stateRow("→ " + name, left, right, true));
    const others = Object.entries(witness.native.changes || {}).filter(([name]) => !(name in witness.differ));
    for (const [name, value] of others) body.push(stateRow("→ " + name, "", value, false));
  } else {
    const runs = [witness.native.changes || {}, two.changes || {}];
    const trapped = ends.map(Boolean);
    for (const name of new Set([...Object.keys(runs[0]), ...Object.keys(runs[1]), ...Object.keys(witness.differ)])) {
      const differs = name in witness.differ;
      const seen = runs.map((run, n) => run[name] || (trapped[n] ? "" : differs ? witness.differ[name][n] : "unchanged"));
      body.push(stateRow("→ " + name, seen[0], seen[1], differs));
    }
  }
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "State difference" }, el("table", { class: "states" },
    el("caption", { class: "unseen" }, `What differs before and after ${witness.assembly}`),
    el("thead", {}, el("tr", {}, head.map((title) => el("th", { scope: "col" }, title)))), el("tbody", {}, body)));
}
