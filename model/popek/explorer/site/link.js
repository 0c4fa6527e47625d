// The state of the page as the fragment of its address, so that a link holds all of it.

const bytesOf = async (stream) => new Uint8Array(await new Response(stream).arrayBuffer());

async function packed(value) {
  const text = new TextEncoder().encode(JSON.stringify(value));
  const bytes = await bytesOf(new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw")));
  let letters = "";
  for (const byte of bytes) letters += String.fromCharCode(byte);
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

async function unpacked(text) {
  const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(new TextDecoder().decode(await bytesOf(stream)));
}

export const PLAIN = Object.freeze({
  view: "machine", machine: "pg74", technique: "", settings: {}, promises: false, form: "", question: "",
  edits: {}, text: "", dump: "",
});

export async function fragmentOf(state) {
  const told = new URLSearchParams();
  if (state.view !== "machine") told.set("view", state.view);
  told.set("machine", state.machine);
  if (state.technique) told.set("technique", state.technique);
  const settings = Object.entries(state.settings).map(([name, value]) => `${name}:${value}`);
  if (settings.length) told.set("set", settings.join(","));
  if (state.promises) told.set("promises", "1");
  if (state.form) told.set("form", state.form);
  if (state.question) told.set("question", state.question);
  const long = {};
  if (Object.keys(state.edits).length) long.edits = state.edits;
  if (state.text) long.text = state.text;
  if (state.dump) long.dump = state.dump;
  if (Object.keys(long).length) told.set("code", await packed(long));
  return told.toString();
}

// What a fragment says; `wrong` says in a line what of it means nothing.
export async function stateOf(fragment) {
  const told = new URLSearchParams(fragment.replace(/^#/, ""));
  const state = structuredClone({ ...PLAIN });
  let wrong = "";
  for (const name of ["view", "machine", "technique", "form", "question"]) if (told.get(name)) state[name] = told.get(name);
  if (!["machine", "doctor", "about"].includes(state.view)) state.view = "machine";
  state.promises = told.get("promises") === "1";
  for (const pair of (told.get("set") ?? "").split(",").filter(Boolean)) {
    const [name, value] = pair.split(":");
    if (/^-?\d+$/.test(value ?? "")) state.settings[name] = Number(value);
    else wrong = `The link says “${pair}”: expected NAME:number.`;
  }
  if (told.get("code")) {
    try {
      const long = await unpacked(told.get("code"));
      if (typeof long.text === "string") state.text = long.text;
      if (typeof long.dump === "string") state.dump = long.dump;
      for (const [form, text] of Object.entries(long.edits ?? {})) if (typeof text === "string") state.edits[form] = text;
    } catch {
      wrong = "The link is cut off: the Python or the dump in it cannot be read.";
    }
  }
  return { state, wrong };
}
