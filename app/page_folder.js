// The second view: label a folder of recordings, look through the labels, open what is doubtful, export.

const PAGE_ROWS = 50, LOOK_MS = 2000;
const folder = {out: "", first: 0, doubts: [], at: -1, asked: 0, opening: 0, channel: null, busy: false, looked: 0};
const inFolder = () => find("watch").hidden;
const minutes = (s) => s < 90 ? `${s.toFixed(0)} s` : s < 5400 ? `${(s / 60).toFixed(0)} min` : `${(s / 3600).toFixed(1)} h`;

function view(name) {
  folder.opening++;  // what was to be opened before is not wanted any more
  find("watch").hidden = name === "folder";
  find("batch").hidden = name !== "folder";
  for (const button of document.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-pressed", button.dataset.view === name);
  }
  if (name === "folder") lookInto(folder.out);
}

async function lookInto(out) {
  const asked = ++folder.asked;
  const query = new URLSearchParams({out, order: find("set-order").value, text: find("set-text").value, first: folder.first});
  let told;
  try {
    told = await (await fetch(`folder/${props.value}?${query}`, {cache: "no-store"})).json();
  } catch {
    return say(UNREACHABLE);
  }
  if (asked !== folder.asked) return;  // an older answer than one that is shown
  if (told.folders) find("folders").replaceChildren(...told.folders.map((name) => new Option(name, name)));
  if (told.message) {
    if (folder.out === out) remember("folder", folder.out = "");  // it has gone, or is not to be opened any more
    return sayHere(told.message);
  }
  if (told.rows) showFolder(told);
}

function showFolder(told) {
  const reviewed = folder.doubts[folder.at] ?? [];
  const at = told.doubts.findIndex(([name, start]) => name === reviewed[0] && start === reviewed[1]);
  if (told.out !== folder.out) folder.at = -1;
  else folder.at = at >= 0 ? at : Math.max(-1, folder.at - 1);  // corrected: the next one has its place
  folder.out = told.out;
  remember("folder", told.out);
  folder.doubts = told.doubts;
  find("set").hidden = false;
  const failed = told.failed ? `, ${told.failed} failed` : "";
  put(find("set-told"), `${told.recordings} recordings${failed}, ${minutes(told.seconds)}, in ${told.out.split(/[/\\]/).slice(-2).join("/")}`);
  find("set-told").title = told.out;
  showShares(told.labels);
  find("doubts").replaceChildren(...told.doubts.slice(0, 12).map((doubt, k) => {
    const [name, start, , label, confidence, origin] = doubt;
    const node = document.createElement("button");
    node.textContent = `${percent(confidence)} ${label} · ${short(name)} ${clock((start - origin) / 1e6)}`;
    node.title = name;
    node.style.borderLeft = `6px solid ${colour(label)}`;
    node.addEventListener("click", () => openDoubt(k));
    return node;
  }));
  find("doubts").hidden = !told.doubts.length;
  find("rows").replaceChildren(...told.rows.map(rowOf));
  const last = told.first + told.rows.length;
  put(find("set-page"), told.matching > PAGE_ROWS ? `${told.first + 1} to ${last} of ${told.matching}` : "");
  find("set-back").hidden = find("set-on").hidden = told.matching <= PAGE_ROWS;
  find("set-back").disabled = !told.first;
  find("set-on").disabled = last >= told.matching;
  find("failures").replaceChildren(...told.failures.map(([name, reason]) => {
    const node = document.createElement("li");
    node.textContent = `${name}: ${reason}`;
    return node;
  }));
}

const base = (name) => name.split("/").pop();

// A recording's own name, or its whole path where another one of the doubts is named as it is.
function short(name) {
  return folder.doubts.some(([other]) => other !== name && base(other) === base(name)) ? name : base(name);
}

// One bar of all the time that is labelled, a part a label.
function showShares(labels) {
  const whole = labels.reduce((sum, [, seconds]) => sum + seconds, 0) || 1;
  find("shares").replaceChildren(...labels.slice(0, 24).map(([label, seconds, spans]) => {
    const node = document.createElement("span");
    node.style.flex = `${Math.max(seconds / whole, 0.002)} 1 0`;
    node.style.background = colour(label);
    node.style.color = inkOn(label);
    node.textContent = label;
    node.setAttribute("role", "listitem");
    node.title = `${label}: ${minutes(seconds)} in ${spans} spans, ${percent(seconds / whole)}`;
    node.setAttribute("aria-label", node.title);
    return node;
  }));
}

function rowOf(told) {
  const row = document.createElement("tr");
  const cells = Array.from({length: 5}, () => row.insertCell());
  const opens = document.createElement("button"), track = document.createElement("canvas");
  opens.textContent = told.name;
  opens.title = [told.name, told.remarks].filter(Boolean).join("\n");
  opens.addEventListener("click", () => openAt(told.name, told.start_us));
  cells[0].append(opens);
  cells[1].textContent = minutes((told.end_us - told.start_us) / 1e6);
  cells[2].textContent = told.count + (told.corrected ? " · corrected" : "");
  cells[3].textContent = told.least === null ? "–" : percent(told.least);
  cells[4].append(track);
  track.ariaHidden = "true";
  track.addEventListener("click", (event) => {
    const [us] = under(track, told, event);
    openAt(told.name, Math.round(us));
  });
  track.addEventListener("pointermove", (event) => {
    const [us, span] = under(track, told, event);
    track.title = `${clock((us - told.start_us) / 1e6)}${span ? ` ${span[2]}${span[3] === null ? "" : ` ${percent(span[3])}`}` : ""}`;
  });
  requestAnimationFrame(() => drawTrack(track, told));
  return row;
}

function under(track, told, event) {
  const box = track.getBoundingClientRect();
  const us = told.start_us + (event.clientX - box.left) / box.width * (told.end_us - told.start_us);
  return [us, told.spans.find(([start, end]) => start <= us && us < end)];
}

function drawTrack(track, told) {
  const box = track.getBoundingClientRect();
  track.width = Math.round(box.width * devicePixelRatio);
  track.height = Math.round(box.height * devicePixelRatio);
  const pen = track.getContext("2d"), perUs = track.width / (told.end_us - told.start_us);
  for (const [start, end, label, confidence] of told.spans) {
    const tall = track.height * (confidence ?? 1);  // as on the timeline: as high as it is sure
    pen.fillStyle = colour(label);
    pen.fillRect((start - told.start_us) * perUs, track.height - tall, Math.max(1, (end - start) * perUs), tall);
  }
}

// --- reviewing ---

async function openAt(recording, start_us, span = null) {
  const asked = ++folder.opening;
  if (!await act("review", {out: folder.out, recording, start_us})) return false;
  await fresh();
  if (asked !== folder.opening) return false;
  folder.channel = line.channel;
  view("watch");
  find("review").hidden = false;
  put(find("reviewed"), `Reviewing ${short(recording)}${span ? `: is it ${span[2]}? ${percent(span[3])} sure` : ""}`);
  find("review-next").disabled = folder.at + 1 >= folder.doubts.length;
  find("hand").open = true;
  return true;
}

async function openDoubt(k) {
  const [name, start, end, label, confidence] = folder.doubts[k];
  folder.at = k;
  if (!await openAt(name, start, [start, end, label, confidence])) return;
  const opening = folder.opening, watched = () => opening === folder.opening && line.channel === folder.channel;
  while (watched() && state.position_us === null && !state.failed) await wait(100);
  if (!watched() || state.failed) return;
  mark(start, end);
  find("own-label").value = label;
  find("own-label").select();
}

// The bar goes once something else is watched: labels by hand are of that, then.
function showReview() {
  if (line.channel !== folder.channel) find("review").hidden = true;
}

// --- how it goes ---

function showBatch({batch}) {
  const busy = Boolean(batch && !batch.over);
  find("label-folder").disabled = find("export-folder").disabled = busy;
  find("stop-folder").hidden = find("batch-progress").hidden = !busy;
  if (!batch) return;
  if (batch.share) find("batch-progress").value = batch.share;
  else find("batch-progress").removeAttribute("value");
  const parts = [batch.message];
  if (busy && batch.failed) parts.push(`${batch.failed} failed`);
  if (busy && batch.real_time_factor) parts.push(`${batch.real_time_factor.toFixed(1)} × real time`);
  if (busy && batch.seconds_left !== null) parts.push(`${minutes(batch.seconds_left)} left`);
  put(find("batch-told"), parts.join(" · "));
  const ended = folder.busy && !busy;
  folder.busy = busy;
  const due = busy && (batch.done || batch.skipped) && performance.now() - folder.looked > LOOK_MS;
  const used = ["rows", "doubts"].some((id) => find(id).contains(document.activeElement));
  const own = batch.out === folder.out || find("set").hidden;  // else another folder is looked through meanwhile
  if (inFolder() && own && (ended || due && !used)) {
    folder.looked = performance.now();
    lookInto(batch.out);
  }
}

for (const button of document.querySelectorAll("[data-view]")) {
  button.addEventListener("click", () => view(button.dataset.view));
}
find("label-folder").addEventListener("click", async () => {
  if (await act("label_folder", {folder: find("batch-folder").value, out: find("batch-out").value})) {
    remember("folder-in", find("batch-folder").value);
    folder.first = 0;
    find("set").hidden = true;  // until there is something of this one
  }
});
onEnter("batch-folder", () => find("label-folder").click());
find("show-folder").addEventListener("click", () => {
  const chosen = find("batch-folder").value.replace(/[/\\]+$/, ""), out = find("batch-out").value;
  if (!chosen && !out) return sayHere("Say which folder: its path goes into the first field.");
  folder.first = 0;
  lookInto(out || `${chosen}/velora-labels`);
});
find("stop-folder").addEventListener("click", () => act("stop_folder"));
find("export-folder").addEventListener("click", () => act("export_folder", {
  out: folder.out, to: find("export-tool").value, video: find("export-video").checked}));
find("set-order").addEventListener("change", () => { folder.first = 0; lookInto(folder.out); });
find("set-text").addEventListener("input", () => { folder.first = 0; lookInto(folder.out); });
find("set-back").addEventListener("click", () => { folder.first -= PAGE_ROWS; lookInto(folder.out); });
find("set-on").addEventListener("click", () => { folder.first += PAGE_ROWS; lookInto(folder.out); });
find("review-back").addEventListener("click", () => view("folder"));
find("review-next").addEventListener("click", () => openDoubt(folder.at + 1));
folder.out = remembered("folder", "");
find("batch-folder").value = remembered("folder-in", "");
