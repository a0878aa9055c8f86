// Labels by hand, examples of new labels, and teaching.

const ordered = () => marked && [Math.min(...marked), Math.max(...marked)];

function showMarked() {
  const span = ordered();
  const told = span && span[1] > span[0]
    ? `${clock((span[0] - line.origin) / 1e6)} to ${clock((span[1] - line.origin) / 1e6)}`
    : state.live ? "Say what it shows, then record an example." : "Drag along the timeline, or press [ and ], to mark a span.";
  put(find("marked"), told);
  const usable = Boolean(span && span[1] > span[0]);
  for (const id of ["mark", "erase", "example"]) find(id).disabled = !usable;
  if (!usable) return;
  find("hand").open = true;
  const inside = spans.find(([start, end]) => start < span[1] && span[0] < end);
  if (!find("own-label").value && inside) find("own-label").value = inside[2];
}

function showSpans() {
  const placed = line.origin === null ? [] : spans.slice(0, 200);  // else their times are not known yet
  find("spans").replaceChildren(...placed.map(([start, end, label]) => chip(
    `${clock((start - line.origin) / 1e6)} ${label}`, () => {
      act("seek", {seconds: (start - line.origin) / 1e6});
      mark(start, end);
      find("own-label").value = label;
    }, () => act("erase", {start_us: start, end_us: end}), colour(label))));
}

function takeLabels() {
  spans = setup.spans;
  const known = [...new Set([...setup.labels, ...Object.keys(setup.examples), ...spans.map(([, , label]) => label)])];
  if (find("known-labels").dataset.names !== known.join("|")) {
    find("known-labels").dataset.names = known.join("|");
    find("known-labels").replaceChildren(...known.map((name) => new Option(name, name)));
  }
  showSpans();
  find("spans").title = setup.spans_in ? `kept in ${setup.spans_in}` : setup.no_spans ?? "";
  find("labels-csv").disabled = !spans.length;
  find("undo").disabled = !setup.can_undo;
  find("examples").replaceChildren(...Object.entries(setup.examples).map(([label, count]) => chip(
    `${label} × ${count}`, () => { find("own-label").value = label; }, () => act("forget", {label}), colour(label))));
  find("teach").disabled = Object.keys(setup.examples).length < 2;
  drawTimeline();
  showMarked();
}

function chip(text, does, removes, ink) {
  const node = document.createElement("span");
  node.className = "chip";
  const name = document.createElement("button"), cross = document.createElement("button");
  name.textContent = text;
  name.style.borderLeft = `6px solid ${ink}`;
  name.addEventListener("click", does);
  cross.textContent = "×";
  cross.ariaLabel = `remove ${text}`;
  cross.addEventListener("click", removes);
  node.append(name, cross);
  return node;
}

function showTeaching({teaching, recording_example: example}) {
  put(find("clip"), example ? `End example of ${example}` : "Record example");
  find("clip").classList.toggle("on", Boolean(example));
  const busy = Boolean(teaching && !teaching.over);
  find("stop-teaching").hidden = !busy;
  find("progress").hidden = !busy;
  if (!teaching) return;
  if (teaching.steps) find("progress").value = teaching.step / teaching.steps;
  else find("progress").removeAttribute("value");
  const parts = [teaching.message];
  if (busy && teaching.accuracy !== null) parts.push(`right in ${percent(teaching.accuracy)}`);
  if (busy && teaching.validation !== null) parts.push(`held out ${percent(teaching.validation)}`);
  if (busy && teaching.seconds_left !== null) parts.push(`${Math.ceil(teaching.seconds_left)} s left`);
  put(find("teaching"), parts.join(" · "));
}

async function withSpan(name) {
  const sent = marked, span = ordered(), label = find("own-label").value.trim();
  if (!span || !label) return sayHere(span ? "Type a label first." : "Mark a span first: drag along the timeline.");
  if (await act(name, {start_us: span[0], end_us: span[1], label}) && marked === sent) mark(null);
}

find("mark").addEventListener("click", () => withSpan("mark"));
onEnter("own-label", () => find(state.live ? "clip" : "mark").click());
find("example").addEventListener("click", () => withSpan("example"));
find("erase").addEventListener("click", async () => {
  const sent = marked, span = ordered();
  if (span && await act("erase", {start_us: span[0], end_us: span[1]}) && marked === sent) mark(null);
});
find("undo").addEventListener("click", () => act("undo"));
find("labels-csv").addEventListener("click", () => save(`labels/${props.value}.csv`));
find("clip").addEventListener("click", () => act("clip", {label: find("own-label").value.trim()}));
find("teach").addEventListener("click", () => act("teach", {name: find("new-name").value || `taught ${new Date().toISOString().slice(0, 16).replace(/[:T]/g, "-")}`}));
find("stop-teaching").addEventListener("click", () => act("stop_teaching"));
