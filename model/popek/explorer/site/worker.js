// popek under Pyodide, in a thread of its own.  Every file comes from the folder of the page.

import { loadPyodide } from "./pyodide/pyodide.mjs";

let ready = null;
const stopped = new Set();
const pause = () => new Promise((resolve) => setTimeout(resolve));

async function begin(mode) {
  const tell = (text) => postMessage({ told: text });
  tell("Python is loading…");
  const wheels = mode.wheels.map((name) => fetch(`wheels/${name}`).then((reply) => {
    if (!reply.ok) throw new Error(`wheels/${name}: ${reply.status}`);
    return reply.arrayBuffer();
  }));
  const python = await loadPyodide({ indexURL: new URL("./pyodide/", import.meta.url).href });
  tell("The solver is loading…");
  for (const [number, wheel] of (await Promise.all(wheels)).entries())
    python.unpackArchive(wheel, "wheel", { extractDir: mode.wheels[number].includes("-none-any") ? python.runPython(
      "import site; site.getsitepackages()[0]") : undefined });
  const explorer = python.runPython(`
import gc, json, os
os.environ["POPEK_SOLVER"] = "z3"
from popek.explorer.answers import Explorer
class Asked:
    def __init__(self):
        self.explorer = Explorer()
    def begin(self, text):
        return self.explorer.answers(json.loads(text))
    def next(self, answers):
        try:
            return json.dumps(next(answers, None))
        except Exception as error:
            return json.dumps({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"})
Asked()
`);
  tell("Solved in this browser");
  return explorer;
}

async function answer({ number, message }) {
  const explorer = await ready;
  const answers = explorer.begin(JSON.stringify(message));
  for (;;) {
    await pause(); // so that a message to stop is heard
    if (stopped.delete(number)) break;
    const found = JSON.parse(explorer.next(answers));
    if (found === null) break;
    postMessage({ number, answer: found });
  }
  answers.destroy();
  postMessage({ number, done: true });
}

let last = Promise.resolve();
onmessage = ({ data }) => {
  if (data.begin) {
    ready = begin(data.begin);
    ready.catch((error) => postMessage({ told: `Python did not start: ${error.message}` }));
  } else if (data.stop) stopped.add(data.stop);
  else
    last = last.then(() => answer(data)).catch((error) =>
      postMessage({ number: data.number, failed: String(error.message).trim().split("\n").at(-1), done: true }));
};
