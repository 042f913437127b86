// The overview: rates, the top with its lines, and the quality of predictions.

import { above, at, count, csv, download, el, limitPeople, people, rough, table, userLink, withinPeople } from "./dom.js";
import { chart, COLORS } from "./lines.js";
import { get, isPaused, on } from "./source.js";

const FIRST = 5,
  HISTORY_EVERY_MS = 5000;
let top = [],
  lines = null,
  calibrated = false;

function showRates(state) {
  at("events").textContent = rough(state.events_per_s);
  at("scores").textContent = rough(state.scores_per_s);
  at("p50").textContent = rough(state.freshness_p50_ms);
  at("p99").textContent = rough(state.freshness_p99_ms);
  at("lag").textContent = count(state.lag_records);
}

function change(value) {
  if (value === null || value === undefined) return el("td", { class: "none", title: "not in the top a minute ago" }, "·");
  const percent = value * 100;
  if (Math.abs(percent) < 0.05) return el("td", { class: "none" }, "0 %");
  if (value >= 9) return el("td", { class: "up" }, `× ${count(1 + value)}`);
  return el("td", { class: percent > 0 ? "up" : "down" }, `${percent > 0 ? "+" : "−"}${Math.abs(percent).toFixed(1)} %`);
}

// How many places a user rose or fell within the last minute.
function moved(entry, rank) {
  if (!entry.rank_before || entry.rank_before === rank) return null;
  const places = entry.rank_before - rank;
  return el(
    "span",
    { class: `moved ${places > 0 ? "up" : "down"}`, title: `place ${entry.rank_before} a minute ago` },
    `${places > 0 ? "▲" : "▼"}${Math.abs(places)}`,
  );
}

function row(entry, place, most) {
  const reach = el("td", { class: "meter" }, people(entry.reach));
  reach.style.setProperty("--part", `${Math.round((100 * entry.reach) / most)}%`);
  const dot = place < FIRST ? el("span", { class: `dot k${place % COLORS}` }) : null;
  return el(
    "tr",
    { "data-user": entry.user },
    el("td", { class: "num" }, String(place + 1), moved(entry, place + 1)),
    el("td", {}, dot, userLink(entry.user)),
    reach,
    el("td", { class: "more", title: "part of all users with less reach" }, `${above(entry.percentile)} %`),
    change(entry.change),
  );
}

const shown = () => {
  const wanted = at("filter").value.toLowerCase();
  return top.map((entry, place) => [entry, place]).filter(([entry]) => entry.user.toLowerCase().includes(wanted));
};

function showTable() {
  if (!top.length) return;
  const most = top[0].reach || 1;
  const focused = at("top").contains(document.activeElement) ? document.activeElement.textContent : null;
  const rows = shown().map(([entry, place]) => row(entry, place, most));
  at("top").replaceChildren(
    ...(rows.length
      ? rows
      : [el("tr", {}, el("td", { colSpan: 5, class: "empty" }, "None of the first twenty; search finds any user."))]),
  );
  if (focused !== null) [...at("top").querySelectorAll("a")].find(link => link.textContent === focused)?.focus();
}

function showTop(message) {
  at("users").textContent = count(message.users);
  limitPeople(message.users);
  at("about").textContent = message.clock
    ? `event time ${message.clock.slice(0, 16).replace("T", " ")} · model ${message.model}`
    : "no events yet";
  calibrated = message.calibrated;
  at("unit").textContent = calibrated
    ? "Reach: how many people are expected to share a user's next post, calibrated by posts of this stream that are complete."
    : "Reach: how many people are expected to share a user's next post. Not calibrated on this stream yet: trust the order more than the number.";
  top = message.top;
  showTable();
  at("ids").replaceChildren(...top.map(entry => el("option", { value: entry.user })));
}

async function showLines() {
  if (isPaused() || at("overview").hidden || !top.length || document.hidden) return;
  const users = top.slice(0, FIRST).map(entry => entry.user);
  try {
    const history = await get(`api/v1/history?${users.map(user => `user=${encodeURIComponent(user)}`).join("&")}`);
    lines ??= chart("lines");
    lines.show(users, [history.times, ...users.map(user => history.reach[user].map(withinPeople))]);
  } catch {
    /* the status shows an unreachable worker */
  }
}

const scorers = { model: "the model", past_mean: "mean of past posts", past_sharers: "number of past sharers" };

function showLive(live) {
  if (!live || !live.posts) return;
  const figure = value => (value === null || value === undefined ? "–" : value.toFixed(3));
  const made = table(
    "",
    ["agreement in order with what posts got (1: perfect)", "all authors", "known", "new"],
    Object.entries(live.spearman).map(([name, figures]) => [
      scorers[name] || name,
      figure(figures.all),
      figure(figures.known),
      figure(figures.new),
    ]),
  );
  at("figures").replaceChildren(...made.childNodes);
  const off =
    live.calibration === null
      ? ""
      : ` Predicted and observed reach differ by a factor of ${Math.exp(live.calibration).toFixed(2)}.`;
  at("judged").textContent =
    `Spearman's correlation over the newest ${count(live.posts)} posts whose horizon has passed, ${count(live.known)} of them of known authors.${off}`;
}

const heads = ["rank", "user", "reach", "calibrated", "percentile", "change_1_min", "as_of", "model"];
const cells = ([entry, place]) => [
  place + 1,
  entry.user,
  entry.reach,
  entry.calibrated,
  entry.percentile,
  entry.change,
  entry.as_of,
  entry.model,
];

async function copy() {
  const text = shown()
    .map(([entry, place]) => `${place + 1}\t${entry.user}\t${people(entry.reach)}`)
    .join("\n");
  try {
    await navigator.clipboard.writeText(text);
    at("copy").textContent = "Copied";
  } catch {
    at("copy").textContent = "Not allowed";
  }
  setTimeout(() => {
    at("copy").textContent = "Copy";
  }, 1500);
}

export function start() {
  on("state", state => {
    showRates(state);
    showLive(state.live);
  });
  on("top", showTop);
  at("filter").addEventListener("input", showTable);
  at("copy").addEventListener("click", copy);
  at("csv").addEventListener("click", () => download("top.csv", csv([heads, ...shown().map(cells)]), "text/csv"));
  setInterval(showLines, HISTORY_EVERY_MS);
  let first = true;
  on("top", () => {
    if (first && top.length) {
      first = false;
      showLines();
    }
  });
}
