// Elements without markup in strings: whatever a user pastes stays text.

export const at = (id) => document.getElementById(id);

export function make(tag, given = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...inside.filter((part) => part !== null && part !== undefined && part !== ""));
  return element;
}

export const spoken = (name) => name.replaceAll("_", "-");

export const SIGNS = { yes: "yes", no: "·", unknown: "?", "not-asked": "–" };

export const WORDS = { yes: "yes", no: "no", unknown: "unknown", "not-asked": "not asked" };
