// The neighbourhood of a user as a graph that expands: a tap on a user adds that user's own neighbours.

import { el, svg, userAddress } from "./dom.js";
import { get } from "./source.js";
import { relationText } from "./why.js";

const NEW = 12,
  MOST = 120;

export class Neighbourhood {
  constructor(host, note) {
    Object.assign(this, { host, note, nodes: new Map(), links: new Map(), parts: new Map() });
    this.lines = svg("g");
    this.dots = svg("g");
    host.replaceChildren(this.lines, this.dots);
    this.simulation = d3
      .forceSimulation([])
      .force("charge", d3.forceManyBody().strength(-420).distanceMax(420))
      .force(
        "link",
        d3
          .forceLink([])
          .id(node => node.key)
          .distance(Math.max(70, Math.min(130, host.clientWidth / 5))),
      )
      .force("x", d3.forceX(0).strength(0.06))
      .force("y", d3.forceY(0).strength(0.09))
      .force("collide", d3.forceCollide(20))
      .on("tick", () => this.place());
    this.watch = new ResizeObserver(() => this.place());
    this.watch.observe(host);
  }

  close() {
    this.simulation.stop();
    this.watch.disconnect();
  }

  node(type, id, beside) {
    const key = `${type} ${id}`;
    if (!this.nodes.has(key)) {
      if (this.nodes.size >= MOST) return null;
      const near = beside || { x: 0, y: 0 };
      this.nodes.set(key, { key, type, id, x: near.x + 40 * (Math.random() - 0.5), y: near.y + 40 * (Math.random() - 0.5) });
    }
    return this.nodes.get(key);
  }

  // Add the neighbours of an explained user, those that matter most first.
  add(answer) {
    const hub = this.node("user", answer.user);
    hub.open = true;
    hub.reach = answer.reach;
    for (const near of answer.explanation.neighbours.slice(0, NEW)) {
      const other = this.node(near.type, near.id, hub);
      if (!other) continue;
      this.links.set(`${other.key} ${hub.key} ${near.relation}`, { source: other.key, target: hub.key, relation: near.relation });
      for (const far of (near.neighbours || []).filter(one => one.type === "user").slice(0, 3)) {
        const third = this.node(far.type, far.id, other);
        if (third && third !== hub)
          this.links.set(`${third.key} ${other.key} ${far.relation}`, {
            source: third.key,
            target: other.key,
            relation: far.relation,
          });
      }
    }
    this.draw();
  }

  async expand(node) {
    if (node.open) {
      location.hash = userAddress(node.id);
      return;
    }
    this.note.textContent = `Loading the neighbours of ${node.id} …`;
    try {
      this.add(await get(`api/v1/users/${encodeURIComponent(node.id)}?explain=1`));
      this.note.textContent = `Neighbours of ${node.id} added. Another tap opens the page of ${node.id}.`;
    } catch (error) {
      this.note.textContent = `The neighbours of ${node.id} are not available: ${error.message}.`;
    }
  }

  draw() {
    for (const [key, link] of this.links) {
      if (this.parts.has(key)) continue;
      const line = svg("line");
      line.append(Object.assign(svg("title"), { textContent: relationText(link.relation) }));
      this.parts.set(key, line);
      this.lines.append(line);
    }
    for (const [key, node] of this.nodes) {
      if (!this.parts.has(key)) {
        this.parts.set(key, this.dot(node));
        this.dots.append(this.parts.get(key));
      }
      this.parts.get(key).setAttribute("class", `${node.type}${node.open ? " hub" : ""}`);
    }
    this.simulation.nodes([...this.nodes.values()]);
    this.simulation
      .force("link")
      .links(
        [...this.links.values()].map(link =>
          Object.assign(link, { source: link.source.key || link.source, target: link.target.key || link.target }),
        ),
      );
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.simulation.alpha(1).tick(200);
      this.place();
      this.simulation.stop();
    } else this.simulation.alpha(0.8).restart();
  }

  // A user is a link that expands; contents and communities are not. The area around a dot makes it easy to hit.
  dot(node) {
    const group = svg("g");
    const shapes = [svg("circle", { r: 14, class: "area" }), svg("circle", { r: node.type === "user" ? 8 : 6 })];
    if (node.type === "user") {
      const link = svg("a", { href: userAddress(node.id), "aria-label": `${node.id}: add neighbours` });
      link.append(...shapes);
      link.addEventListener("click", event => {
        if (event.metaKey || event.ctrlKey) return;
        event.preventDefault();
        this.expand(node);
      });
      group.append(link);
    } else group.append(...shapes);
    const text = svg("text", { x: 12, y: 4 });
    text.textContent = node.id.length > 18 ? `${node.id.slice(0, 17)}…` : node.id;
    group.append(text);
    return group;
  }

  place() {
    const [width, height] = [this.host.clientWidth, this.host.clientHeight];
    if (!width) return;
    this.host.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const spots = new Map();
    const inside = (value, half, before, after) => Math.min(half - after, Math.max(before - half, value));
    for (const [key, node] of this.nodes) {
      const [x, y] = [inside(node.x, width / 2, 16, 96) + width / 2, inside(node.y, height / 2, 16, 16) + height / 2];
      spots.set(key, [x, y]);
      this.parts.get(key)?.setAttribute("transform", `translate(${x.toFixed(1)},${y.toFixed(1)})`);
    }
    for (const [key, link] of this.links) {
      const [from, to] = [spots.get(link.source.key || link.source), spots.get(link.target.key || link.target)];
      const line = this.parts.get(key);
      if (!from || !to || !line) continue;
      for (const [name, value] of [
        ["x1", from[0]],
        ["y1", from[1]],
        ["x2", to[0]],
        ["y2", to[1]],
      ])
        line.setAttribute(name, value.toFixed(1));
    }
  }
}

export const keys = () =>
  el(
    "p",
    { class: "keys" },
    el("span", {}, el("span", { class: "dot k0" }), "user"),
    el("span", {}, el("span", { class: "dot k1" }), "post"),
    el("span", {}, el("span", { class: "dot k2" }), "community"),
  );
