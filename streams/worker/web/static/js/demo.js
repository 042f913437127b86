// In the demo only: a button that sends a real share, and what that share changed.

import { at, count, el, people, userLink } from "./dom.js";
import { get, on } from "./source.js";

const JSON_POST = { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" };

function described(done) {
  const part = (100 * (done.layer1 + done.layer2)) / Math.max(1, done.nodes + done.users);
  const moved = done.reach_after - done.reach_before;
  const sent = `Scored ${count(done.ms)} ms after it was sent, through Kafka and back.`;
  const work =
    `Computed ${count(done.layer1)} of ${count(done.nodes)} nodes in the first layer and ${count(done.layer2)} of ${count(done.users)} users in the second: ` +
    `${part < 0.1 ? "less than 0.1" : part.toFixed(1)} % of computing all` +
    (done.mutations > 1 ? `, for the ${count(done.mutations)} events of that step. ` : ". ");
  const change = ` went from ${people(done.reach_before)} to ${people(done.reach_after)} (${moved >= 0 ? "+" : "−"}${Math.abs(moved).toFixed(3)}).`;
  return [
    el("p", {}, userLink(done.user), ` shared ${done.content} of `, userLink(done.author), `. ${sent}`),
    el("p", {}, `${work}The reach of `, userLink(done.author), change),
  ];
}

function checked(check) {
  if (check.error === null) return `Not checked: ${check.why}.`;
  return (
    `Checked: ${check.reference} computed the author from what is stored, with all neighbours; ` +
    `the largest difference is ${check.error.toExponential(1)}.`
  );
}

async function send() {
  at("send").disabled = true;
  at("sent").replaceChildren(el("p", { class: "note" }, "Sent to Kafka; waiting for the score."));
  const note = el("p", { class: "note" }, "Checking against the reference; the first time it is loaded, which takes seconds.");
  try {
    const done = await get("api/v1/demo/share", JSON_POST);
    at("sent").replaceChildren(...described(done), note);
    note.textContent = checked(await get(`api/v1/demo/check?user=${encodeURIComponent(done.author)}`, JSON_POST));
  } catch (error) {
    if (note.isConnected) note.textContent = `Not checked: ${error.message}.`;
    else at("sent").replaceChildren(el("p", {}, `The share did not come through: ${error.message}.`));
  }
  at("send").disabled = false;
}

export function start() {
  at("send").addEventListener("click", send);
  on("state", state => {
    at("share").hidden = !state.page?.demo;
  });
}
