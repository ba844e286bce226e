"use strict";
// "What fits in N GB and keeps these tasks": settings of one model, best first, as size and ticks change.
const Q = { model: "", size: NaN, tasks: new Set() };

const judgedTasks = () => R.data.tasks.map((t, k) => [t, k]).filter(([t]) => t.judged);
const denseOf = (model) => S().state.findIndex((s, i) => s === "dense" && S().model[i] === model);
function denseSize(model) {
  const at = denseOf(model),
    known = S()
      .dense_file.filter((v, i) => S().model[i] === model && there(v))
      .map(real);
  return at >= 0 && there(S().file[at]) ? real(S().file[at]) : Math.max(0, ...known);
}
const small = () =>
  Array.from({ length: R.count }, (_, i) => i).filter(
    (i) => S().model[i] === Q.model && !S().state[i] && there(S().file[i]),
  );
const sizeOf = (i) => `${bytes(S().file[i])}, ${percent(real(S().file[i]) / denseSize(Q.model))}`;
const keptOf = (i) => [...Q.tasks].filter((t) => (scoreOf(i, t) || {}).state === "match").length;

function answer() {
  const fits = small()
    .filter((i) => real(S().file[i]) <= Math.round(Q.size * R.unit.size))
    .map((i) => ({ i, kept: keptOf(i) }));
  fits.sort((a, b) => b.kept - a.kept || real(S().file[a.i]) - real(S().file[b.i]));
  const wanted = Q.tasks.size,
    all = fits.filter((f) => f.kept === wanted),
    limit = `${number(Q.size, 2)} ${R.unit.name}`;
  const out = byId("answer");
  if (!wanted) return out.replaceChildren(el("p", {}, "Tick a task to keep."));
  if (!fits.length) return out.replaceChildren(el("p", {}, `Nothing measured fits in ${limit}.`));
  const tasks = wanted === 1 ? "the ticked task" : `all ${wanted} ticked tasks`;
  const line = all.length
    ? el(
        "p",
        { class: "lead" },
        `${all.length} of ${fits.length} that fit in ${limit} keep ${tasks}. The smallest is `,
        opener(all[0].i),
        ` with ${sizeOf(all[0].i)} of the dense file.`,
      )
    : el(
        "p",
        { class: "lead" },
        `None of the ${fits.length} that fit in ${limit} is shown to keep ${tasks}. Closest is `,
        opener(fits[0].i),
        `, which keeps ${fits[0].kept} of ${wanted}.`,
      );
  const head = [
    "best that fit",
    "on disk",
    "of dense",
    "keeps",
    ...[...Q.tasks].map((t) => R.data.tasks[t].name),
  ];
  const rows = fits.slice(0, 8).map(({ i, kept }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, opener(i)),
      ...[bytes(S().file[i]), percent(real(S().file[i]) / denseSize(Q.model)), `${kept} of ${wanted}`].map(
        (text) => el("td", { class: "num" }, text),
      ),
      ...[...Q.tasks].map((t) => {
        const found = scoreOf(i, t) || { state: "" };
        return el(
          "td",
          { class: `num state ${found.state}`, title: TOLD[found.state] || "" },
          `${number(found.v)} ${MARKS[found.state] || ""}`,
        );
      }),
    ),
  );
  out.replaceChildren(line, sheet("What fits", head, rows, head.map((_, k) => k).slice(1)));
  say(line.textContent);
}
const opener = (i) =>
  el(
    "button",
    { type: "button", class: "link", onclick: () => choose(i, true) },
    glyph(S().method[i]),
    el("span", {}, nameOf(i)),
  );

function perTask() {
  const lines = judgedTasks().map(([task, t]) => {
    const kept = small()
      .filter((i) => (scoreOf(i, t) || {}).state === "match")
      .sort((a, b) => real(S().file[a]) - real(S().file[b]));
    const size = kept.length ? real(S().file[kept[0]]) : NaN,
      dense = denseSize(Q.model);
    const bar = el("span", { class: "bar wide", "aria-hidden": "true" });
    bar.style.setProperty("--share", Number.isNaN(size) ? 1 : size / dense);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, taskName(task)),
      el("td", {}, kept.length ? opener(kept[0]) : "none is shown to"),
      el("td", { class: "num" }, bytes(size)),
      el("td", {}, kept.length ? bar : "", kept.length ? ` ${percent(size / dense)}` : ""),
    );
  });
  const head = ["task", "smallest that still matches dense", "on disk", "of the dense file"];
  byId("pertask").replaceChildren(sheet("Smallest per task", head, lines, [2]));
}
function roundUp(value) {
  const near = Number(value.toPrecision(2));
  return near < value ? Number((near + 10 ** (Math.floor(Math.log10(value)) - 1)).toPrecision(2)) : near;
}
function askModel(model) {
  Q.model = model;
  const size = (i) => real(S().file[i]),
    dense = denseSize(model),
    keep = small().filter((i) => keptOf(i) === Q.tasks.size);
  // The smallest that keeps all; where there is none, half of dense.
  const start = keep.length
    ? Math.min(...keep.map(size))
    : 0.5 * dense || Math.max(0, ...small().map(size));
  Q.size = roundUp(start / R.unit.size);
  byId("size").value = Q.size;
  byId("size").step = Number((dense / R.unit.size / 40).toPrecision(1)) || "any";
}
function startSummary() {
  if (!judgedTasks().length || !R.has.file) {
    byId("summary").append(
      el(
        "p",
        { class: "note" },
        "No cell of this study has both a size and a task that is judged against dense.",
      ),
    );
    return;
  }
  // A task that no cell is shown to keep (too few items, say) would leave every answer empty.
  const kept = judgedTasks().filter(([, t]) =>
    R.data.scores.t.some((own, k) => own === t && R.data.scores.state[k] === "match"),
  );
  (kept.length ? kept : judgedTasks()).forEach(([, t]) => Q.tasks.add(t));
  const size = el("input", {
    type: "number",
    id: "size",
    min: "0",
    step: "any",
    oninput: (event) => {
      Q.size = Number(event.target.value);
      answer();
    },
  });
  const ticks = judgedTasks().map(([task, t]) =>
    el(
      "label",
      { class: "tick" },
      el("input", {
        type: "checkbox",
        checked: Q.tasks.has(t),
        onchange: (event) => {
          event.target.checked ? Q.tasks.add(t) : Q.tasks.delete(t);
          answer();
        },
      }),
      task.name,
    ),
  );
  byId("summary").append(
    el(
      "div",
      { class: "controls" },
      ...(R.models.length > 1
        ? [
            picker(
              "asked-model",
              "Model",
              R.models.map((m) => [m, m]),
              R.models[0],
              (m) => {
                askModel(m);
                answer();
                perTask();
              },
            ),
          ]
        : []),
      el("label", { class: "field" }, el("span", {}, `Fits in (${R.unit.name})`), size),
      el("fieldset", { class: "ticks" }, el("legend", {}, "and keeps"), ticks),
    ),
    el("div", { id: "answer" }),
    el("h3", {}, "How small each task can get"),
    el("div", { id: "pertask" }),
  );
  askModel(R.models[0]);
  answer();
  perTask();
}
