// What the state says, put on the page; and what the controls and keys do.

const TOP = 5;
const bars = Array.from({length: TOP}, () => {
  const row = document.createElement("li");
  row.append(...["name", "track", "percent"].map((name) => {
    const cell = document.createElement("span");
    cell.className = name;
    return cell;
  }));
  const fill = document.createElement("i");
  row.children[1].append(fill);
  find("bars").append(row);
  return {name: row.children[0], fill, percent: row.children[2], row};
});

const TITLES = ["Recording", "Time", "Source", "Shown", "Labels", "Latency p50, p95", "On screen", "Dropped", "Window", "Memory"];
const status = TITLES.map((title) => {
  const term = document.createElement("dt"), value = document.createElement("dd");
  term.textContent = title;
  find("status").append(term, value);
  return value;
});

function showLabels({label, labels, stale, unsure}) {
  const [raw, p] = labels[0] ?? ["", null];
  put(find("label").children[0], p === null ? "…" : label ?? "unsure");  // steady; the bars show what it would be
  const told = p === null ? "filling the first window" : label === raw ? percent(p) : `now ${raw}, ${percent(p)}`;
  put(find("label").children[1], told);
  find("label").classList.toggle("unsure", label === null);
  find("result").classList.toggle("stale", stale);
  bars.forEach((bar, i) => {
    const [name, share] = labels[i] ?? ["", 0];
    put(bar.name, name);
    bar.name.title = name;
    bar.fill.style.transform = `scaleX(${share})`;
    bar.fill.style.background = name ? colour(name) : "";
    put(bar.percent, name ? percent(share) : "");
  });
  find("bars").classList.toggle("doubt", unsure);
}

const pair = (ms) => ms === null ? "–" : `${ms[0].toFixed(0)}, ${ms[1].toFixed(0)} ms`;

function showStatus(state) {
  const spacing = `every ${state.stride}${state.every > 1 ? ` · 1 in ${state.every}` : ""}`;
  const drops = Object.entries(state.dropped), total = drops.reduce((sum, [, count]) => sum + count, 0);
  const lost = Object.entries(state.lost);
  [
    state.recording,
    state.position_us === null ? "–" : `${seconds().toFixed(1)} s${state.playing ? "" : " · paused"}`,
    `${state.source_fps.toFixed(0)} fps${state.arrival_ms === null ? "" : ` · ${pair(state.arrival_ms)} late`}`,
    `${state.shown_fps.toFixed(0)} fps`,
    `${state.labels_per_s.toFixed(0)} / s`,
    pair(state.label_ms),
    pair(state.paint_ms),
    `${total}${lost.length ? " + losses" : ""}`,
    spacing,
    `${state.memory_mb.toFixed(0)} MB`,
  ].forEach((text, i) => put(status[i], text));
  status[7].title = [...drops, ...lost].map(([reason, count]) => `${reason}: ${count}`).join("\n") || "nothing";
}

function showHealth(notes) {
  const text = notes.map(([level, words]) => `${level}: ${words}`).join("|");
  if (find("health").dataset.text === text) return;
  find("health").dataset.text = text;
  find("health").replaceChildren(...notes.map(([level, words]) => {
    const note = document.createElement("span");
    note.className = level;
    note.textContent = words;
    return note;
  }));
  const kinds = notes.map(([, words]) => words.replace(/[\d.,]+/g, "…")).join("; ");
  if (find("health-told").dataset.kinds === kinds) return;  // read out as it begins, not with each new figure
  find("health-told").dataset.kinds = kinds;
  put(find("health-told"), notes.map(([, words]) => words).join("; "));
}

function showRecording({can_record: possible, recorded, decides}) {
  const button = find("record");
  button.hidden = !recorded && (!possible || !setup.operates);  // that it is recorded, everybody sees
  button.disabled = !decides || !setup.operates;
  button.classList.toggle("on", recorded !== null);
  const time = (s) => `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
  put(button, recorded ? `Stop · ${time(recorded.seconds)} · ${recorded.mb.toFixed(1)} MB` : "Record");
}

// What the server says, unless somebody is just choosing something else.
const touched = new WeakMap();
const unlessUsed = (node, set) => { if (performance.now() - (touched.get(node) ?? -1e9) > 1000) set(node); };
find("view").addEventListener("input", (event) => touched.set(event.target, performance.now()));

function show(news) {
  state = news;
  put(find("play"), state.failed ? "Try again" : state.playing ? "Pause" : "Play");
  put(find("rgb"), state.reconstructed ? "RGB (from events)" : "RGB");
  const notes = [state.simulated && "simulated", state.windowed && "window mode"].filter(Boolean).join(", ");
  put(find("events"), notes ? `Events (${notes})` : "Events");
  for (const node of document.querySelectorAll(".recorded")) node.hidden = state.live;
  for (const node of document.querySelectorAll(".live")) node.hidden = !state.live;
  showTeaching(state);
  showBatch(state);
  showReview();
  unlessUsed(find("speed"), (node) => { node.value = String(state.speed); });
  unlessUsed(find("stride"), (node) => { if (node !== document.activeElement) node.value = state.asked_stride ?? ""; });
  for (const id of ["loop", "denoise"]) unlessUsed(find(id), (node) => { node.checked = state[id]; });
  for (const id of ["model", "stride", "denoise", "words", "ask-words"]) {
    find(id).disabled = !state.decides;
    find(id).title = state.decides ? "" : "another tab opened this live source, and decides";
  }
  const length = state.length_us === null ? "" : ` / ${clock(state.length_us / 1e6)}`;
  put(find("clock"), state.position_us === null ? "" : `${clock(seconds(), 2)}${length}`);
  showRecording(state);
  showLabels(state);
  showStatus(state);
  showHealth(state.health);
  if (performance.now() < held.until) say(held.message);
  else say(state.message, state.done);
}

function options(select, names, chosen) {
  const texts = [...select.options].map((option) => option.value);
  if (texts.length !== names.length || texts.some((text, i) => text !== names[i])) {
    select.replaceChildren(...names.map((name) => new Option(name, name)));
  }
  select.value = chosen;
}

function takeSetup(news) {
  setup = news;
  colours.clear();
  const sources = setup.sources.includes(setup.watching) ? setup.sources : [setup.watching, ...setup.sources];
  options(find("choice"), sources, setup.watching);
  options(find("model"), setup.models.includes(setup.model) ? setup.models : [...setup.models, setup.model], setup.model);
  options(find("speed"), setup.speeds.map(String), String(state.speed ?? 1));
  for (const option of find("speed").options) option.textContent = `${option.value} ×`;
  put(find("place"), `${setup.device} · ${setup.dtype}`);
  put(find("random"), setup.random);
  find("random").hidden = !setup.random;
  for (const node of document.querySelectorAll(".operates")) node.hidden = !setup.operates;
  for (const node of document.querySelectorAll(".opens")) node.hidden = !setup.opens;
  for (const node of document.querySelectorAll(".closed")) node.hidden = setup.opens;
  takeLabels();
}

// --- controls ---

on("play", "click", () => act("toggle"));
on("restart", "click", () => act("restart"));
on("back", "click", () => act("step", {count: -1}));
on("forward", "click", () => act("step", {count: 1}));
on("speed", "change", (event) => act("speed", {times: Number(event.target.value)}));
on("loop", "change", (event) => act("loop", {on: event.target.checked}));
on("choice", "change", async ({target}) => { if (!await act("choose", {name: target.value})) target.value = setup.watching; });
on("open", "click", () => act("open", {address: find("address").value}));
onEnter("address", () => find("open").click());
on("look", "click", async () => {
  find("look").disabled = true;
  await act("cameras");
  find("look").disabled = false;
});
on("record", "click", () => act("record"));
on("model", "change", async ({target}) => { if (!await act("use_model", {name: target.value})) target.value = setup.model; });
onEnter("words", () => find("ask-words").click());
on("ask-words", "click", () => act("words", {labels: find("words").value}));
on("stride", "change", (event) => act("stride", {samples: Number(event.target.value) || 0}));
on("denoise", "change", (event) => act("denoise", {on: event.target.checked}));
on("snapshot", "click", () => save(`snapshot/${props.value}`));
on("export-csv", "click", () => save(`export/${props.value}.csv`));
on("export-jsonl", "click", () => save(`export/${props.value}.jsonl`));
on("ask", "click", () => find("help").showModal());

// A recording of one's own, sent to the server; the button then tells how far it is, and stops it.
let sending = null;
on("upload", "click", () => sending ? sending.abort() : find("upload-file").click());
on("upload-file", "change", (event) => {
  const [file] = event.target.files, before = find("upload").textContent;
  if (!file) return;
  sending = new XMLHttpRequest();
  sending.upload.addEventListener("progress", ({loaded, total}) => put(find("upload"), `Stop upload · ${percent(loaded / total)}`));
  sending.addEventListener("loadend", () => {  // what is wrong comes with the next state
    const {status, response} = sending;
    sending = null;
    put(find("upload"), before);
    event.target.value = "";
    if (status === 200 && JSON.parse(response).done) way = {name: "upload", values: {}};
  });
  sending.open("POST", `upload/${props.value}?name=${encodeURIComponent(file.name)}`);
  sending.send(file);
});

function save(address) {
  const link = document.createElement("a");
  link.href = address;
  link.download = "";
  link.click();
}

const KEYS = {
  " ": () => find("play").click(),
  "ArrowLeft": (shift) => state.live || (shift ? act("seek", {seconds: seconds() - 1}) : act("step", {count: -1})),
  "ArrowRight": (shift) => state.live || (shift ? act("seek", {seconds: seconds() + 1}) : act("step", {count: 1})),
  "r": () => state.live ? find("record").click() : act("restart"),
  "s": () => find("snapshot").click(),
  "?": () => find("help").showModal(),
  "1": () => alone("rgb"),
  "2": () => alone("events"),
  "3": () => alone("motion"),
  "4": () => alone("blend"),
  "[": () => mark(state.position_us, marked?.[1] ?? state.position_us),
  "]": () => mark(marked?.[0] ?? state.position_us, state.position_us),
  "Escape": () => mark(null),
};
document.addEventListener("keydown", (event) => {
  const typed = event.getModifierState("AltGraph");  // as some keyboards have "[": with Ctrl and Alt, or Alt alone
  const meant = event.metaKey || !typed && (event.ctrlKey || event.altKey && !"[]?".includes(event.key));
  if (meant || find("help").open) return;  // for the browser
  if (event.repeat && !event.key.startsWith("Arrow")) return;
  if (event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
  if (event.target.closest("button, summary, input") && event.key === " ") return;
  if (inFolder()) return;
  const does = KEYS[event.key];
  if (!does) return;
  event.preventDefault();
  does(event.shiftKey);
});
// A control that was clicked with the mouse would take the next keys for itself.
const CLICKED = "button, summary, input[type=checkbox], input[type=range]";
document.addEventListener("click", (event) => { if (event.detail) event.target.closest(CLICKED)?.blur(); });

