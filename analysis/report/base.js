"use strict";
// What all parts of the page share: data, filter, elements, formats. Text goes in as text nodes only.
const R = {
  data: null,
  chosen: null,
  filter: { text: "", model: "", off: new Set(), state: "", label: "" },
  y: "share",
};
const listeners = [];

const MARKS = { match: "✓", fail: "✗", undecided: "?", chance: "~", measured: "·", dense: "" };
const TOLD = {
  match: "matches dense (paired test, 5 % relative margin)",
  fail: "fails",
  undecided: "undecided",
  chance: "dense itself is at chance",
  measured: "told, not judged",
  dense: "the dense parent",
};
const SYMBOLS = [
  "circle",
  "square",
  "triangle-up",
  "diamond",
  "triangle-down",
  "cross",
  "x",
  "pentagon",
  "hexagon",
  "triangle-left",
  "triangle-right",
];
const SHAPES = {
  circle: "M6 1.5a4.5 4.5 0 1 0 .01 0Z",
  square: "M2 2h8v8H2Z",
  "triangle-up": "M6 1.5 11 10H1Z",
  diamond: "M6 .8 11.2 6 6 11.2 .8 6Z",
  "triangle-down": "M6 10.5 1 2h10Z",
  cross: "M4.5 1h3v3.5H11v3H7.5V11h-3V7.5H1v-3h3.5Z",
  x: "M2.8 1 6 4.2 9.2 1 11 2.8 7.8 6 11 9.2 9.2 11 6 7.8 2.8 11 1 9.2 4.2 6 1 2.8Z",
  pentagon: "M6 1 11 4.8 9.1 10.6H2.9L1 4.8Z",
  hexagon: "M3.5 1.7h5L11 6 8.5 10.3h-5L1 6Z",
  "triangle-left": "M1.5 6 10 1v10Z",
  "triangle-right": "M10.5 6 2 1v10Z",
};

function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}
const byId = (id) => document.getElementById(id);

function glyph(method) {
  const look = R.looks[method],
    svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [k, v] of [
    ["viewBox", "0 0 12 12"],
    ["width", 12],
    ["height", 12],
    ["aria-hidden", "true"],
  ])
    svg.setAttribute(k, v);
  path.setAttribute("d", SHAPES[look.symbol]);
  path.dataset.colour = look.colour;
  path.setAttribute("fill", colour(look.colour));
  svg.append(path);
  return svg;
}

const isDark = () => document.documentElement.dataset.theme === "dark";
// Black and wine cannot be seen on a dark page; white and Okabe and Ito's yellow take their places.
const colour = (hex) =>
  isDark() ? { "#000000": "#FFFFFF", "#882255": "#F0E442", "#0072B2": "#3B9EDB" }[hex] || hex : hex;

const real = (value) =>
  value === "inf"
    ? Infinity
    : value === "-inf"
      ? -Infinity
      : value === null || value === undefined
        ? NaN
        : value;
const there = (value) => !Number.isNaN(real(value));
function number(value, digits = 3) {
  const v = real(value),
    size = Math.abs(v);
  if (Number.isNaN(v)) return "–";
  if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
  if (size >= 1e5 || (size > 0 && size < 5e-4)) return v.toExponential(1);
  return v.toFixed(size < 10 ? digits : Math.max(0, 3 - Math.floor(Math.log10(size))));
}
function bytes(value) {
  let v = real(value);
  if (Number.isNaN(v)) return "–";
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (Math.abs(v) < 999.5 || unit === "TB")
      return `${v.toFixed(unit === "B" || v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2)} ${unit}`;
    v /= 1000;
  }
}
function seconds(value) {
  const v = real(value);
  if (Number.isNaN(v)) return "–";
  if (v < 120) return `${v.toFixed(v < 9.95 ? 1 : 0)} s`;
  return v < 7200 ? `${(v / 60).toFixed(0)} min` : `${(v / 3600).toFixed(1)} h`;
}
const percent = (share) => (there(share) ? `${(100 * real(share)).toFixed(1)} %` : "–");
const budget = (value) => (there(value) ? String(Number(real(value).toPrecision(4))) : "–");

const S = () => R.data.settings;
const nameOf = (i) =>
  (S().state[i] === "dense" ? "dense" : `${S().label[i]} at ${budget(S().budget[i])}`) +
  (R.models.length > 1 ? ` (${S().model[i]})` : "");
const isGone = (i) => ["unreachable", "skipped", "failed"].includes(S().state[i]);
const scoreOf = (i, t) => R.scores.get(i * R.data.tasks.length + t);
const share = (i) => (S().state[i] === "dense" ? 1 : S().judged[i] ? S().match[i] / S().judged[i] : NaN);
const taskName = (t) => `${t.name} · ${t.metric.replaceAll("_", " ")} ${t.higher ? "↑" : "↓"}`;

function shown() {
  const f = R.filter,
    words = f.text.toLowerCase().split(/\s+/).filter(Boolean),
    found = [];
  for (let i = 0; i < R.count; i++) {
    if (
      (f.model && S().model[i] !== f.model) ||
      f.off.has(S().method[i]) ||
      (f.label && S().label[i] !== f.label)
    )
      continue;
    if (f.state && stateOf(i) !== f.state) continue;
    if (words.every((word) => R.haystack[i].includes(word))) found.push(i);
  }
  return found;
}
function stateOf(i) {
  if (S().state[i]) return S().state[i];
  const t = R.y === "share" ? -1 : Number(R.y);
  if (t >= 0) return (scoreOf(i, t) || { state: "no score" }).state;
  if (!S().judged[i]) return "not judged";
  return S().match[i] === S().judged[i] ? "keeps all" : S().match[i] ? "keeps some" : "keeps none";
}

// Whoever draws something that hangs on filter, axis or chosen cell listens; `what` says what has changed.
const listen = (call) => listeners.push(call);
const changed = (what) => listeners.forEach((call) => call(what));
function choose(i, jump) {
  R.chosen = i;
  changed("cell");
  if (jump) {
    byId("cell").scrollIntoView();
    byId("cell").focus({ preventScroll: true });
  }
}
const say = (text) => {
  byId("live").textContent = text;
};

async function inflate(id) {
  const text = atob(byId(id).textContent),
    raw = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) raw[k] = text.charCodeAt(k); // ten times as fast as Uint8Array.from
  return new Response(new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
function sheet(name, head, rows, right = []) {
  const cells = head.map((text, k) =>
    el("th", { scope: "col", class: right.includes(k) ? "num" : "" }, text),
  );
  const body = el("tbody", {}, rows);
  const table = el(
    "table",
    {},
    el("caption", { class: "unseen" }, name),
    el("thead", {}, el("tr", {}, cells)),
    body,
  );
  return scroller(name, table);
}
const scroller = (name, ...inside) =>
  el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, inside);
function fill(select, options, value) {
  select.replaceChildren(...options.map(([key, name]) => el("option", { value: key }, name)));
  select.value = value;
}
function picker(id, label, options, value, change) {
  const select = el("select", { id, onchange: (event) => change(event.target.value) });
  fill(select, options, value);
  return el("label", { class: "field" }, el("span", {}, label), select);
}
