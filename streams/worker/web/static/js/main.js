// The start of the page: which view an address shows, search, pause, and the connection.

import * as alerts from "./alerts.js";
import * as demo from "./demo.js";
import { at, userAddress } from "./dom.js";
import * as flow from "./flow.js";
import * as groups from "./groups.js";
import * as overview from "./overview.js";
import { connect, isPaused, on, pause } from "./source.js";
import * as user from "./user.js";

const views = ["overview", "user", "flow", "groups"];
let view = "overview";

function named(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

// #/u/ID is a user, #/flow and #/groups are views, everything else is the overview.
function route() {
  const [, kind, id] = location.hash.match(/^#\/([a-z]*)\/?(.*)$/s) || [];
  if (location.hash === "#content") return;
  const wanted = kind === "u" && id ? "user" : kind === "flow" || kind === "groups" ? kind : "overview";
  user.close();
  flow.close();
  const changed = wanted !== view;
  view = wanted;
  for (const name of views) at(name).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a"))
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  document.title = view === "user" ? `${named(id)} · Groundswell` : "Groundswell";
  if (view === "user") user.show(named(id));
  else if (view === "flow") flow.show();
  else if (view === "groups") groups.show();
  if (changed && view !== "user") {
    scrollTo(0, 0);
    at(view === "overview" ? "content" : `${view}-title`)?.focus({ preventScroll: true });
  }
}

function search(event) {
  event.preventDefault();
  const id = at("query").value.trim();
  if (id) location.hash = userAddress(id);
  at("query").value = "";
}

function togglePause() {
  pause(!isPaused());
  at("pause").textContent = isPaused() ? "Resume" : "Pause";
  at("pause").setAttribute("aria-pressed", String(isPaused()));
}

overview.start();
alerts.start();
demo.start();
on("state", state => {
  document.querySelector('[data-view="groups"]').hidden = !state.page?.analyst;
});
at("search").addEventListener("submit", search);
at("pause").addEventListener("click", togglePause);
addEventListener("hashchange", route);
if (location.hash.length > 2) route();
else document.querySelector('nav [data-view="overview"]').setAttribute("aria-current", "page");
connect();
