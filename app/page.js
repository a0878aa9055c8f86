// The page's scripts are one: the body of gr.HTML's js_on_load, in the order that layout.py names them.
// `props.value` is this tab's token, "" until the page has loaded; routes.py is the other end.

const find = (id) => document.getElementById(id);
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const percent = (p) => `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)} %`;
const clock = (s, digits = 1) => `${Math.floor(s / 60)}:${(s % 60).toFixed(digits).padStart(3 + digits, "0")}`;
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const UNREACHABLE = "No answer from velora. Is it still running? Trying again…";

let state = {};  // what the server said last
let setup = {version: "", labels: [], sources: [], models: []};

const HELD_MS = 4000;
let held = {message: "", until: 0};
function sayHere(message) {  // what the server does not know of
  held = {message, until: performance.now() + HELD_MS};
  say(message);
}

function say(message, done = false) {  // done: good news, not a warning
  put(find("message"), message);
  find("message").classList.toggle("done", done);
  find("message").title = message;
}

// A control of actions.py. Changes of source and model take a while, and each waits for the one before.
const CHANGES = ["choose", "open", "use_model", "words"];
let changed = Promise.resolve();
function act(name, values = {}) {
  if (!CHANGES.includes(name)) return send(name, values);
  changed = changed.then(() => send(name, values));
  return changed;
}

// What is wrong comes back with the next state; here only what cannot reach it.
async function send(name, values) {
  try {
    const reply = await fetch(`act/${props.value}/${name}`, {method: "POST", body: JSON.stringify(values)});
    const {done, message} = await reply.json();
    if (!done && reply.ok) sayHere(message);
    return done;
  } catch {
    say(UNREACHABLE);
    return false;
  }
}

// One colour per label, the same in every session: neighbours in the list are far apart on the wheel.
const colours = new Map();
function colour(label) {
  if (!colours.has(label)) {
    let hash = 0;
    for (const letter of label) hash = (hash * 31 + letter.codePointAt(0)) % 1000003;
    const place = setup.labels.indexOf(label);
    const hue = ((place < 0 ? hash : place) * 137.508) % 360;
    colours.set(label, `hsl(${hue.toFixed(0)} 62% ${[46, 58, 38][(place < 0 ? hash : place) % 3]}%)`);
  }
  return colours.get(label);
}

const remembered = (name, otherwise) => {
  try { return JSON.parse(localStorage.getItem(`velora-${name}`)) ?? otherwise; } catch { return otherwise; }
};
const remember = (name, value) => {
  try { localStorage.setItem(`velora-${name}`, JSON.stringify(value)); } catch { /* a browser that keeps nothing */ }
};
