"use strict";
// Where a cell stands on the axes, which cells nothing beats, and what hovering says.
const F = { x: "file", ready: false, size: { autosize: true } };
const CAP = 30; // a score beyond this multiple of dense is drawn at the edge, as in the figures
const XS = [
  ["file", "bytes on disk"],
  ["nominal", "nominal share kept"],
  ["bits", "bits per weight"],
  ["tps", "tokens per second, measured"],
];
const yOptions = () => [
  ["share", "tasks that match dense (share)"],
  ...R.data.tasks.map((t, i) => [String(i), taskName(t)]),
];
const safe = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function xOf(i) {
  const s = S();
  if (F.x === "file")
    return (
      (there(s.file[i]) ? real(s.file[i]) : s.state[i] === "dense" ? real(s.dense_file[i]) : NaN) /
      R.unit.size
    );
  if (F.x === "nominal") return s.state[i] === "dense" ? 100 : 100 * (1 - real(s.nominal[i]));
  return real(s[F.x][i]);
}
const xName = () =>
  F.x === "file"
    ? `on disk (${R.unit.name})`
    : F.x === "nominal"
      ? "weights kept (nominal, %)"
      : F.x === "bits"
        ? "bits per weight (whole model)"
        : "tokens per second (decoding)";
function yOf(i) {
  if (R.y === "share") return { v: share(i), state: stateOf(i) };
  const found = scoreOf(i, Number(R.y));
  return found ? { ...found, v: real(found.v) } : { v: NaN };
}
function hover(i, y) {
  const s = S(),
    lines = [`<b>${safe(nameOf(i))}</b>`, `${bytes(s.file[i])} on disk, ${number(s.bits[i], 2)} bits/weight`];
  const range = there(y.lo) ? ` [${number(y.lo)}, ${number(y.hi)}]` : "";
  lines.push(
    R.y === "share"
      ? `keeps ${s.match[i]} of ${s.judged[i]} tasks`
      : `${safe(R.data.tasks[R.y].name)} ${number(y.v)}${range} ${MARKS[y.state] || ""} ${y.state}`,
  );
  if (s.achieved[i] !== null) lines.push(`asked ${budget(s.budget[i])}, removed ${percent(s.achieved[i])}`);
  if (s.seeds[i] > 1) lines.push(`${s.seeds[i]} seeds`);
  return lines.join("<br>");
}
function points() {
  const task = R.y === "share" ? { higher: true, log: false } : R.data.tasks[R.y];
  return shown()
    .map((i) => ({ i, x: xOf(i), ...yOf(i) }))
    .filter((p) => Number.isFinite(p.x) && !Number.isNaN(p.v))
    .map((p) => {
      const limit = task.log && p.dense > 0 ? CAP * p.dense : Infinity;
      return { ...p, y: Math.min(p.v, limit), beyond: p.v > limit };
    })
    .filter((p) => Number.isFinite(p.y) && (!task.log || p.y > 0));
}
// What nothing beats in both: few bytes (or many tokens per second) and a good score; of one model at a time.
function best(found, higher) {
  const good = (p) => (higher ? p.v : -p.v), // where it is, not where it is drawn
    small = (p) => (F.x === "tps" ? -p.x : p.x);
  const out = [];
  let top = -Infinity;
  for (const p of [...found].sort((a, b) => small(a) - small(b) || good(b) - good(a)))
    if (good(p) > top) {
      out.push(p);
      top = good(p);
    }
  return out;
}
function band(found, task) {
  const shapes = [];
  for (const model of R.models) {
    const own = found.find((p) => S().model[p.i] === model && (S().state[p.i] === "dense" || there(p.dense)));
    if (!own) continue;
    const dense = R.y === "share" ? 1 : S().state[own.i] === "dense" ? own.y : real(own.dense);
    const line = { type: "line", xref: "paper", x0: 0, x1: 1, layer: "below" };
    if (R.y !== "share" && task.judged)
      shapes.push({
        type: "rect",
        xref: "paper",
        x0: 0,
        x1: 1,
        y0: dense,
        y1: dense * (task.higher ? 0.95 : 1.05),
        fillcolor: css("--band"),
        line: { width: 0 },
        layer: "below",
      });
    if (dense > 0) shapes.push({ ...line, y0: dense, y1: dense, line: { color: css("--soft"), width: 1 } });
    if (there(task.chance) && task.chance > 0)
      shapes.push({
        ...line,
        y0: task.chance,
        y1: task.chance,
        line: { color: css("--soft"), width: 1, dash: "dot" },
      });
  }
  return shapes;
}
