// The loop that pulls pictures and state: the next request travels while a picture is decoded.

const PATIENCE_MS = 5000;  // for an answer to begin
const BODY_MS = 30000;  // for all of it, over a slow network
const AWAY_MS = 250;  // from one state to the next where no picture is shown, or nobody sees it

let viewed = "";
let patience = 0;
let asks = 0, answered = 0;  // requests, and the last one of which the answer is shown

// Until a state is shown that was asked for after this.
async function fresh() {
  const before = asks;
  while (answered <= before) await wait(50);
}

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
  asks++;
  const given = new AbortController();
  const waitUpTo = (ms) => {  // there is one request at a time
    clearTimeout(patience);
    patience = setTimeout(() => given.abort(), ms);
  };
  waitUpTo(PATIENCE_MS);
  const reply = fetch(`frames/${token}?${asked}`, {signal: given.signal, cache: "no-store"}).then((begun) => {
    waitUpTo(BODY_MS);
    return begun;
  });
  reply.catch(() => {});  // looked at when its turn comes
  return reply;
}

async function pull(token) {
  let after = 0, drawn = 0;
  let next = request(token, after);
  while (props.value === token) {
    let reply = null, body, news, cut;
    try {
      reply = await next;
      body = new Uint8Array(await reply.arrayBuffer());
      if (reply.status === 404) return reload();
      if (!reply.ok) throw new Error(`status ${reply.status}`);
      cut = body.indexOf(10);
      news = JSON.parse(new TextDecoder().decode(body.subarray(0, cut)));
    } catch {
      say(reply && !reply.ok ? failing(reply.status) : UNREACHABLE);
      await wait(1000);
      next = request(token, after);
      continue;
    }
    after = news.number ?? after;
    takeTimeline(news);
    const first = !setup.version, shows = asks;
    if (news.setup) takeSetup(news.setup);
    next = request(token, after);  // before the picture is decoded: the next one travels meanwhile
    show(news);
    answered = shows;
    if (first) goBack();
    if (performance.now() - drawn > 90) {
      drawTimeline();
      drawn = performance.now();
    }
    if (news.number) await showPicture(body.subarray(cut + 1), news);
    else if (!seen()) await wait(AWAY_MS);
  }
}

// The server does not know this tab (any more): load the page anew, but only from a server that answers.
async function reload() {
  leaveWord();
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
