"use strict";
// Reads the data, draws every part, and plotly's last: the table is there before.
const SECTIONS = [
  ["summary", "Summary"],
  ["frontier", "Frontier"],
  ["cells", "Cells"],
  ["cell", "One cell"],
  ["methods", "Methods"],
  ["gone", "Missing"],
  ["provenance", "Provenance"],
];

function prepare(data) {
  R.data = data;
  const s = data.settings;
  R.count = s.label.length;
  R.models = [...new Set(s.model)];
  R.methods = [...new Set(s.method.filter((m, i) => s.state[i] !== "dense"))];
  R.looks = Object.fromEntries(
    [...new Set([...s.method, "dense"])]
      .filter((m) => !R.methods.includes(m))
      .map((m) => [m, { colour: "#000000", symbol: "circle" }]),
  );
  R.methods.forEach((m, k) => {
    R.looks[m] = { colour: data.colours[k % data.colours.length], symbol: SYMBOLS[k % SYMBOLS.length] };
  });
  R.scores = new Map();
  const f = data.scores,
    wide = data.tasks.length;
  f.s.forEach((i, k) =>
    R.scores.set(i * wide + f.t[k], {
      v: f.v[k],
      lo: f.lo[k],
      hi: f.hi[k],
      dlo: f.dlo[k],
      dhi: f.dhi[k],
      n: f.n[k],
      dense: f.dense[k],
      sd: f.sd[k],
      seeds: f.seeds[k],
      state: f.state[k],
    }),
  );
  R.haystack = s.label.map((l, i) =>
    [l, s.model[i], s.setting[i], s.executed_by[i], s.reason[i], s.cell[i], s.state[i]]
      .join(" ")
      .toLowerCase(),
  );
  R.has = Object.fromEntries(["file", "nominal", "bits", "tps"].map((k) => [k, s[k].some(there)]));
  const top = Math.max(0, ...s.dense_file.concat(s.file).map(real).filter(Number.isFinite));
  R.unit = [
    { size: 1e9, name: "GB" },
    { size: 1e6, name: "MB" },
    { size: 1e3, name: "kB" },
  ].find((u) => top >= u.size) || { size: 1, name: "bytes" };
  if (!s.judged.some(Boolean) && data.tasks.length) R.y = "0";
}
function theme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "☀ Light" : "☾ Dark";
  for (const path of document.querySelectorAll("path[data-colour]"))
    path.setAttribute("fill", colour(path.dataset.colour));
}
// Paper is light; the plot gets the size that print has in media.css, which fits the narrowest page.
function startPrint() {
  let before;
  const repaint = (name, size) => {
    F.size = size;
    theme(name);
    drawFrontier();
  };
  addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme;
    repaint("light", { width: 640, height: 360 });
  });
  addEventListener("afterprint", () => repaint(before, { autosize: true }));
}
function heading() {
  const d = R.data,
    cells = d.settings.cell.length,
    lost = d.settings.state.filter((x) => x && x !== "dense").length;
  byId("title").textContent = d.study;
  const when = d.written
    ? `, written ${new Date(1000 * d.written).toISOString().slice(0, 16).replace("T", " ")} UTC`
    : "";
  byId("subtitle").textContent =
    [
      R.models.join(", "),
      `${cells} cells, ${lost} without scores`,
      `${R.methods.length} methods`,
      `${d.tasks.length} scores each`,
    ].join(" · ") + when;
  byId("nav").replaceChildren(
    ...SECTIONS.filter(([id]) => !byId(id).hidden).map(([id, name]) => el("a", { href: `#${id}` }, name)),
  );
}
async function start() {
  const wanted = matchMedia("(prefers-color-scheme: dark)"),
    repaint = (dark) => {
      theme(dark ? "dark" : "light");
      changed("theme");
    };
  theme(wanted.matches ? "dark" : "light");
  wanted.addEventListener("change", () => repaint(wanted.matches));
  byId("theme").addEventListener("click", () => repaint(!isDark()));
  if (!("DecompressionStream" in window)) {
    byId("loading").textContent =
      "This browser cannot unpack the data inside this file; browsers since May 2023 can.";
    return;
  }
  prepare(JSON.parse(await inflate("data-gz")));
  for (const [id] of SECTIONS) byId(id).hidden = false;
  byId("loading").remove();
  for (const part of [startSummary, startFrontier, startTable, startCell, startCards]) part();
  heading();
  startPrint();
  performance.mark("usable");
  requestAnimationFrame(() => setTimeout(loadPlotly));
}
start();
