// Finds recordings by a part of their names or labels, and says what a span of a timeline is.
const input = document.querySelector("#find input"), tip = document.getElementById("tip");
const groups = [...document.querySelectorAll(".group")];
const opened = new Map(groups.map(group => [group, group.open]));

input?.addEventListener("input", () => {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const group of groups) {
    let hits = 0;
    for (const row of group.querySelectorAll(".row")) {
      row.hidden = !words.every(word => row.dataset.find.includes(word));
      hits += !row.hidden;
    }
    group.hidden = !hits;
    group.open = words.length ? hits > 0 : opened.get(group);
    shown += hits;
  }
  document.getElementById("count").textContent = words.length ? `${shown.toLocaleString("en")} found` : "";
});

const time = seconds => {
  const tenths = Math.round(10 * seconds), whole = Math.floor(tenths / 600);
  return whole ? `${whole}:${(tenths / 10 - 60 * whole).toFixed(1).padStart(4, "0")}` : `${seconds.toFixed(2)} s`;
};

// A path holds the spans of one label: M x y h width v height … , 10000 wide and 20 high.
document.addEventListener("pointermove", event => {
  const svg = event.target.closest?.(".row svg");
  tip.hidden = true;
  if (!svg) return;
  const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * 10000;
  for (const path of [...svg.querySelectorAll("path")].reverse())
    for (const [, x, y, wide] of path.getAttribute("d").matchAll(/M(\d+) (\d+(?:\.\d+)?)h(\d+)/g))
      if (+x <= at && at < +x + +wide) {
        const long = svg.dataset.seconds / 10000;
        tip.textContent = `${path.dataset.label} · ${time(x * long)} – ${time((+x + +wide) * long)}`;
        tip.hidden = false;
        tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
        tip.style.top = `${box.top - tip.offsetHeight - 4}px`;
        return;
      }
});
document.addEventListener("pointerleave", () => { tip.hidden = true; });

// A doubt's link opens the group that its recording is in.
const reveal = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", reveal);
reveal();
