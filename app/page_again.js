// The server forgets a tab that sleeps, and all tabs when it is started anew: a page that is loaded again for that goes
// back to what it watched, and to the same moment of it.

const AGAIN = "velora-again";

function leaveWord() {
  const left = {way, seconds: state.live ? null : seconds(), playing: state.playing, view: inFolder() ? "folder" : "watch"};
  try { sessionStorage.setItem(AGAIN, JSON.stringify(left)); } catch { /* a browser that keeps nothing */ }
}

async function goBack() {
  let left;
  try {
    left = JSON.parse(sessionStorage.getItem(AGAIN));
    sessionStorage.removeItem(AGAIN);
  } catch { /* nothing of use */ }
  if (!left) return;
  if (left.view === "folder") view("folder");
  if (left.way?.name === "upload") return sayHere("What was uploaded is gone with the tab that it was for: upload it again.");
  if (left.way && !await act(left.way.name, left.way.values)) return;
  await fresh();
  if (!left.playing) await act("pause");
  if (left.seconds) await act("seek", {seconds: left.seconds});
}
