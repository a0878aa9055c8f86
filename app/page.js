// The page's scripts are one: the body of gr.HTML's js_on_load, in the order that layout.py names them.
// `props.value` is this tab's token, "" until the page has loaded; routes.py is the other end.

const find = (id) => document.getElementById(id);
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const percent = (p) => `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)} %`;
function clock(s, digits = 1) {
  const rounded = Number(s.toFixed(digits)), whole = Math.floor(rounded / 60);
  return `${whole}:${(rounded - 60 * whole).toFixed(digits).padStart(3 + digits, "0")}`;
}
const on = (id, event, does) => find(id).addEventListener(event, does);
const onEnter = (id, does) => on(id, "keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;  // that confirms a word being written
  event.preventDefault();
  does();
});
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const UNREACHABLE = "No answer from velora. Is it still running? Trying again…";
const REFUSED = {401: "Sign in again: load the page anew.", 429: "Too many tries: wait a minute."};
const failing = (status) => REFUSED[status] ?? `velora answers with error ${status}; where it runs it says why. Trying again…`;

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
const CHANGES = ["choose", "open", "review", "use_model", "words"];
const WATCHES = ["choose", "open", "review"];
let changed = Promise.resolve();
let way = null;  // to what is watched: the last action that led to it
function act(name, values = {}) {
  if (!CHANGES.includes(name)) return send(name, values);
  changed = changed.then(() => send(name, values)).then((done) => {
    if (done && WATCHES.includes(name)) way = {name, values};
    return done;
  });
  return changed;
}

// What is wrong comes back with the next state; here only what cannot reach it.
async function send(name, values) {
  try {
    const reply = await fetch(`act/${props.value}/${name}`, {method: "POST", body: JSON.stringify(values)});
    const text = await reply.text();
    if (!reply.headers.get("content-type")?.includes("json")) {  // a proxy's, or of those who guard the page
      sayHere(text.slice(0, 200) || `The server answered ${reply.status}.`);
      return false;
    }
    const {done, message} = JSON.parse(text);
    if (!done && reply.ok) sayHere(message);
    return Boolean(done);
  } catch {
    say(UNREACHABLE);
    return false;
  }
}

// One colour per label, the same in every session: neighbours in the list are far apart on the wheel.
const colours = new Map();
function tint(label) {
  if (!colours.has(label)) {
    let hash = 0;
    for (const letter of label) hash = (hash * 31 + letter.codePointAt(0)) % 1000003;
    const place = setup.labels.indexOf(label);
    const hue = ((place < 0 ? hash : place) * 137.508) % 360;
    const light = [46, 58, 38][(place < 0 ? hash : place) % 3];
    const ink = luminance(Math.round(hue) / 30, light / 100) > 0.179 ? "#111827" : "#fff";  // whichever stands out more
    colours.set(label, {fill: `hsl(${hue.toFixed(0)} 62% ${light}%)`, ink});
  }
  return colours.get(label);
}

// Of a colour that is 62 % saturated, as WCAG 2 defines it; hue in twelfths of the wheel.
function luminance(hue, light) {
  const share = 0.62 * Math.min(light, 1 - light);
  const [red, green, blue] = [0, 8, 4].map((start) => {
    const k = (start + hue) % 12, value = light - share * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

const colour = (label) => tint(label).fill;
const inkOn = (label) => tint(label).ink;

const remembered = (name, otherwise) => {
  try { return JSON.parse(localStorage.getItem(`velora-${name}`)) ?? otherwise; } catch { return otherwise; }
};
const remember = (name, value) => {
  try { localStorage.setItem(`velora-${name}`, JSON.stringify(value)); } catch { /* a browser that keeps nothing */ }
};
