// Elements, numbers and times. Text of the stream is always inserted as text, never as markup: ids may contain anything.

export const at = id => document.getElementById(id);

// An element with properties; children are nodes or texts.
export function el(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "class") made.className = value;
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined));
  return made;
}

export function svg(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  return made;
}

export const userAddress = user => `#/u/${encodeURIComponent(user)}`;

export const userLink = user => el("a", { class: "user", href: userAddress(user), title: user }, user);

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const count = value => (value === null || value === undefined ? "–" : whole.format(value));
export const rough = value => (value === null || value === undefined ? "–" : short.format(value));

let most = Infinity;

// No more people can share a post than there are; a score that is not calibrated yet may be far above that.
export const limitPeople = users => {
  most = users || Infinity;
};
export const withinPeople = value => (value === null ? null : Math.min(value, most));

// Reach in people; small values need decimals to be told apart.
export function people(value) {
  if (value > most) return `> ${whole.format(most)}`;
  return value >= 100 ? whole.format(value) : value.toFixed(value < 10 ? 2 : 1);
}

// The part of users with less reach, in percent; rounding must not make it all of them.
export const above = percentile => Math.min(99.9, percentile).toFixed(percentile > 99 ? 1 : 0);

export const moment = text => (text ? text.slice(0, 16).replace("T", " ") : "–");

export function span(seconds) {
  const [unit, name] = seconds < 90 ? [1, "s"] : seconds < 7200 ? [60, "min"] : seconds < 172800 ? [3600, "h"] : [86400, "days"];
  return `${Math.max(0, Math.round(seconds / unit))} ${name}`;
}

export const list = words => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);

export function signed(value) {
  const text = Math.abs(value) < 0.005 ? "0" : `${value > 0 ? "+" : "−"}${people(Math.abs(value))}`;
  return el("span", { class: text === "0" ? "none" : value > 0 ? "up" : "down" }, text);
}

export function table(caption, heads, rows) {
  const body = rows.map(cells =>
    el(
      "tr",
      {},
      cells.map((cell, column) => el("td", { class: column ? "" : "words" }, cell instanceof Node ? cell : String(cell))),
    ),
  );
  return el(
    "table",
    {},
    caption ? el("caption", {}, caption) : null,
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        heads.map((head, column) => el("th", { scope: "col", class: column ? "" : "left" }, head)),
      ),
    ),
    el("tbody", {}, body),
  );
}

// Rows as CSV; a cell that a spreadsheet would run as a formula gets an apostrophe.
export function csv(rows) {
  const cell = value => {
    let text = String(value ?? "");
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map(row => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

export function download(name, text, type) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
