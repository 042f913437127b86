// Seeds and communities, where an analyst runs: whom to ask so that most distinct people are reached together.

import { at, count, el, people, rough, table, userLink } from "./dom.js";
import { current, get } from "./source.js";

const SHOWN = 12,
  AGAIN_MS = 3000;
let again = 0;

export async function show() {
  at("groups").replaceChildren(
    el(
      "section",
      { class: "full" },
      el("h2", { id: "groups-title", tabIndex: -1 }, "Seeds and communities"),
      el("p", { class: "note", id: "asked" }, "Asking the analyst …"),
    ),
  );
  try {
    const seeds = await get("api/v1/analyst/seeds");
    const first = seeds.seeds.slice(0, SHOWN);
    const about = await Promise.all(
      first.map(seed => get(`api/v1/analyst/users/${encodeURIComponent(seed.user)}`).catch(() => ({}))),
    );
    const communities = new Map();
    first.forEach((seed, k) => {
      if (about[k].community) communities.set(about[k].community, [...(communities.get(about[k].community) || []), seed.user]);
    });
    const rows = first.map((seed, k) => [
      userLink(seed.user),
      people(seed.adds),
      about[k].community ?? "–",
      rough(about[k].pagerank),
      count(about[k].followers),
    ]);
    at("asked").textContent =
      `About ${people(seeds.expected_reach)} distinct people are expected to share one post of each of the ${seeds.seeds.length} seeds. ` +
      "Each seed is worth what it adds to those above it, so a user with a large but already covered audience comes late or not at all.";
    at("groups").append(
      el(
        "section",
        {},
        el("h2", {}, "Seeds"),
        el(
          "div",
          { class: "wide", tabIndex: 0, role: "region", "aria-label": "Seeds" },
          table("", ["user", "people added", "community", "PageRank", "followers"], rows),
        ),
      ),
      el(
        "section",
        {},
        el("h2", {}, "Their communities"),
        ...[...communities].map(([name, users]) =>
          el("p", {}, `${name}: `, ...users.flatMap((user, k) => [k ? ", " : "", userLink(user)])),
        ),
        communities.size ? null : el("p", { class: "note" }, "No communities yet."),
        el("p", {}, el("a", { class: "user", href: current()?.page?.analyst || "#/" }, "The analyst's own page")),
      ),
    );
  } catch (error) {
    if (!at("asked")?.isConnected) return;
    at("asked").textContent = `The analyst has no list yet: ${error.message}. The page asks again.`;
    clearTimeout(again);
    again = setTimeout(() => {
      if (!at("groups").hidden) show();
    }, AGAIN_MS);
  }
}
