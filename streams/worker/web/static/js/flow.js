// The stream: where messages wait, how far event time is, what was refused and why, and what a step spends its time on.

import { at, count, el, rough, span, table } from "./dom.js";
import { Lines } from "./lines.js";
import { current, get, isPaused, on } from "./source.js";

const EVERY_MS = 2000;
let timer = null,
  before = null,
  rate = null;

const reasons = {
  empty: "no value",
  envelope: "wrapped in an envelope",
  field: "a field is missing, extra or wrong",
  format: "not plain JSON: compressed or of a registry",
  id: "an id is empty or too long",
  json: "not JSON",
  nested: "an array inside an array",
  schema: "a field is missing or of another type",
  size: "too large",
  time: "the time cannot be read",
  type: "a type that this topic does not have",
  utf8: "not UTF-8",
};
const stages = {
  apply: "applying events",
  refresh: "features",
  frontier: "finding what is stale",
  layer1: "first layer",
  layer2: "second layer",
  head: "scores",
  tolerance: "holding small changes back",
  halos: "mirrors of other shards",
  publish: "choosing what to publish",
  step: "the whole step",
  prepare: "preparing the write",
  acknowledge: "acknowledged by Kafka",
  commit: "written to disk",
  decode: "reading messages",
};

// Milliseconds of a run since the last reading, or since the start before there is one.
function means(now, past) {
  const earlier = new Map((past || []).map(one => [one.stage, one]));
  return now.map(one => {
    const old = earlier.get(one.stage) || { seconds: 0, runs: 0 };
    const runs = one.runs - old.runs;
    return [
      stages[one.stage] || one.stage.replaceAll("_", " "),
      runs > 0 ? (1000 * (one.seconds - old.seconds)) / runs : null,
      runs,
    ];
  });
}

function bars(caption, rows) {
  const most = Math.max(1e-9, ...rows.map(([, value]) => value || 0));
  const made = table(
    caption,
    ["stage", "ms each", "runs"],
    rows.map(([name, value, runs]) => [name, value === null ? "–" : value.toFixed(2), count(runs)]),
  );
  made.querySelectorAll("tbody tr").forEach((row, k) => {
    row.children[1].className = "meter";
    row.children[1].style.setProperty("--part", `${Math.round((100 * (rows[k][1] || 0)) / most)}%`);
  });
  return made;
}

function partitions(flow) {
  const behind = new Map(flow.watermark.map(one => [`${one.topic} ${one.partition}`, one.behind_s]));
  const keys = new Map([...flow.lag, ...flow.watermark].map(one => [`${one.topic} ${one.partition}`, one]));
  return [...keys]
    .sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true }))
    .map(([key, { topic, partition }]) => {
      const lag = flow.lag.find(one => one.topic === topic && one.partition === partition);
      return [`${topic} · ${partition}`, lag ? count(lag.records) : "–", behind.has(key) ? span(behind.get(key)) : "–"];
    });
}

function letters(flow) {
  if (!flow.dead_letters.length) return el("p", { class: "note" }, "None: every message could be read.");
  return table(
    "",
    ["reason", "topic", "messages"],
    flow.dead_letters.map(one => [reasons[one.reason] || one.reason.replaceAll("_", " "), one.topic, count(one.messages)]),
  );
}

function draw(flow) {
  at("watermark").textContent =
    `The newest event is ${span(Math.max(0, flow.behind_clock_s))} behind this machine's clock. Alerts wait for the slowest partition` +
    `${flow.idle_partitions ? `; ${flow.idle_partitions} idle ${flow.idle_partitions === 1 ? "partition does" : "partitions do"} not count` : ""}. ` +
    `${flow.late_shares === 1 ? "1 share" : `${count(flow.late_shares)} shares`} came after their time: they count in scores, not in past alerts.`;
  at("partitions").replaceChildren(table("", ["topic and partition", "waiting records", "event time behind"], partitions(flow)));
  at("letters").replaceChildren(letters(flow));
  const parts = [
    ["A step of a shard", means(flow.stages, before?.stages)],
    ["A poll of the input topics", means(flow.ingest, before?.ingest)],
  ];
  at("stages").replaceChildren(...parts.filter(([, rows]) => rows.length).map(([caption, rows]) => bars(caption, rows)));
  before = flow;
}

async function refresh() {
  if (isPaused() || document.hidden) return;
  try {
    draw(await get("api/v1/flow"));
  } catch {
    /* the status shows an unreachable worker */
  }
}

function drawRate(state) {
  if (!rate || !state) return;
  const now = Math.floor(Date.now() / 1000);
  rate.show(["events per second"], [state.history.map((_, k) => now - state.history.length + k), state.history]);
}

export function show() {
  at("flow").replaceChildren(
    el(
      "section",
      { class: "full" },
      el("h2", { id: "flow-title", tabIndex: -1 }, "Events per second, the last minute"),
      el("div", { class: "plot", id: "rate", role: "img", "aria-label": "Events per second" }),
      el("p", { class: "note", id: "watermark" }),
    ),
    el(
      "section",
      {},
      el("h2", {}, "Partitions"),
      el("div", { class: "wide", id: "partitions", tabIndex: 0, role: "region", "aria-label": "Lag and watermark by partition" }),
    ),
    el(
      "section",
      {},
      el("h2", {}, "Time of a step"),
      el("div", { class: "wide", id: "stages", tabIndex: 0, role: "region", "aria-label": "Milliseconds by stage" }),
      el("h2", {}, "Dead letters"),
      el("div", { id: "letters" }),
    ),
  );
  rate = new Lines(at("rate"));
  before = null;
  drawRate(current());
  refresh();
  timer = setInterval(refresh, EVERY_MS);
}

export function close() {
  clearInterval(timer);
  rate?.close();
  rate = null;
}

on("state", drawRate);
export { rough };
