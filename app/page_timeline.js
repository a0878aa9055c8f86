// The timeline: labels as coloured bars as high as they are sure, below them the event rate; on recordings it seeks.

const line = {channel: null, bins: new Map(), names: [], change: 0, origin: null, binUs: 1, lengthUs: 60e6, live: false};
const RATE_SHARE = 0.34;  // of the height
const ON_COLOUR = "#d55e00", OFF_COLOUR = "#0072b2";

function takeTimeline(news) {
  if (news.channel !== line.channel) {
    Object.assign(line, {channel: news.channel, bins: new Map(), names: [], change: 0, origin: null});
    marked = null;
    showMarked();
  }
  const at = Math.round(((news.position_us ?? 0) - (news.origin_us ?? 0)) / 1e6);
  bar.setAttribute("aria-valuemax", news.length_us === null ? Math.max(60, at) : Math.round(news.length_us / 1e6));
  bar.setAttribute("aria-valuenow", at);
  bar.setAttribute("aria-valuetext", [clock(at), news.labels[0]?.[0]].filter(Boolean).join(", "));
  if (!news.timeline) return;
  line.names = news.timeline.names;
  line.change = news.timeline.change;
  line.live = news.live || news.length_us === null;  // of unknown length: its last minute
  line.binUs = news.bin_us;
  line.lengthUs = news.length_us ?? 60e6;
  if (line.origin !== news.origin_us) {
    line.origin = news.origin_us;
    showSpans();
  }
  for (const [number, ...row] of news.timeline.rows) line.bins.set(number, row);
  if (!line.live) return;
  let newest = 0;
  for (const number of line.bins.keys()) newest = Math.max(newest, number);
  for (const number of line.bins.keys()) if (number < newest - 60e6 / line.binUs) line.bins.delete(number);
}

const leftUs = () => line.live ? Math.max(0, (state.position_us ?? 0) - line.origin - line.lengthUs) : 0;
const seconds = () => state.position_us === null ? 0 : ((state.position_us ?? 0) - line.origin) / 1e6;
const toX = (us, width) => (us - leftUs()) / line.lengthUs * width;
const toUs = (x, width) => leftUs() + x / width * line.lengthUs;

function drawTimeline() {
  const canvas = document.querySelector("#timeline canvas");
  const box = canvas.getBoundingClientRect(), scale = devicePixelRatio;
  const width = Math.round(box.width * scale), height = Math.round(box.height * scale);
  if (!width) return;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  const pen = canvas.getContext("2d"), top = height * (1 - RATE_SHARE) - 2 * scale;
  pen.clearRect(0, 0, width, height);
  const step = Math.max(1, line.binUs / line.lengthUs * width);
  let most = 1e-9;
  for (const [, , , rate] of line.bins.values()) most = Math.max(most, rate ?? 0);
  for (const [number, [label, share, unsure, rate, on]] of line.bins) {
    const x = toX(number * line.binUs, width);
    if (label !== null) {
      const tall = Math.max(2 * scale, (top - 16 * scale) * share / 100);  // labels by hand stand above
      pen.globalAlpha = unsure ? 0.3 : 1;
      pen.fillStyle = colour(line.names[label]);
      pen.fillRect(x, top - tall, step + 0.5, tall);
      pen.globalAlpha = 1;
    }
    if (rate) {  // its root, so that quiet times show beside busy ones
      const tall = (height - top - 3 * scale) * Math.sqrt(rate / most), ons = tall * (on ?? 0) / 100;
      pen.fillStyle = ON_COLOUR;
      pen.fillRect(x, height - tall, step + 0.5, ons);
      pen.fillStyle = OFF_COLOUR;
      pen.fillRect(x, height - tall + ons, step + 0.5, tall - ons);
    }
  }
  drawSpans(pen, width, top, scale);
  const head = toX((state.position_us ?? 0) - line.origin, width);
  pen.fillStyle = getComputedStyle(canvas).color;
  pen.fillRect(Math.min(width - 2 * scale, head - scale), 0, 2 * scale, height);
}

// --- spans by hand ---

let spans = [];  // of this recording: [start_us, end_us, label]
let marked = null;  // [start, end] in microseconds of the recording

function drawSpans(pen, width, top, scale) {
  pen.font = `${11 * scale}px system-ui, sans-serif`;
  for (const [start, end, label] of spans) {
    const x = toX(start - line.origin, width), w = Math.max(2, toX(end - line.origin, width) - x);
    pen.fillStyle = colour(label);
    pen.fillRect(x, 0, w, 14 * scale);
    pen.fillStyle = inkOn(label);
    if (w > 16 * scale) pen.fillText(label, x + 3 * scale, 11 * scale, w - 5 * scale);
  }
  if (!marked) return;
  const [from, to] = marked.map((us) => toX(us - line.origin, width));
  pen.fillStyle = "rgba(37, 99, 235, .25)";
  pen.fillRect(Math.min(from, to), 0, Math.max(2, Math.abs(to - from)), pen.canvas.height);
}

// --- pointer ---

const bar = find("timeline");
const placeOf = (event) => {
  const box = bar.getBoundingClientRect();
  return toUs(Math.min(Math.max(event.clientX - box.left, 0), box.width), box.width);
};
let pressed = null;
bar.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  pressed = {x: event.clientX, us: placeOf(event), moved: false};
  bar.setPointerCapture(event.pointerId);
});
bar.addEventListener("pointermove", (event) => {
  tip(event);
  if (!pressed) return;
  pressed.moved ||= Math.abs(event.clientX - pressed.x) > 4;
  if (pressed.moved) mark(line.origin + pressed.us, line.origin + placeOf(event));
});
bar.addEventListener("pointerup", (event) => {
  if (pressed && !pressed.moved) {
    mark(null);
    if (!line.live) act("seek", {seconds: placeOf(event) / 1e6});
  }
  pressed = null;
});
bar.addEventListener("pointercancel", () => { pressed = null; });
bar.addEventListener("pointerleave", () => { find("tip").hidden = true; });

function mark(from, to) {
  marked = from === null ? null : [Math.round(from), Math.round(to)];
  drawTimeline();
  showMarked();
}

function tip(event) {
  const us = placeOf(event), row = line.bins.get(Math.floor(us / line.binUs));
  const own = spans.find(([start, end]) => start <= us + line.origin && us + line.origin < end);
  const parts = [clock(us / 1e6)];
  if (own) parts.push(`labelled ${own[2]}`);
  if (row && row[0] !== null) parts.push(`${line.names[row[0]]} ${row[1]} %${row[2] ? " (unsure)" : ""}`);
  if (row && row[3] !== null) parts.push(`${row[3].toPrecision(3)} Mev/s${row[4] === null ? "" : `, ${row[4]} % ON`}`);
  put(find("tip"), parts.join(" · "));
  find("tip").hidden = false;
  const box = bar.getBoundingClientRect();
  find("tip").style.left = `${Math.min(event.clientX - box.left, box.width - find("tip").offsetWidth)}px`;
}
