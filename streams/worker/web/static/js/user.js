// The page of a user: score, figures, reach over time, topics, community, alerts, why, and the neighbourhood.

import { alertsOf } from "./alerts.js";
import { above, at, count, el, moment, people, rough, span, svg, withinPeople } from "./dom.js";
import { keys, Neighbourhood } from "./graph.js";
import { Lines } from "./lines.js";
import { current, get, isPaused } from "./source.js";
import { whyNodes } from "./why.js";

const EVERY_MS = 5000;
let open = null;

function figure(name, value, title) {
  return el("div", title ? { title } : {}, el("dt", {}, name), el("dd", {}, value));
}

function profile(answer) {
  const rows = [figure("reach", `${people(answer.reach)} people`), figure("above", `${above(answer.percentile)} % of users`)];
  if (answer.followers === undefined) return rows;
  return [
    ...rows,
    figure("tier", answer.tier || "none", "by the number of followers"),
    figure("followers", count(answer.followers)),
    figure("new in 7 days", `+${count(answer.gained["7d"])}`),
    figure("posts", count(answer.posts)),
    figure("shares received", count(answer.shares_received)),
    figure("sharers per post and 100 followers", answer.engagement === null ? "–" : rough(100 * answer.engagement)),
  ];
}

function topics(answer) {
  const found = answer.topics || [];
  if (!found.length) return el("p", { class: "note" }, "No topics: the posts of this user name none.");
  return el(
    "ul",
    { class: "chips" },
    found
      .slice(0, 8)
      .map(one =>
        el(
          "li",
          { title: `mean reach ${people(one.mean_reach)}` },
          `${one.topic} · ${one.posts} ${one.posts === 1 ? "post" : "posts"}`,
        ),
      ),
  );
}

function alertLines(user) {
  const found = alertsOf(user);
  if (!found.length) return null;
  return el(
    "p",
    {},
    ...found.map(
      alert =>
        `Alert of ${moment(alert.as_of)}: ${count(alert.new_sharers)} new sharers, ` +
        `${alert.outcome ? (alert.outcome === "confirmed" ? `confirmed ${span(alert.lead_s)} later` : "expired") : "open"}. `,
    ),
  );
}

function audience(found) {
  if (!found.followers || found.quality_followers === undefined) return "";
  const part = Math.min(100, (100 * found.quality_followers) / found.followers);
  return ` Of ${count(found.followers)} followers ${part.toFixed(0)} % look genuine; the others hardly react to what they follow.`;
}

async function community(user, host) {
  // A page that is opened at a user's address has no state of the worker yet.
  if (!current()) {
    setTimeout(() => {
      if (open?.user === user) community(user, host);
    }, 300);
    return;
  }
  if (!current().page.analyst) return;
  try {
    const found = await get(`api/v1/analyst/users/${encodeURIComponent(user)}`);
    const members = found.community ? `community ${found.community}` : "no community";
    host.textContent = `In the whole graph: ${members}; core ${found.core}; PageRank ${rough(found.pagerank)}${found.bridge ? `; bridges communities by ${rough(found.bridge)}` : ""}.${audience(found)}`;
  } catch (error) {
    host.textContent = `The analyst has no figures of this user: ${error.message}.`;
  }
}

async function drawLine(user) {
  if (open?.user !== user || isPaused() || document.hidden) return;
  try {
    const history = await get(`api/v1/history?user=${encodeURIComponent(user)}`);
    const seen = history.times
      .map((time, k) => [time, withinPeople(history.reach[user][k])])
      .filter(([, value]) => value !== null);
    if (open?.user === user) open.line.show([user], [seen.map(([time]) => time), seen.map(([, value]) => value)]);
  } catch {
    /* the status shows an unreachable worker */
  }
}

function missing(user, error) {
  const owner = error.body?.owner;
  const elsewhere = owner?.url
    ? el("p", {}, el("a", { href: `${owner.url}/${location.hash}` }, `Open ${user} at the worker that has this user`))
    : null;
  return el(
    "section",
    { class: "full" },
    el("h2", { id: "whom", tabIndex: -1 }, user),
    el("p", {}, `No score: ${error.message}.`),
    elsewhere,
    el("p", { class: "note" }, "Ids are exact, with capitals and spaces as the events have them."),
  );
}

export function close() {
  if (!open) return;
  clearInterval(open.timer);
  open.line?.close();
  open.graph?.close();
  open = null;
}

export async function show(user) {
  close();
  const mine = (open = { user });
  at("user").replaceChildren(
    el(
      "section",
      { class: "full" },
      el("h2", { id: "whom", tabIndex: -1 }, user),
      el("p", { class: "note" }, "Loading the explanation …"),
    ),
  );
  at("whom").focus({ preventScroll: true });
  scrollTo(0, 0);
  let answer;
  try {
    answer = await get(`api/v1/users/${encodeURIComponent(user)}?explain=1`);
  } catch (error) {
    if (open === mine) {
      at("user").replaceChildren(missing(user, error));
      at("whom").focus();
    }
    return;
  }
  if (open !== mine) return;
  const plot = el("div", { class: "plot", role: "img", "aria-label": `Reach of ${user} over time` });
  const net = svg("svg", { id: "net", role: "group", "aria-label": `Neighbourhood of ${user}` });
  const note = el(
    "p",
    { class: "note", role: "status" },
    "A tap on a user adds that user's neighbours; a second one opens the user's page.",
  );
  const place = el("p", { class: "note" });
  at("user").replaceChildren(
    el(
      "section",
      { id: "why", class: "full", "aria-labelledby": "whom" },
      el("h2", { id: "whom", tabIndex: -1 }, user),
      el("dl", { class: "profile" }, profile(answer)),
      alertLines(user),
      ...whyNodes(answer),
    ),
    el("section", {}, el("h2", {}, "Neighbourhood"), keys(), net, note),
    el(
      "section",
      {},
      el("h2", {}, "Reach over time"),
      plot,
      el("h3", {}, "Topics"),
      topics(answer),
      place,
      el("p", { class: "note" }, `As of ${moment(answer.as_of)}, model ${answer.model}.`),
    ),
  );
  at("whom").focus();
  open.graph = new Neighbourhood(net, note);
  open.graph.add(answer);
  open.line = new Lines(plot);
  open.timer = setInterval(() => drawLine(user), EVERY_MS);
  drawLine(user);
  community(user, place);
}
