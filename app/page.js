// The other end of frames.py: pulls pictures, shows them with the labels and the state that come along, and takes keys.
// Runs as the body of gr.HTML's js_on_load; `props.value` is this tab's token, "" until the page has loaded.

const find = (id) => document.getElementById(id);
const TOP = 5;
const PATIENCE_MS = 5000;
const UNREACHABLE = "No answer from velora. Is it still running? Trying again…";

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

const status = ["Recording", "Time", "Source", "Shown", "Labels", "Latency", "Dropped", "Window"].map((title) => {
  const term = document.createElement("dt");
  const value = document.createElement("dd");
  term.textContent = title;
  find("status").append(term, value);
  return value;
});

const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const percent = (p) => `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)} %`;

function showLabels(labels, stale, unsure) {
  const [label, p] = labels[0] ?? ["", null];
  put(find("label").children[0], label ? (unsure ? "unsure" : label) : "…");  // the bars show what it would be
  put(find("label").children[1], p === null ? "filling the first window" : percent(p));
  find("result").classList.toggle("stale", stale);
  bars.forEach((bar, i) => {
    const [name, share] = labels[i] ?? ["", 0];
    put(bar.name, name);
    bar.name.title = name;
    bar.fill.style.transform = `scaleX(${share})`;
    put(bar.percent, name ? percent(share) : "");
  });
}

function showStatus(state) {
  const spacing = state.every > 1 ? `every ${state.stride}, one in ${state.every} used` : `every ${state.stride}`;
  [
    state.recording,
    `${state.position_s.toFixed(1)} s${state.playing ? "" : " · paused"}`,
    `${state.source_fps.toFixed(0)} fps${state.late_ms === null ? "" : ` · ${state.late_ms.toFixed(0)} ms late`}`,
    `${state.shown_fps.toFixed(0)} fps`,
    `${state.labels_per_s.toFixed(0)} / s`,
    state.label_ms === null ? "–" : `${state.label_ms.toFixed(0)} ms`,
    `${state.dropped}`,
    spacing,
  ].forEach((text, i) => put(status[i], text));
}

function showPanes(widths) {
  if (!widths.length) return;
  const columns = widths.map((width) => `${width}fr`).join(" 8fr ");  // 8: GAP of strip.py
  for (const grid of element.querySelectorAll(".panes")) {
    if (grid.dataset.columns === columns) continue;
    grid.dataset.columns = columns;
    grid.style.gridTemplateColumns = columns;
  }
}

function showRecording(possible, recorded) {
  const button = find("record");
  button.classList.toggle("possible", possible);
  button.classList.toggle("on", recorded !== null);
  const clock = (s) => `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
  put(button, recorded ? `Stop · ${clock(recorded.seconds)} · ${recorded.mb.toFixed(1)} MB` : "Record");
}

function show(state) {
  put(find("play"), state.playing ? "Pause" : "Play");
  put(find("rgb"), state.reconstructed ? "RGB (from events)" : "RGB");
  put(find("events"), state.simulated ? "Events (simulated)" : "Events");
  showRecording(state.can_record, state.recorded);
  showLabels(state.labels, state.stale, state.unsure);
  showStatus(state);
  showPanes(state.panes);
  find("restart").classList.toggle("live", state.live);  // what is live has no beginning
  say(state.recorded?.failure || state.message, state.done && !state.recorded?.failure);
}

function say(message, done = false) {  // done: good news, not a warning
  put(find("message"), message);
  find("message").classList.toggle("done", done);
  find("message").title = message;
}

let shown = "";
function showImage(blob) {
  const image = find("strip");
  const url = URL.createObjectURL(blob);
  return new Promise((done) => {
    image.onload = image.onerror = () => {
      URL.revokeObjectURL(shown);
      shown = url;
      done();
    };
    image.src = url;
  });
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

function request(token, after) {
  const reply = fetch(`frames/${token}?after=${after}`, {signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store"});
  reply.catch(() => {});  // looked at when its turn comes
  return reply;
}

async function pull(token) {
  let after = 0;
  let next = request(token, after);
  while (props.value === token) {
    let reply, blob;
    try {
      reply = await next;
      blob = await reply.blob();
    } catch {
      say(UNREACHABLE);
      await wait(1000);
      next = request(token, after);
      continue;
    }
    if (reply.status === 404) return reload();
    if (reply.status === 200) after = Number(reply.headers.get("Velora-Frame"));
    next = request(token, after);  // before the picture is decoded: the next one travels meanwhile
    show(JSON.parse(reply.headers.get("Velora-State")));
    if (reply.status === 200) await showImage(blob);
  }
}

// The server does not know this tab (any more): load the page anew, but only from a server that answers.
async function reload() {
  say("velora was started anew, or this page slept. Loading it again…");
  await wait(1000);
  while (!await fetch(".", {cache: "no-store"}).then((reply) => reply.ok, () => false)) {
    say(UNREACHABLE);
    await wait(1000);
  }
  location.reload();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("input, textarea, select, button, [contenteditable]")) return;
  const button = {" ": "play", r: "restart"}[event.key];
  if (!button) return;
  event.preventDefault();
  find(button).click();
});
// A button that was clicked with the mouse would take the next space for itself.
document.addEventListener("click", (event) => { if (event.detail) event.target.closest("button")?.blur(); });

watch("value", () => { if (props.value) pull(props.value); });
if (props.value) pull(props.value);
