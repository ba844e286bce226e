"use strict";
// The table of cells: sorts, filters, pages.
const PAGE = 50;
const T = { sort: "", down: false, page: 0, all: false };
function ordered() {
  const rows = shown(),
    column = columns().find((c) => c.key === T.sort);
  if (!column) return rows;
  const sign = T.down ? -1 : 1,
    key = new Map(rows.map((i) => [i, column.value(i)]));
  const empty = (v) => v === "" || Number.isNaN(v);
  return rows.sort((a, b) => {
    const x = key.get(a),
      y = key.get(b);
    if (empty(x) || empty(y)) return empty(x) - empty(y) || a - b;
    return (
      (column.text ? sign * String(x).localeCompare(String(y)) : sign * (x < y ? -1 : x > y ? 1 : 0)) || a - b
    );
  });
}
function drawTable() {
  const rows = ordered(),
    pages = Math.max(1, Math.ceil(rows.length / PAGE));
  T.page = Math.min(T.page, pages - 1);
  const part = T.all ? rows : rows.slice(T.page * PAGE, (T.page + 1) * PAGE),
    made = columns();
  const head = made.map((c) => {
    const sorted = T.sort === c.key ? (T.down ? "descending" : "ascending") : "none";
    const arrow = sorted === "none" ? "" : T.down ? " ▾" : " ▴";
    return el(
      "th",
      { scope: "col", "aria-sort": sorted, class: c.text ? "" : "num" },
      el(
        "button",
        { type: "button", title: c.hint, "data-sort": c.key, onclick: () => sortBy(c.key) },
        c.name + arrow,
      ),
    );
  });
  const body = part.map((i) =>
    el(
      "tr",
      { class: i === R.chosen ? "chosen" : "" },
      made.map((c, k) =>
        el(k ? "td" : "th", { class: c.text ? "" : "num", scope: k ? null : "row" }, c.cell(i)),
      ),
    ),
  );
  byId("grid").replaceChildren(
    el("caption", { class: "unseen" }, "Cells of the study"),
    el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, body),
  );
  const from = rows.length ? T.page * PAGE + 1 : 0;
  byId("count").textContent =
    `${from}–${Math.min(rows.length, from + PAGE - 1)} of ${rows.length} cells` +
    (rows.length < R.count ? `, ${R.count} in all` : "");
  byId("back").disabled = T.page === 0;
  byId("next").disabled = T.page >= pages - 1;
}
function sortBy(key) {
  T.down = T.sort === key ? !T.down : false;
  T.sort = key;
  T.page = 0;
  drawTable();
  document.querySelector(`[data-sort="${key}"]`).focus();
  say(`sorted by ${key}, ${T.down ? "falling" : "rising"}`);
}
function turn(step) {
  T.page += step;
  drawTable();
}
function startFilters() {
  byId("filters").append(
    el(
      "label",
      { class: "field" },
      el("span", {}, "Search"),
      el("input", {
        type: "search",
        id: "search",
        placeholder: "method, knob, reason …",
        oninput: (event) => {
          R.filter.text = event.target.value;
          T.page = 0;
          changed("filter");
        },
      }),
    ),
    picker("state", "State", [], "", (v) => {
      R.filter.state = v;
      T.page = 0;
      changed("filter");
    }),
    picker("score", "Score", yOptions(), R.y, (v) => {
      R.y = v;
      changed("y");
    }),
    el("button", {
      type: "button",
      id: "only",
      class: "chip",
      onclick: () => {
        R.filter.label = "";
        byId("search").focus(); // this button goes
        changed("filter");
      },
    }),
  );
}
function drawStates() {
  const states = [...new Set(Array.from({ length: R.count }, (_, i) => stateOf(i)))];
  if (!states.includes(R.filter.state)) R.filter.state = "";
  fill(byId("state"), [["", "all"], ...states.map((s) => [s, s])], R.filter.state);
}
function drawFilters() {
  byId("search").value = R.filter.text;
  byId("state").value = R.filter.state;
  byId("score").value = R.y;
  byId("only").hidden = !R.filter.label;
  byId("only").textContent = `only ${R.filter.label} ✕`;
}
function startTable() {
  byId("cells").append(
    el("div", { class: "controls", id: "filters" }),
    scroller("Table of cells", el("table", { id: "grid" })),
    el(
      "div",
      { class: "pager" },
      el("button", { type: "button", id: "back", onclick: () => turn(-1) }, "◂ Back"),
      el("span", { id: "count" }),
      el("button", { type: "button", id: "next", onclick: () => turn(1) }, "Next ▸"),
    ),
    el(
      "p",
      { class: "legend" },
      "✓ matches dense (paired test, 5 % margin); ✗ fails; ? undecided; ~ dense is at chance; · not judged.",
      " A method's name opens its cell.",
    ),
  );
  startFilters();
  drawStates();
  drawFilters();
  drawTable();
  listen((what) => {
    if (what === "y") drawStates();
    drawFilters();
    if (what !== "theme") drawTable();
  });
  // Paper has no next page button.
  addEventListener("beforeprint", () => {
    T.all = R.count <= 1000;
    drawTable();
  });
  addEventListener("afterprint", () => {
    T.all = false;
    drawTable();
  });
}
