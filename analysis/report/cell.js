"use strict";
// One cell: its scores, what it got wrong, how to get it again.
function flipsOf(i) {
  const flips = R.data.flips && R.data.flips.cells[i];
  if (!R.data.flips)
    return [
      el(
        "p",
        { class: "note" },
        "Items are in the store only; these rows came from elsewhere or were asked for without.",
      ),
    ];
  if (!flips || !flips.lost) return [el("p", { class: "note" }, "No item that dense has right is lost.")];
  const text = (k) => R.data.flips.texts[k] || "–",
    asked = flips.worst.some(([at]) => R.data.flips.texts[R.data.flips.items[at][2]]);
  const head = [
    "task",
    "item",
    ...(asked ? ["question"] : []),
    "right answer",
    "dense",
    "this cell",
    "fall",
    "lost by",
  ];
  const rows = flips.worst.map(([at, fall, said, by]) => {
    const [t, item, question, target, dense] = R.data.flips.items[at];
    return el(
      "tr",
      {},
      [
        R.data.tasks[t].name,
        item,
        ...(asked ? [text(question)] : []),
        text(target),
        text(dense),
        text(said),
        number(fall, 2),
        by === 1 ? "1 cell" : `${by} cells`,
      ].map((v, k, all) => el("td", { class: k >= all.length - 2 ? "num" : k < 2 ? "" : "said" }, v)),
    );
  });
  return [
    sheet("Flips", head, rows, [head.length - 2, head.length - 1]),
    el(
      "p",
      { class: "legend" },
      `${flips.worst.length} of ${flips.lost} scores that fell. `,
      "Largest falls first; of equal ones those that fewest other cells lose.",
    ),
  ];
}
function scoresOf(i) {
  const rows = R.data.tasks
    .map((task, t) => [task, scoreOf(i, t)])
    .filter(([, found]) => found)
    .map(([task, f]) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, taskName(task)),
        ...[
          number(f.v),
          there(f.lo) ? `${number(f.lo)} to ${number(f.hi)}` : "–",
          number(f.dense),
          there(f.dlo) ? `${number(f.dlo)} to ${number(f.dhi)}` : "–",
          there(f.n) ? String(real(f.n)) : "–",
        ].map((v) => el("td", { class: "num" }, v)),
        el(
          "td",
          { class: `state ${f.state}`, title: TOLD[f.state] || "" },
          `${MARKS[f.state] || ""} ${f.state}`,
        ),
      ),
    );
  const head = ["task", "score", "95 % interval", "dense", "minus dense, 95 %", "items", "state"];
  return rows.length
    ? sheet("Scores", head, rows, [1, 2, 3, 4, 5])
    : el("p", { class: "note" }, "No scores.");
}
function copier(text) {
  const copy = async (event) => {
    try {
      await navigator.clipboard.writeText(text);
      event.target.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(event.target.previousSibling);
    }
  };
  return el(
    "div",
    { class: "command" },
    el("code", {}, text),
    el("button", { type: "button", onclick: copy }, "Copy"),
  );
}
function againOf(i) {
  const p = R.data.provenance,
    made = p.made[p.of[i]] || {},
    versions = made.versions || {};
  const facts = Object.entries(made)
    .filter(([k]) => k !== "versions")
    .map(([k, v]) => [k.replaceAll("_", " "), String(v)]);
  facts.push(["cell", S().cell[i]], ...Object.entries(versions).map(([k, v]) => [k, String(v)]));
  return [
    p.command[i]
      ? copier(p.command[i])
      : el(
          "p",
          { class: "note" },
          "The rows are from before cells kept their config, so no command can be told.",
        ),
    el(
      "p",
      { class: "legend" },
      "The protocol ids must be the same again; where old rows tell no limit=, they say whether it was.",
    ),
    el(
      "details",
      {},
      el("summary", {}, "How it was made"),
      el(
        "dl",
        { class: "facts" },
        facts.map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))),
      ),
    ),
  ];
}
function drawCell() {
  const i = R.chosen,
    s = S(),
    plan = planOf(i),
    out = byId("onecell");
  const facts = [
    ["asked", budget(s.budget[i])],
    ["removed, bytes", percent(s.achieved[i])],
    ["removed, nominal", percent(s.nominal[i])],
    ["on disk", bytes(s.file[i])],
    ["bits/weight in scope", number(s.bits_scope[i], 2)],
    ["of the model", number(s.bits[i], 2)],
    ["compress", seconds(s.compress[i])],
    ["evaluate", seconds(s.evaluate[i])],
    ["peak memory", bytes(s.peak[i])],
    ["seeds", String(s.seeds[i])],
    ["setting", s.setting[i]],
    ["executed by", s.executed_by[i] + (s.simulated[i] ? " (simulated)" : "")],
  ];
  out.replaceChildren(
    el("h3", { class: "name" }, glyph(s.method[i]), nameOf(i)),
    isGone(i) || s.reason[i] ? el("p", { class: "note" }, s.reason[i]) : "",
    el(
      "dl",
      { class: "facts" },
      facts
        .filter(([, v]) => v && v !== "–")
        .map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))),
    ),
    scoresOf(i),
    el("h3", {}, "Which layer keeps how much"),
    ...(plan ? heat(plan) : [el("p", { class: "note" }, "No plan was recorded.")]),
    el("h3", {}, "Where the bytes went"),
    ...bytesBar(i),
    el("h3", {}, "What it gets wrong that dense gets right"),
    ...flipsOf(i),
    el("h3", {}, "Get it again"),
    ...againOf(i),
  );
}
function startCell() {
  byId("cell").append(
    el(
      "div",
      { class: "controls" },
      el("button", { type: "button", onclick: () => step(-1) }, "◂ Cell before"),
      el("button", { type: "button", onclick: () => step(1) }, "Cell after ▸"),
    ),
    el("div", { id: "onecell" }),
  );
  const first = shown()
    .filter((i) => !isGone(i) && S().state[i] !== "dense")
    .sort((a, b) => (share(b) || 0) - (share(a) || 0) || real(S().file[a]) - real(S().file[b]))[0];
  R.chosen = first === undefined ? 0 : first;
  drawCell();
  listen((what) => {
    if (what === "cell") drawCell();
  });
}
function step(by) {
  const rows = ordered(),
    at = rows.indexOf(R.chosen);
  if (rows.length) choose(rows[(at + by + rows.length) % rows.length], false);
}
