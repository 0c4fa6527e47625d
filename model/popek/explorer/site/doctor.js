// What a dump shows, in the words of the diagnosis.

import { make } from "./dom.js";

export function diagnosis(told) {
  if (told.error) return [make("p", { class: "error" }, told.error)];
  const kind = told.failed.length ? "refuted" : told.label.startsWith("SUCC") || told.kind === "success" ? "holds" : "unknown";
  const sign = { refuted: "✗", holds: "✓", unknown: "?" }[kind];
  const parts = [make("div", { class: `verdict ${kind}` }, make("p", { class: "main" }, `${sign} ${told.label}`), make("p", {}, told.summary),
    make("p", {}, told.agreement))];
  parts.push(make("p", { class: "hint" }, `${told.fields} fields read, ${told.format}.`));
  const list = (title, items) => { if (items.length) parts.push(make("h2", {}, title), make("ul", { class: "findings" }, ...items)); };
  list("Checks that fail", told.failed.map((one) => make("li", {}, make("code", {}, one.id), ` ${one.message}`)));
  list("Suspects: they fail on a plain processor", told.suspects.map((one) => make("li", {}, make("code", {}, one.id), ` ${one.message}`)));
  list("They fail if they apply", told.near.map((one) => make("li", {}, make("code", {}, one.id), ` ${one.message}; it applies ${one.condition}`)));
  list("What the dump says happened", told.happened.map((one) => make("li", {}, one)));
  list("What it shows of the processor", told.inferred.map((one) => make("li", {}, one)));
  if (told.undecided) parts.push(make("p", {}, `${told.undecided} checks are undecided${told.asked_for.length
    ? `; most would tell: ${told.asked_for.join(", ")}` : ""}.`));
  if (told.next_step) parts.push(make("p", {}, told.next_step));
  return parts;
}

export const EXAMPLE = `*** Guest State ***
CR0: actual=0x0000000080050033, shadow=0x0000000060000010, gh_mask=fffffffffffffff7
CR4: actual=0x0000000000002060, shadow=0x0000000000000000, gh_mask=ffffffffffffe871
CR3 = 0x800000001a02f080
RSP = 0xfffffe0000002fd8  RIP = 0xffffffff81a00000
RFLAGS=0x00000002         DR7 = 0x0000000000000400
VM instruction error: 0
reason=80000021 qualification=0000000000000000
`;
