"use strict";
// What the table's columns show of a cell.
function columns() {
  const s = S(),
    many = R.models.length > 1,
    t = R.y === "share" ? null : Number(R.y);
  const score =
    t === null
      ? {
          key: "share",
          name: "keeps",
          hint: "tasks that match dense, of those judged",
          value: share,
          cell: keeps,
        }
      : {
          key: "score",
          name: R.data.tasks[t].name,
          hint: `${taskName(R.data.tasks[t])}; 95 % interval`,
          value: (i) => real((scoreOf(i, t) || {}).v),
          cell: (i) => scoreCell(i, t),
        };
  // A number of the cell, shown in its unit.
  const fact = (key, name, hint, show) => ({
    key,
    name,
    hint,
    value: (i) => real(s[key][i]),
    cell: (i) => show(s[key][i]),
  });
  const made = [
    { key: "label", name: "method", text: true, value: (i) => s.label[i], cell: label },
    many
      ? { key: "model", name: "model", text: true, value: (i) => s.model[i], cell: (i) => s.model[i] }
      : null,
    fact("budget", "budget", "share of the bytes to remove, as asked", budget),
    { key: "state", name: "state", text: true, value: stateOf, cell: state },
    score,
    fact("achieved", "removed", "share of the bytes in scope that is gone, as measured", percent),
    fact("file", "on disk", "the whole artifact", bytes),
    fact("bits", "bits/weight", "of the whole model", (v) => number(v, 2)),
    fact("tps", "tokens/s", "decoding, measured on the packed model", (v) => number(v, 1)),
    fact("compress", "compress", "seconds, search included", seconds),
    fact("evaluate", "evaluate", "seconds over all tasks", seconds),
    fact("seeds", "seeds", "calibration draws", String),
  ];
  return made.filter((c) => c && (c.key !== "tps" || R.has.tps));
}
const label = (i) =>
  el(
    "button",
    { type: "button", class: "link", onclick: () => choose(i, true), title: "Open this cell" },
    glyph(S().method[i]),
    el("span", {}, S().label[i]),
  );
function state(i) {
  const text = stateOf(i),
    mark = MARKS[text] || { "keeps all": "✓", "keeps none": "✗", "keeps some": "◐" }[text] || "";
  return el(
    "span",
    { class: `state ${text.replace(" ", "-")}`, title: S().reason[i] || TOLD[text] },
    mark ? `${mark} ${text}` : text,
  );
}
function keeps(i) {
  if (S().state[i] === "dense" || !S().judged[i]) return "–";
  const bar = el("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", share(i));
  return el("span", { class: "keeps" }, `${S().match[i]} of ${S().judged[i]}`, bar);
}
function scoreCell(i, t) {
  const found = scoreOf(i, t);
  if (!found) return "–";
  const range = there(found.lo) && there(found.hi) ? ` [${number(found.lo)}, ${number(found.hi)}]` : "";
  const several = found.seeds > 1 && there(found.sd);
  const spread = several ? ` ± ${number(found.sd)} over ${found.seeds} seeds` : "";
  return el(
    "span",
    {},
    el("b", {}, number(found.v)),
    el("small", {}, range + spread),
    found.state === "dense" ? "" : ` ${MARKS[found.state] || ""}`,
  );
}
