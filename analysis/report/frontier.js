"use strict";
// Score over size: plotly draws it; methods are switched by buttons, so that keyboards reach them.
function traces(found, task) {
  const groups = new Map(),
    made = [];
  for (const p of found) {
    const key = JSON.stringify([S().model[p.i], S().state[p.i] === "dense" ? "dense" : S().method[p.i]]);
    groups.has(key) ? groups.get(key).push(p) : groups.set(key, [p]);
  }
  const few = found.length <= 300;
  for (const [key, group] of groups) {
    const [model, method] = JSON.parse(key),
      look = R.looks[method],
      dense = method === "dense";
    const line = [];
    group.sort((a, b) =>
      S().label[a.i] < S().label[b.i] ? -1 : S().label[a.i] > S().label[b.i] ? 1 : a.x - b.x,
    );
    group.forEach((p, k) => {
      if (k && S().label[p.i] !== S().label[group[k - 1].i]) line.push(null);
      line.push(p);
    });
    const paint = dense ? css("--ink") : colour(look.colour);
    const each = (pick) => line.map((p) => (p === null ? null : pick(p)));
    made.push({
      type: "scatter",
      name: safe(method),
      mode: few && !dense ? "lines+markers" : "markers",
      x: each((p) => p.x),
      y: each((p) => p.y),
      connectgaps: false,
      text: each((p) => hover(p.i, p)),
      customdata: each((p) => p.i),
      hoverinfo: "text",
      showlegend: false,
      line: { color: paint, width: 1.2, dash: R.models.indexOf(model) ? "dot" : "solid" },
      opacity: 0.92,
      marker: {
        color: paint,
        size: dense ? 15 : few ? 9 : 6,
        symbol: each((p) => (dense ? "star" : look.symbol) + (p.beyond ? "-open" : "")),
        line: { color: css("--page"), width: few ? 1 : 0 },
      },
      error_y:
        few && R.y !== "share"
          ? {
              type: "data",
              symmetric: false,
              array: each((p) => (there(p.hi) && !p.beyond ? real(p.hi) - p.y : 0)),
              arrayminus: each((p) => (there(p.lo) && !p.beyond ? p.y - real(p.lo) : 0)),
              thickness: 0.8,
              width: 2,
              color: paint,
            }
          : { visible: false },
    });
  }
  for (const model of R.models) {
    const line = best(
      found.filter((p) => S().model[p.i] === model),
      task.higher,
    );
    if (line.length > 1)
      made.unshift({
        type: "scatter",
        mode: "lines",
        x: line.map((p) => p.x),
        y: line.map((p) => p.y),
        line: { shape: F.x === "tps" ? "vh" : "hv", color: "#E3B008", width: 7 },
        opacity: 0.45,
        hoverinfo: "skip",
        showlegend: false,
      });
  }
  return made;
}
function drawFrontier() {
  const task = R.y === "share" ? { higher: true, log: false } : R.data.tasks[R.y],
    found = points();
  drawBest(best(found, task.higher));
  if (!F.ready) return;
  const ink = css("--ink"),
    axis = { gridcolor: css("--line"), zeroline: false, automargin: true, tickfont: { size: 12 } };
  const layout = {
    ...F.size,
    font: { family: css("--font"), color: ink, size: 13 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 12, t: 10, b: 48 },
    hovermode: "closest",
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: ink }, align: "left" },
    xaxis: { ...axis, title: { text: xName(), standoff: 12 } },
    shapes: band(found, task),
    dragmode: "pan",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--accent") },
    yaxis: {
      ...axis,
      title: {
        text:
          R.y === "share"
            ? "share of judged tasks that match dense"
            : safe(`${task.name}, ${task.metric}${task.log ? " (log, inverted)" : ""}`),
        standoff: 6,
      },
      type: task.log ? "log" : "linear",
      autorange: task.higher ? true : "reversed",
      tickformat: task.log ? "~g" : "",
    },
  };
  Plotly.react("plot", traces(found, task), layout, {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  });
}
function drawBest(line) {
  byId("best").replaceChildren(
    ...line
      .slice(0, 24)
      .map((p) =>
        el(
          "li",
          {},
          el(
            "button",
            { type: "button", class: "chip", onclick: () => choose(p.i, true) },
            `${nameOf(p.i)} · ${F.x === "file" ? bytes(S().file[p.i]) : number(p.x, 2)} · ${number(p.v)}`,
          ),
        ),
      ),
  );
}
function startMethods() {
  const toggle = (method) => {
    R.filter.off.has(method) ? R.filter.off.delete(method) : R.filter.off.add(method);
    changed("filter");
  };
  const only = (keep) => {
    R.filter.off = new Set(keep ? [] : R.methods);
    changed("filter");
  };
  byId("methods-off").append(
    ...R.methods.map((m) =>
      el(
        "button",
        { type: "button", class: "chip", onclick: () => toggle(m), "data-method": m },
        glyph(m),
        m,
      ),
    ),
    el("button", { type: "button", class: "quiet", onclick: () => only(true) }, "all"),
    el("button", { type: "button", class: "quiet", onclick: () => only(false) }, "none"),
  );
}
// What has the focus keeps it: nothing is made anew when what is chosen changes.
function showChosen() {
  for (const chip of byId("methods-off").querySelectorAll("[data-method]"))
    chip.setAttribute("aria-pressed", String(!R.filter.off.has(chip.dataset.method)));
  byId("up").value = R.y;
}
function startFrontier() {
  const xs = XS.filter(([key]) => R.has[key]);
  F.x = xs.length ? xs[0][0] : "file";
  byId("frontier").append(
    el(
      "div",
      { class: "controls", id: "axes" },
      picker("across", "Across", xs, F.x, (v) => {
        F.x = v;
        drawFrontier();
      }),
      picker("up", "Up", yOptions(), R.y, (v) => {
        R.y = v;
        changed("y");
      }),
      R.models.length > 1
        ? picker("model", "Model", [["", "all"], ...R.models.map((m) => [m, m])], R.filter.model, (v) => {
            R.filter.model = v;
            changed("filter");
          })
        : null,
    ),
    el("div", { class: "chips", id: "methods-off", role: "group", "aria-label": "Methods shown" }),
    el(
      "div",
      {
        id: "plot",
        role: "img",
        "aria-label": "Score over size of every cell; the list below names the frontier",
      },
      el("p", { class: "note" }, "Drawing …"),
    ),
    el(
      "p",
      { class: "legend" },
      "Up is better. Band: within 5 % of dense, the star. Yellow: the frontier. Dotted: chance. ",
      "A click on a point opens its cell and filters the table to its line. Open symbols: beyond the axis.",
    ),
    el("details", {}, el("summary", {}, "The frontier as a list"), el("ul", { class: "chips", id: "best" })),
  );
  startMethods();
  showChosen();
  drawFrontier();
  let waiting = 0;
  listen((what) => {
    if (what === "cell") return;
    showChosen();
    // Thousands of points take a second to draw: not between two letters of a search.
    clearTimeout(waiting);
    waiting = setTimeout(drawFrontier, R.count > 500 ? 250 : 0);
  });
}
async function loadPlotly() {
  const script = el("script");
  script.textContent = await inflate("plotly-gz");
  document.head.append(script);
  byId("plot").replaceChildren();
  F.ready = true;
  drawFrontier();
  performance.mark("drawn");
  byId("plot").on("plotly_click", (event) => {
    const i = event.points[0].customdata;
    if (i === undefined || i === null) return;
    R.filter.label = S().state[i] === "dense" ? "" : S().label[i];
    changed("filter");
    choose(i, false);
  });
}
