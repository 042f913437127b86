// Why a user has a score, in words: what each part means, how much it matters, and that parts do not add up.

import { above, el, list, moment, people, signed, table, userLink } from "./dom.js";

const groups = {
  history: ["how far past posts went", "how many people shared each of them within the horizon"],
  posts: ["how many posts there are, and when", "how often the user posts and how long ago the last post was"],
  received: ["shares received lately", "how often others shared the user's posts, recent ones first"],
  made: ["shares made", "how much the user shares what others post"],
  audience: ["the audience", "followers, users followed, and people who found posts through this user"],
  standing: ["size in the network", "the counts of the user's own that the network's layers read"],
  neighbours: ["the people and posts around", "who shared, followed or belongs with the user, and how they themselves do"],
};

const features = {
  past_mean: "mean reach of past posts",
  recent_mean: "reach of recent posts",
  last: "reach of the last post",
  created: "number of posts",
  sharers: "number of people who shared the user",
  received_short: "shares received in the last hours",
  received_long: "shares received in the last days",
  created_long: "posts in the last days",
  made: "shares made",
  authors: "authors shared",
  made_short: "shares made in the last hours",
  made_long: "shares made in the last days",
  delay_made: "how fast the user shares",
  since_created: "time since the last post",
  since_received: "time since the last share received",
  since_made: "time since the last share made",
  delay_received: "how fast others share the user",
  followers: "followers",
  following: "users followed",
  via: "shares found through the user",
  cold: "no post yet",
};

const relations = {
  follows: "follows this user",
  interacts: "shared this user",
  created: "a post of this user",
  has_member: "a community of this user",
  shared: "shared the post",
  member_of: "a member",
  reply_to: "a reply",
};
export const relationText = relation => relations[relation] || relation;

const byPeople = (one, other) => Math.abs(other[1].people) - Math.abs(one[1].people);
const name = group => (groups[group] || [group])[0];

function ranking(parts, wanted) {
  return Object.entries(parts)
    .filter(([, part]) => wanted(part.people))
    .sort(byPeople)
    .slice(0, 3)
    .map(([group, part]) => `${name(group)} (${part.people > 0 ? "+" : "−"}${people(Math.abs(part.people))})`);
}

function sentences(answer) {
  const { explanation, calibrated } = answer;
  const raises = ranking(explanation.groups, value => value >= 0.005),
    lowers = ranking(explanation.groups, value => value <= -0.005);
  const rows = [
    el(
      "p",
      { class: "lead" },
      `About ${people(answer.reach)} people are expected to share the next post of ${answer.user}, more than for ${above(answer.percentile)} % of users. `,
      `Of a user of whom nothing is recorded: ${people(explanation.stranger.reach)}.`,
    ),
  ];
  if (raises.length) rows.push(el("p", {}, `Raised most by ${list(raises)}.`));
  if (lowers.length) rows.push(el("p", {}, `Lowered by ${list(lowers)}.`));
  rows.push(
    el(
      "p",
      { class: "note" },
      "Each number is the people that would be missing from the score if that part alone were absent. Parts act on each other, " +
        `so they do not add up to the score.${calibrated ? "" : " Scores are not calibrated on this stream yet: compare the parts, not the counts."}`,
    ),
  );
  if (!explanation.settled)
    rows.push(el("p", { class: "note" }, "The neighbourhood changed just now; the score follows with the next step."));
  return rows;
}

function changeText(change) {
  if (!change.before) return "What changed since the previous score is " + change.why + ".";
  const moved = Object.entries(change.features || {})
    .filter(([, one]) => one.before !== one.now)
    .map(([feature, one]) => `${features[feature] || feature} ${one.now > one.before ? "rose" : "fell"}`);
  const named = entries => entries.slice(0, 4).map(([relation, id]) => `${id} (${relationText(relation)})`);
  const arrived = named(change.arrived || []),
    gone = named(change.gone || []);
  const parts = [
    moved.length ? list(moved) : "",
    arrived.length ? `new around: ${list(arrived)}` : "",
    gone.length ? `no longer: ${list(gone)}` : "",
  ].filter(Boolean);
  return (
    `Before, as of ${moment(change.before.as_of)}, the reach was ${people(change.before.reach)}. ` +
    (parts.length ? `Since then: ${parts.join("; ")}.` : "Nothing of the user's own changed since then; neighbours did.")
  );
}

// The explanation as elements; a heading that takes the focus is the caller's.
export function whyNodes(answer) {
  const { explanation } = answer;
  const parts = table(
    "What the parts are worth",
    ["part", "people"],
    Object.entries(explanation.groups)
      .sort(byPeople)
      .map(([group, part]) => [
        el("span", {}, name(group), el("span", { class: "note" }, ` – ${(groups[group] || ["", ""])[1]}`)),
        signed(part.people),
      ]),
  );
  const near = explanation.neighbours.filter(one => Math.abs(one.people) >= 0.005).slice(0, 10);
  const neighbours = table(
    `Who and what around matters most (of ${explanation.neighbours.length + explanation.unshown})`,
    ["neighbour", "people"],
    near.map(one => [
      el(
        "span",
        {},
        one.type === "user" ? userLink(one.id) : one.id,
        el("span", { class: "note" }, ` ${relationText(one.relation)}, ${moment(one.since)}`),
      ),
      signed(one.people),
    ]),
  );
  const own = table(
    "What is recorded of the user",
    ["of the user's own", "people"],
    Object.entries(explanation.features)
      .filter(([, part]) => Math.abs(part.people) >= 0.005)
      .sort(byPeople)
      .slice(0, 8)
      .map(([feature, part]) => [features[feature] || feature, signed(part.people)]),
  );
  return [
    ...sentences(answer),
    el("p", {}, changeText(explanation.change)),
    el(
      "div",
      { class: "split" },
      parts,
      near.length ? neighbours : el("p", { class: "note" }, "No neighbour changes the score noticeably."),
      own,
    ),
  ];
}
