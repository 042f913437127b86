// In the demo only: a button that sends a real share, and what that share changed.

import { at, count, el, people, userLink } from "./dom.js";
import { get, on } from "./source.js";

function described(done) {
  const part = done.nodes ? (100 * (done.layer1 + done.layer2)) / (2 * done.nodes) : 0;
  const moved = done.reach_after - done.reach_before;
  return [
    el(
      "p",
      {},
      userLink(done.user),
      ` shared ${done.content} of `,
      userLink(done.author),
      `. Scored ${done.ms.toFixed(0)} ms after it was sent, through Kafka and back.`,
    ),
    el(
      "p",
      {},
      `Computed ${count(done.layer1)} nodes in the first layer and ${count(done.layer2)} in the second, of ${count(done.nodes)} each: ${part < 0.1 ? "less than 0.1" : part.toFixed(1)} % of the work of starting over` +
        `${done.mutations > 1 ? `, for the ${count(done.mutations)} events of that step` : ""}. The reach of `,
      userLink(done.author),
      ` went from ${people(done.reach_before)} to ${people(done.reach_after)} (${moved >= 0 ? "+" : "−"}${Math.abs(moved).toFixed(3)}).`,
    ),
    el(
      "p",
      { class: "note" },
      done.check.error === null
        ? `Not checked: ${done.check.why}.`
        : `Checked against ${done.check.reference}, which computed the author from nothing: the largest difference is ${done.check.error.toExponential(1)}.`,
    ),
  ];
}

async function send() {
  at("send").disabled = true;
  at("sent").replaceChildren(
    el(
      "p",
      { class: "note" },
      "Sent to Kafka; waiting for the score. The first time the reference is loaded, which takes seconds.",
    ),
  );
  try {
    at("sent").replaceChildren(
      ...described(
        await get("api/v1/demo/share", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }),
      ),
    );
  } catch (error) {
    at("sent").replaceChildren(el("p", {}, `The share did not come through: ${error.message}.`));
  }
  at("send").disabled = false;
}

export function start() {
  at("send").addEventListener("click", send);
  on("state", state => {
    at("share").hidden = !state.page?.demo;
  });
}
