"use strict";
// The plan of a cell as a heat map.
// Cividis, which is even in lightness and the same to colour-blind eyes, at five of its points.
const CIVIDIS = [
  [0, 34, 78],
  [67, 78, 108],
  [124, 123, 120],
  [187, 173, 108],
  [254, 232, 56],
];
const WRITTEN = 12; // blocks, up to which every field has its number
function paint(share) {
  const at = Math.max(0, Math.min(1, share)) * 4,
    k = Math.min(3, Math.floor(at)),
    mix = at - k;
  return `rgb(${CIVIDIS[k].map((low, c) => Math.round(low + mix * (CIVIDIS[k + 1][c] - low))).join(",")})`;
}
function planOf(i) {
  const at = R.data.plans.of[i];
  return at < 0 ? null : R.data.plans.plans[at];
}
function heat(plan) {
  // A colour is at least 20 points of the scale away from the other end: small differences look small.
  const all = plan.kept.flat().filter((v) => v !== null),
    top = Math.max(...all),
    low = Math.max(0, Math.min(top - 200, ...all));
  const shadeOf = (v) => (v - low) / (top - low || 1),
    wide = plan.blocks.length > WRITTEN;
  const rows = plan.roles.map((role, r) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, role),
      plan.kept[r].map((v, b) => {
        const field = el(
          "td",
          {
            title:
              v === null
                ? "no such layer"
                : `${role}, block ${plan.blocks[b]}: ${(v / 10).toFixed(1)} % kept`,
          },
          v === null || wide ? "" : (v / 10).toFixed(0),
        );
        if (v !== null) {
          field.style.background = paint(shadeOf(v));
          field.style.color = shadeOf(v) > 0.55 ? "#000" : "#fff";
        }
        return field;
      }),
    ),
  );
  const step = wide ? 4 : 1;
  const head = el(
    "tr",
    {},
    el("th", {}, "block"),
    plan.blocks.map((b, k) => el("th", { scope: "col" }, k % step ? "" : String(b))),
  );
  const scale = el(
    "p",
    { class: "legend scale" },
    `${(low / 10).toFixed(0)} %`,
    el("span", { class: "ramp", "aria-hidden": "true" }),
    `${(top / 10).toFixed(0)} % of the dense weight kept`,
  );
  return [
    scroller(
      "Plan",
      el(
        "table",
        { class: wide ? "heat fine" : "heat" },
        el("caption", { class: "unseen" }, "Per cent of each layer that the plan keeps"),
        el("thead", {}, head),
        el("tbody", {}, rows),
      ),
    ),
    scale,
  ];
}
