"use strict";
// Where the bytes of a cell's file went: a row per role, its bar in the colours of what is stored.
const REST = "embeddings, norms, head, what is left dense";
function spentOf(i) {
  const at = R.data.spent.of[i];
  return at < 0 ? null : R.data.spent.found[at];
}
function bytesRows(i, spent) {
  const s = S(),
    [file, scope, model] = [s.file[i], s.scope[i], s.model_bytes[i]].map(real),
    rows = [];
  if (spent) spent.roles.forEach((role, r) => rows.push([role, spent.bytes[r], true]));
  else if (scope > 0) rows.push(["layers in scope", [scope], false]);
  if (model > scope) rows.push([REST, [model - scope], false]);
  if (file > model) rows.push(["manifest, headers", [file - model], false]);
  else if (Number.isNaN(model) && file > scope) rows.push(["the rest of the file", [file - scope], false]);
  return rows;
}
function ofKind(piece, k) {
  piece.style.setProperty("--kind", `var(--kind-${k % 8})`);
  return piece;
}
function bytesKinds(spent) {
  const sum = (k) => spent.bytes.reduce((all, row) => all + row[k], 0),
    kinds = R.data.spent.kinds.map((kind, k) => [kind, k, sum(k)]),
    total = kinds.reduce((all, [, , own]) => all + own, 0);
  return el(
    "p",
    { class: "legend kinds" },
    "Layers in scope: ",
    kinds
      .filter(([, , own]) => own)
      .map(([kind, k, own]) => {
        const dot = ofKind(el("span", { class: "dot", "aria-hidden": "true" }), k);
        return el("span", {}, dot, `${kind} ${bytes(own)}, ${percent(own / total)}`);
      }),
  );
}
function bytesBar(i) {
  const spent = spentOf(i),
    rows = bytesRows(i, spent).map((row) => [...row, row[1].reduce((a, b) => a + b, 0)]),
    total = rows.reduce((all, [, , , own]) => all + own, 0),
    dense = real(S().dense_file[i]);
  if (!total) return [el("p", { class: "note" }, "No sizes were recorded.")];
  const max = Math.max(...rows.map(([, , , own]) => own));
  const drawn = rows.map(([name, parts, told, own]) => {
    const bar = el("span", { class: "stack", "aria-hidden": "true" });
    parts.forEach((v, k) => {
      const piece = el("span", {});
      piece.style.width = `${(100 * v) / max}%`;
      bar.append(told ? ofKind(piece, k) : piece);
    });
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, name),
      el("td", { class: "num" }, bytes(own)),
      el("td", { class: "num" }, percent(own / total)),
      el("td", {}, bar),
    );
  });
  const file = S().file[i];
  const whole =
    there(dense) && dense > 0 ? `${percent(real(file) / dense)} of the dense one's ${bytes(dense)}` : "";
  return [
    scroller("Bytes", el("table", { class: "narrow spent" }, el("tbody", {}, drawn))),
    spent ? bytesKinds(spent) : "",
    el("p", { class: "legend" }, whole ? `The file has ${bytes(file)}, ${whole}.` : ""),
  ];
}
