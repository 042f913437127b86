// The connection to the worker: one stream of events, requests, and what the reader is to know about their state.

import { at, span } from "./dom.js";

const STALE_S = 4;
const handlers = new Map();
let last = 0,
  lost = null,
  state = null,
  paused = false,
  due = 0,
  waiting = new Map();

export const isPaused = () => paused;
export const current = () => state;

// Call a function with each message of a kind; several parts may listen to one kind.
export function on(kind, call) {
  handlers.set(kind, [...(handlers.get(kind) || []), call]);
}

function emit(kind, value) {
  for (const call of handlers.get(kind) || []) call(value);
}

// Messages wait for the next frame, and while paused for its end: the newest of a kind, but every alert and outcome.
function receive(kind, value) {
  last = performance.now();
  lost = null;
  if (kind === "state") state = value;
  waiting.set(kind === "alert" || kind === "outcome" ? `${kind} ${value.alert}` : kind, [kind, value]);
  if (!due) due = requestAnimationFrame(deliver);
}

function deliver() {
  due = 0;
  show();
  if (paused) return;
  const kept = [...waiting.values()];
  waiting = new Map();
  for (const [kind, value] of kept) emit(kind, value);
}

export function pause(wanted) {
  paused = wanted;
  deliver();
}

// Starting, stale, lost and paused look different, in the header and above the content.
function show() {
  const silent = (performance.now() - last) / 1000;
  let [kind, text, reason] = ["live", "live", ""];
  if (lost !== null) {
    [kind, text] = ["lost", "connection lost"];
    reason = `The worker does not respond since ${span((performance.now() - lost) / 1000)}. What you see is as old as that; the page reconnects by itself.`;
  } else if (!last) {
    [kind, text] = ["wait", "connecting"];
  } else if (silent > STALE_S) {
    [kind, text] = ["stale", `no update since ${span(silent)}`];
    reason = "The connection is open, but the worker sends nothing: it may be busy.";
  } else if (state && !state.ready) {
    [kind, text] = ["wait", "starting"];
    reason = `The worker is starting: ${state.detail}. Scores follow when its state is loaded.`;
  } else if (paused) {
    [kind, text] = ["wait", "paused"];
  }
  const status = at("status");
  if (status.textContent !== text) status.textContent = text;
  status.className = kind;
  if (at("why-not").textContent !== reason) at("why-not").textContent = reason;
  at("banner").hidden = !reason;
  const progress = kind === "wait" && state && state.progress;
  at("progress").hidden = !progress;
  if (progress) at("progress").value = progress;
}

// A response as JSON; an error has the text of the worker and its status.
export async function get(path, options) {
  const answer = await fetch(path, options);
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error || answer.statusText), { status: answer.status, body });
  return body;
}

export function connect() {
  const stream = new EventSource("api/v1/stream");
  stream.addEventListener("open", () => emit("open"));
  for (const kind of ["state", "top", "alert", "outcome"])
    stream.addEventListener(kind, event => receive(kind, JSON.parse(event.data)));
  stream.addEventListener("error", () => {
    lost ??= performance.now();
    show();
    // A refused request ends an EventSource for good; a broken connection does not.
    if (stream.readyState === EventSource.CLOSED)
      setTimeout(() => {
        stream.close();
        connect();
      }, 2000);
  });
  return stream;
}

setInterval(show, 1000);
