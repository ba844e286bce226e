"use strict";
// A card per method, the cells without scores, and where all of it came from.
function linked(text) {
  return text
    .split(/(arXiv:\d{4}\.\d{4,5})/)
    .map((part) =>
      part.startsWith("arXiv:")
        ? el("a", { href: `https://arxiv.org/abs/${part.slice(6)}`, rel: "noreferrer" }, part)
        : part,
    );
}
function card(c) {
  const told = [
    ["contract", c.contract],
    ["needs", (c.needs || []).join(", ") || (c.contract ? "no data" : "")],
    ["covers", (c.covers || []).join(", ")],
  ].filter(([, v]) => v);
  const knobs = (c.knobs || []).map(([name, value, meaning]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("code", {}, name)),
      el("td", {}, el("code", {}, value)),
      el("td", { class: "said" }, meaning),
    ),
  );
  return el(
    "details",
    { class: "card" },
    el(
      "summary",
      {},
      glyph(c.name),
      el("b", {}, c.name),
      " ",
      el("span", { class: "soft" }, c.paper ? c.paper.split(": ")[0] : "not described in conf/method/"),
    ),
    c.paper ? el("p", {}, linked(c.paper)) : "",
    c.rule ? el("p", {}, c.rule) : "",
    el(
      "dl",
      { class: "facts" },
      told.map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))),
    ),
    c.published ? el("p", { class: "legend" }, "Published: ", linked(c.published)) : "",
    knobs.length ? sheet("Knobs", ["knob", "default", "meaning"], knobs) : "",
  );
}
function startGone() {
  const lost = Array.from({ length: R.count }, (_, i) => i).filter((i) => isGone(i) || S().reason[i]);
  if (!lost.length) return byId("gone").append(el("p", { class: "note" }, "Every cell has all its scores."));
  const row = (i) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, opener(i)),
      el("td", {}, state(i)),
      el("td", { class: "said long" }, S().reason[i]),
    );
  const rest = lost.slice(100);
  const table = sheet(
    "Cells without scores",
    ["cell", "state", "reason"],
    lost.slice(0, 100).map(row),
  );
  byId("gone").append(table);
  if (rest.length)
    byId("gone").append(
      el(
        "button",
        {
          type: "button",
          onclick: (event) => {
            table.querySelector("tbody").append(...rest.map(row));
            event.target.remove();
          },
        },
        `Show ${rest.length} more`,
      ),
    );
}
function startProvenance() {
  const d = R.data,
    made = d.provenance.made,
    count = made.map((_, k) => d.provenance.of.filter((of) => of === k).length);
  const blocks = made.slice(0, 20).map((m, k) =>
    el(
      "tr",
      {},
      el("td", { class: "num" }, String(count[k])),
      el("td", {}, el("code", {}, String(m.git || "–").slice(0, 12)), m.dirty ? " with changes" : ""),
      el(
        "td",
        {},
        [m.processor || m.machine, m.gpu, m.threads && `${m.threads} threads`].filter(Boolean).join(", "),
      ),
      el(
        "td",
        { class: "said" },
        Object.entries(m.versions || {})
          .map(([n, v]) => `${n} ${v}`)
          .join(", "),
      ),
    ),
  );
  byId("provenance").append(
    el(
      "p",
      { class: "legend" },
      "Every cell above tells the command that makes it again. ",
      "Same machine, versions and thread count give the same numbers.",
      d.older ? ` ${d.older} older cells of the same settings are not shown.` : "",
    ),
    sheet("How cells were made", ["cells", "commit", "machine", "versions"], blocks, [0]),
    ...(d.notes.length
      ? [
          el(
            "details",
            {},
            el("summary", {}, "Flagged items: the most that any one cell has"),
            el(
              "ul",
              { class: "legend" },
              d.notes.map((note) => el("li", {}, note)),
            ),
          ),
        ]
      : []),
    el(
      "details",
      {},
      el("summary", {}, "Protocol of each task"),
      el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "Protocols" },
        el(
          "table",
          {},
          el(
            "tbody",
            {},
            d.protocols.map(([task, id]) =>
              el("tr", {}, el("th", { scope: "row" }, task), el("td", {}, el("code", {}, id))),
            ),
          ),
        ),
      ),
    ),
  );
}
function startCards() {
  byId("methods").append(
    el(
      "p",
      { class: "legend" },
      "In words, as in the source; published numbers are those of the papers, on their models.",
    ),
    el("div", { id: "cards" }, R.data.methods.map(card)),
  );
  startGone();
  startProvenance();
}
