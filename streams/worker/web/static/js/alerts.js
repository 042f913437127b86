// Alerts as cards: who shared, which post, how fast, how long ago, and how the post goes on; and the record of alerts.

import { above, at, count, el, list, people, span, svg, userLink } from "./dom.js";
import { sparkline } from "./lines.js";
import { get, isPaused, on } from "./source.js";

const SHOWN = 12,
  GROWING = 6,
  EVERY_MS = 3000;
const cards = new Map();
let clock = null;

const ago = alert =>
  clock === null
    ? ""
    : `${span(Math.max(0, (clock - Date.parse(alert.as_of)) / 1000))} ago, ${alert.as_of.slice(0, 16).replace("T", " ")}`;

// Ids as links, as an enumeration.
function linked(users) {
  return users.flatMap((user, k) => [k === 0 ? "" : k === users.length - 1 ? " and " : ", ", userLink(user)]);
}

function sentences(alert) {
  const lines = [];
  const others = alert.new_sharers - (alert.sharers?.length || 0);
  const shared = alert.new_sharers === 1 ? "1 person shared" : `${count(alert.new_sharers)} people shared`;
  const before =
    alert.level === 0
      ? "Nothing of this author was shared before."
      : `${count(alert.level)} ${alert.level === 1 ? "share" : "shares"} before.`;
  lines.push(el("p", {}, `${shared} this author for the first time. ${before}`));
  if (alert.sharers)
    lines.push(
      el("p", { class: "note" }, "Among them ", ...linked(alert.sharers), others > 0 ? ` and ${count(others)} more.` : "."),
    );
  const parts = [];
  if (alert.content) parts.push(`most of them ${alert.content}${alert.topics ? ` (${list(alert.topics)})` : ""}`);
  if (alert.rising_s) parts.push(`three quarters of the shares came within ${span(alert.rising_s)}`);
  parts.push(`expected reach ${people(alert.reach)}, above ${above(alert.percentile)} % of users`);
  const text = parts.join("; ");
  lines.push(el("p", { class: "note" }, `${text[0].toUpperCase()}${text.slice(1)}.`));
  return lines;
}

function badge(alert) {
  if (!alert.outcome) return el("span", { class: "badge open" }, "open");
  const text = alert.outcome === "confirmed" ? `confirmed ${span(alert.lead_s)} later` : "expired";
  const title =
    alert.outcome === "confirmed"
      ? "among the most shared authors that much later"
      : "not among the most shared authors within the window";
  return el("span", { class: `badge ${alert.outcome}`, title }, text);
}

function card(alert, isNew) {
  const growth = el("div", { class: "spread", hidden: true });
  const line = el(
    "li",
    { class: isNew ? "new" : "", "data-alert": alert.alert },
    el(
      "div",
      { class: "card-top" },
      el("strong", {}, userLink(alert.user)),
      badge(alert),
      el("span", { class: "ago" }, ago(alert)),
    ),
    ...sentences(alert),
    growth,
  );
  return { alert, line, growth, shares: -1 };
}

function showAlert(alert, isNew) {
  if (cards.has(alert.alert)) return;
  const made = card(alert, isNew);
  cards.set(alert.alert, made);
  at("alerts").querySelector(".empty")?.remove();
  at("alerts").prepend(made.line);
  while (at("alerts").children.length > SHOWN) {
    cards.delete(at("alerts").lastChild.dataset.alert);
    at("alerts").lastChild.remove();
  }
  if (isNew) grow(made);
}

function showOutcome(ended) {
  const known = cards.get(ended.alert);
  if (!known || known.alert.outcome) return;
  Object.assign(known.alert, ended);
  known.line.querySelector(".badge").replaceWith(badge(known.alert));
  showLead();
}

// How the post of an alert goes on, from its shares until now.
async function grow(known) {
  const { alert, growth } = known;
  if (!alert.content) return;
  try {
    const post = await get(`api/v1/contents/${encodeURIComponent(alert.content)}/cascade`);
    if (post.shares < 2 || post.shares === known.shares) return;
    known.shares = post.shares;
    const { times, shares } = post.growth;
    const image = svg("svg", { viewBox: "0 0 120 30", "aria-hidden": "true", preserveAspectRatio: "none" });
    image.append(svg("path", { d: sparkline(times, shares) }));
    const since = shares.findLast((_, k) => times[k] * 1000 <= Date.parse(alert.as_of)) || 0;
    const more = post.shares - since;
    growth.replaceChildren(
      image,
      el(
        "span",
        { class: "note" },
        `${count(post.shares)} shares in ${span(times.at(-1) - times[0])}${more > 0 ? `, ${count(more)} of them since the alert` : ""}`,
      ),
    );
    growth.hidden = false;
  } catch {
    /* deleted, on another worker, or not ready */
  }
}

function growAll() {
  if (isPaused() || at("overview").hidden || document.hidden) return;
  [...at("alerts").children].slice(0, GROWING).forEach(line => {
    const known = cards.get(line.dataset.alert);
    if (known) grow(known);
  });
  for (const { alert, line } of cards.values()) line.querySelector(".ago").textContent = ago(alert);
}

let lead = "";

// The median time by which confirmed alerts were ahead, of those shown.
function showLead() {
  const leads = [...cards.values()]
    .filter(({ alert }) => alert.outcome === "confirmed")
    .map(({ alert }) => alert.lead_s)
    .sort((a, b) => a - b);
  lead = leads.length ? ` Called a median of ${span(leads[leads.length >> 1])} before.` : "";
}

function showRecord(record) {
  const { shipped, counter, precision } = record || {};
  if (!shipped || !(shipped.confirmed + shipped.expired + shipped.missed)) return;
  const ended = one => `${count(one.confirmed)} of ${count(one.confirmed + one.expired)}`;
  const missed = one => `${count(one.missed)} ${one.missed === 1 ? "author" : "authors"}`;
  const part = name => (name in precision ? `${Math.round(100 * precision[name])} %` : "–");
  at("record").textContent =
    `${ended(shipped)} ended alerts were confirmed, ${count(shipped.expired)} expired; ${missed(shipped)} rose to the top` +
    ` without an alert.${lead} A plain counter with the same budget: ${ended(counter)} confirmed, ${missed(counter)} missed.` +
    ` Of the newest alerts, ${part("shipped")} against ${part("counter")} were confirmed.`;
}

export function start() {
  on("open", async () => {
    try {
      const { alerts } = await get(`api/v1/alerts?limit=${SHOWN}`);
      alerts.reverse().forEach(alert => showAlert(alert, false));
      showLead();
    } catch {
      /* the status shows an unreachable worker */
    }
  });
  on("top", message => {
    if (message.clock) clock = Date.parse(message.clock);
  });
  on("alert", alert => showAlert(alert, true));
  on("outcome", showOutcome);
  on("state", state => showRecord(state.alert_record));
  setInterval(growAll, EVERY_MS);
}

export const alertsOf = user => [...cards.values()].filter(({ alert }) => alert.user === user).map(({ alert }) => alert);
