// Questions to popek: over HTTP to `popek explore`, or to a worker that runs it under Pyodide.

export async function connect(tell) {
  const mode = await (await fetch("mode.json")).json();
  return mode.mode === "built" ? new Built(mode, tell) : new Served(tell);
}

class Served {
  constructor(tell) {
    this.live = true;
    this.built = false;
    tell("Solved on this machine");
  }

  // Hands every answer to `take`, until the last or until `signal` says stop.
  async ask(message, take, signal) {
    const reply = await fetch("ask", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(message), signal,
    });
    if (!reply.ok) throw new Error(`popek explore does not answer: ${reply.status}`);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      const lines = (rest + (value ?? "")).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) take(JSON.parse(line));
      if (done) return;
    }
  }
}

class Built {
  constructor(mode, tell) {
    this.built = true;
    this.answers = mode.answers ?? {};
    this.waiting = new Map();
    this.number = 0;
    this.worker = new Worker("worker.js", { type: "module" });
    this.worker.onmessage = ({ data }) => {
      if (data.told !== undefined) return tell(data.told);
      const one = this.waiting.get(data.number);
      if (!one) return;
      if (data.answer !== undefined) one.take(data.answer);
      if (data.failed !== undefined) one.reject(new Error(data.failed));
      if (data.done) { this.waiting.delete(data.number); one.resolve(); }
    };
    this.worker.onerror = (event) => tell(`Python did not start: ${event.message ?? "no reason given"}`);
    this.worker.postMessage({ begin: mode });
  }

  async ask(message, take, signal) {
    const kept = await this.kept(message);
    if (signal?.aborted) throw new DOMException("stopped", "AbortError");
    if (kept) return kept.forEach(take);
    const number = ++this.number;
    const done = new Promise((resolve, reject) => this.waiting.set(number, { take, resolve, reject }));
    signal?.addEventListener("abort", () => {
      this.worker.postMessage({ stop: number });
      this.waiting.get(number)?.reject(new DOMException("stopped", "AbortError"));
      this.waiting.delete(number);
    });
    this.worker.postMessage({ number, message });
    return done;
  }

  // What was derived when the page was built, with the settings at their defaults.
  async kept(message) {
    if (message.ask === "machines" && this.answers.machines) return (await fetch(this.answers.machines)).json();
    if (message.machine === "own" || Object.keys(message.edits ?? {}).length) return null;
    const name = message.ask === "machine" ? `machine ${message.machine}` : message.ask === "classify"
      ? `classify ${message.machine} ${message.technique ?? ""}` : "";
    const file = this.answers[name];
    if (!file) return null;
    const found = await (await fetch(file)).json();
    if (message.ask === "machine") return found;
    const given = { ...found[0].defaults, ...message.settings };
    const same = Object.entries(given).every(([setting, value]) => found[0].defaults[setting] === value);
    return same && (!message.promises || found[0].promises) ? found : null;
  }
}
