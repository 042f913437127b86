// Lines over time, drawn by uPlot.

import { at, el } from "./dom.js";

export const COLORS = 5;
const shades = new Map();

function shade(name) {
  if (!shades.has(name)) shades.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return shades.get(name);
}

// A chart in an element. data: times, then one array per series; names label the series.
export class Lines {
  constructor(host, { height = 190, unit = "", time = true } = {}) {
    Object.assign(this, { host, height, unit, time, names: [], data: [[]] });
    this.watch = new ResizeObserver(() => this.plot?.setSize({ width: this.width(), height: this.height }));
    this.watch.observe(host);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      shades.clear();
      this.names = [];
      this.show(this.labels, this.data);
    });
  }

  width() {
    return Math.max(120, this.host.clientWidth);
  }

  show(names, data) {
    this.labels = names;
    this.data = data;
    if (data[0].length < 2) {
      this.plot?.destroy();
      this.plot = null;
      this.host.replaceChildren(el("p", { class: "note" }, "The line begins with the next samples."));
      return;
    }
    if (this.plot && names.join("\n") === this.names.join("\n")) {
      this.plot.setData(data);
      return;
    }
    this.plot?.destroy();
    this.host.replaceChildren();
    this.names = [...names];
    const grid = { stroke: shade("--line"), width: 1 };
    const axis = { stroke: shade("--soft"), grid, ticks: grid, font: "11px system-ui, sans-serif" };
    this.plot = new uPlot(
      {
        width: this.width(),
        height: this.height,
        cursor: { drag: { x: false, y: false } },
        legend: { show: false },
        scales: { x: { time: this.time }, y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.1 : 1] } },
        axes: [
          { ...axis, space: 70, ...(this.time && { values: (_, at, axis, space, step) => at.map((s) => clock(s, step)) }) },
          { ...axis, size: 58 },
        ],
        series: [
          {},
          ...names.map((name, k) => ({
            label: name,
            stroke: shade(`--c${k % COLORS}`),
            width: 2,
            spanGaps: true,
            points: { show: false },
          })),
        ],
      },
      data,
      this.host,
    );
  }

  close() {
    this.watch.disconnect();
    this.plot?.destroy();
    this.plot = null;
  }
}

// The label of a moment (s) on an axis with this step (s): date, minute or second, as everywhere on the page.
function clock(seconds, step) {
  const at = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  if (step >= 86400) return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const minute = `${two(at.getHours())}:${two(at.getMinutes())}`;
  return step < 60 ? `${minute}:${two(at.getSeconds())}` : minute;
}

// A small line without axes, for cards: values as an SVG path.
export function sparkline(times, values) {
  const [first, end] = [times[0], times.at(-1)],
    most = Math.max(1, ...values);
  const points = values.map(
    (value, k) =>
      `${((118 * (times[k] - first)) / Math.max(1e-9, end - first) + 1).toFixed(1)},${(29 - (28 * value) / most).toFixed(1)}`,
  );
  return `M1,29 L${points.join(" L")}`;
}

export const chart = (id, options) => new Lines(at(id), options);
