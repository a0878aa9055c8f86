// The loop that pulls pictures and state: the next request travels while a picture is decoded.

const PATIENCE_MS = 5000;
const AWAY_MS = 250;  // from one state to the next where no picture is shown

let viewed = "";

function request(token, after) {
  const view = `${wanted()} ${paneWidth()}`;
  const asked = new URLSearchParams({
    after: view === viewed ? after : 0,  // the same picture again, if it is shown otherwise
    panes: wanted().join(),
    width: paneWidth(),
    channel: line.channel ?? 0,
    change: line.change,
    setup: setup.version,
    painted: painted.number,
    ago: Math.round(performance.now() - painted.at),
  });
  viewed = view;
  const reply = fetch(`frames/${token}?${asked}`, {signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store"});
  reply.catch(() => {});  // looked at when its turn comes
  return reply;
}

async function pull(token) {
  let after = 0, drawn = 0;
  let next = request(token, after);
  while (props.value === token) {
    let reply, body, news, cut;
    try {
      reply = await next;
      body = new Uint8Array(await reply.arrayBuffer());
      if (reply.status === 404) return reload();
      if (!reply.ok) throw new Error(`status ${reply.status}`);
      cut = body.indexOf(10);
      news = JSON.parse(new TextDecoder().decode(body.subarray(0, cut)));
    } catch {
      say(UNREACHABLE);
      await wait(1000);
      next = request(token, after);
      continue;
    }
    after = news.number ?? after;
    takeTimeline(news);
    if (news.setup) takeSetup(news.setup);
    next = request(token, after);  // before the picture is decoded: the next one travels meanwhile
    show(news);
    if (performance.now() - drawn > 90) {
      drawTimeline();
      drawn = performance.now();
    }
    if (news.number) await showPicture(body.subarray(cut + 1), news);
    else if (inFolder()) await wait(AWAY_MS);
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

watch("value", () => { if (props.value) pull(props.value); });
if (props.value) pull(props.value);
