// The panes: which are shown, in which colours, and the pictures on them.

const SIDE_BY_SIDE = ["rgb", "events", "motion"];
const NEEDS = {rgb: ["rgb"], events: ["events"], motion: ["motion"], blend: ["rgb", "events"]};
const GAP = 8;  // columns between panes, as strip.py draws them
let showing = remembered("panes", SIDE_BY_SIDE).filter((name) => name in NEEDS);
if (!showing.length) showing = SIDE_BY_SIDE;
const figures = Object.fromEntries([...document.querySelectorAll("#stage figure")].map((f) => [f.dataset.pane, f]));

const seen = () => !find("watch").hidden && !document.hidden;
const wanted = () => !seen() ? [] : [...new Set(showing.flatMap((name) => NEEDS[name]))];

// Pixels of the screen that the widest pane takes: the server sends no more than that.
function paneWidth() {
  const frame = figures[showing[0]].querySelector(".frame");
  return Math.round(frame.getBoundingClientRect().width * devicePixelRatio) || 640;
}

function arrange(names) {
  showing = Object.keys(NEEDS).filter((name) => names.includes(name));
  remember("panes", showing);
  for (const [name, figure] of Object.entries(figures)) figure.hidden = !showing.includes(name);
  for (const button of document.querySelectorAll("[data-show]")) {
    button.setAttribute("aria-pressed", showing.includes(button.dataset.show));
  }
  find("stage").classList.toggle("alone", showing.length === 1);
}

function toggle(name) {
  const rest = showing.filter((other) => other !== name);
  if (rest.length < showing.length) { if (rest.length) arrange(rest); } else arrange([...showing, name]);
}

function alone(name) {
  arrange(showing.length === 1 && showing[0] === name ? SIDE_BY_SIDE : [name]);
}

function recolour(name) {
  for (const canvas of document.querySelectorAll("canvas.palette")) canvas.style.filter = name ? `url(#palette-${name})` : "";
  // White vanishes when colours are multiplied, black when they are screened.
  document.querySelector("canvas.over").style.mixBlendMode = name === "dark" ? "screen" : name === "grey" ? "hard-light" : "multiply";
  remember("palette", name);
}

function draw(canvas, image, x, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  canvas.getContext("2d").drawImage(image, x, 0, width, height, 0, 0, width, height);
}

function paint(image, {panes, widths, height}) {
  let x = 0;
  panes.forEach((name, i) => {
    for (const [pane, needs] of Object.entries(NEEDS)) {
      const canvas = figures[pane].querySelectorAll("canvas")[needs.indexOf(name)];
      if (canvas && showing.includes(pane)) draw(canvas, image, x, widths[i], height);
    }
    x += widths[i] + GAP;
  });
}

let shown = "";
const painted = {number: 0, at: 0};
function showPicture(jpeg, told) {
  const image = find("strip");
  const url = URL.createObjectURL(new Blob([jpeg], {type: "image/jpeg"}));
  return new Promise((done) => {
    image.onload = image.onerror = () => {
      URL.revokeObjectURL(shown);
      shown = url;
      if (image.naturalWidth) paint(image, told);
      Object.assign(painted, {number: told.number, at: performance.now()});
      done();
    };
    image.src = url;
  });
}

for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => toggle(button.dataset.show));
}
find("palette").value = remembered("palette", "");
find("palette").addEventListener("change", (event) => recolour(event.target.value));
find("opacity").value = remembered("opacity", 80);
find("opacity").addEventListener("input", fade);
function fade() {
  document.querySelector("canvas.over").style.opacity = find("opacity").value / 100;
  remember("opacity", Number(find("opacity").value));
}
arrange(showing);
recolour(find("palette").value);
fade();
