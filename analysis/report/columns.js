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
  const made = [
    { key: "label", name: "method", text: true, value: (i) => s.label[i], cell: label },
    many
      ? { key: "model", name: "model", text: true, value: (i) => s.model[i], cell: (i) => s.model[i] }
      : null,
    {
      key: "budget",
      name: "budget",
      hint: "share of the bytes to remove, as asked",
      value: (i) => real(s.budget[i]),
      cell: (i) => budget(s.budget[i]),
    },
    { key: "state", name: "state", text: true, value: stateOf, cell: state },
    score,
    {
      key: "achieved",
      name: "removed",
      hint: "share of the bytes in scope that is gone, as measured",
      value: (i) => real(s.achieved[i]),
      cell: (i) => percent(s.achieved[i]),
    },
    {
      key: "file",
      name: "on disk",
      hint: "the whole artifact",
      value: (i) => real(s.file[i]),
      cell: (i) => bytes(s.file[i]),
    },
    {
      key: "bits",
      name: "bits/weight",
      hint: "of the whole model",
      value: (i) => real(s.bits[i]),
      cell: (i) => number(s.bits[i], 2),
    },
    {
      key: "tps",
      name: "tokens/s",
      hint: "decoding, measured on the packed model",
      value: (i) => real(s.tps[i]),
      cell: (i) => number(s.tps[i], 1),
    },
    {
      key: "compress",
      name: "compress",
      hint: "seconds, search included",
      value: (i) => real(s.compress[i]),
      cell: (i) => seconds(s.compress[i]),
    },
    {
      key: "evaluate",
      name: "evaluate",
      hint: "seconds over all tasks",
      value: (i) => real(s.evaluate[i]),
      cell: (i) => seconds(s.evaluate[i]),
    },
    {
      key: "seeds",
      name: "seeds",
      hint: "calibration draws",
      value: (i) => s.seeds[i],
      cell: (i) => String(s.seeds[i]),
    },
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
