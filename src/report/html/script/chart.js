// A chart of curves on a logarithmic axis, drawn by uPlot; the pointer and the arrow keys read values off it.

/** Powers of ten around the values that a logarithm can show. */
function decades(values) {
  const logs = values.filter((v) => Number.isFinite(v) && v > 0).map(Math.log10);
  if (!logs.length) return [1e-8, 1];
  const low = Math.floor(logs.reduce((a, b) => Math.min(a, b)));
  const high = Math.ceil(logs.reduce((a, b) => Math.max(a, b)));
  return [10 ** low, 10 ** Math.max(high, low + 1)];
}

/** Of an axis's marks the powers of ten; no more of them than can be read. */
function powers(_, splits) {
  const exponents = splits
    .map((v) => Math.log10(v))
    .map((e) => (Math.abs(e - Math.round(e)) < 1e-6 ? Math.round(e) : null));
  const every = Math.ceil(exponents.filter((e) => e !== null).length / 12);
  return splits.map((v, i) => (exponents[i] !== null && exponents[i] % every === 0 ? v : null));
}

/** Which of the labels there is room for: where a new one begins, and of a crowd only layers at even distances. */
function marked(labels, width) {
  const room = 44;
  const crowded = width / labels.length < room;
  const starts = labels.flatMap((label, i) =>
    label !== labels[i - 1] && !(crowded && Number.isNaN(Number(label))) ? [i] : [],
  );
  const every = Math.ceil((room * starts.length) / width);
  return starts.filter((i, n) =>
    every === 1
      ? true
      : Number(labels[i]) % every === 0 || (Number.isNaN(Number(labels[i])) && n % every === 0),
  );
}

/**
 * `labels` stand along the axis; `curves` are `{label, colour, dash, values}`; `tell(i)` gives the text for a
 * place, `open(i)` opens it. `thin` curves have a line and no marks.
 */
function chart({ title, labels, curves, tell, open, axis }) {
  const holder = el("div", {
    class: "chart",
    tabindex: 0,
    role: "application",
    "aria-label": `${title}. Arrow keys read the values, Enter opens the component.`,
  });
  const live = el("div", { class: "hidden", "aria-live": "polite" });
  let plot = null,
    at = null,
    byKey = false;
  const range = decades(curves.flatMap((curve) => curve.values).filter((v) => v !== null));
  // What is not finite is drawn at the upper edge; 0 and what is not measured is not drawn.
  const drawn = (v) => (v === null || v === 0 ? null : Number.isFinite(v) ? v : range[1]);
  const data = [labels.map((_, i) => i), ...curves.map((curve) => curve.values.map(drawn))];
  function draw() {
    plot?.destroy();
    const ink = colour("ink"),
      grid = { stroke: colour("grid"), width: 1 };
    plot = new uPlot(
      {
        width: Math.max(holder.clientWidth, 280),
        height: 320,
        legend: {
          live: false,
          markers: {
            width: 3,
            dash: (_, i) =>
              !curves[i - 1].dash?.length ? "solid" : curves[i - 1].dash[0] < 4 ? "dotted" : "dashed",
          },
        },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { x: { time: false, range: [-0.4, labels.length - 0.6] }, y: { distr: 3, range } },
        axes: [
          {
            stroke: ink,
            grid,
            ticks: grid,
            label: axis,
            size: 30,
            labelSize: 22,
            splits: (u) => marked(labels, u.width),
            values: (_, splits) => splits.map((i) => labels[i] ?? ""),
          },
          {
            stroke: ink,
            grid: { ...grid, filter: powers },
            ticks: { ...grid, filter: powers },
            filter: powers,
            size: 58,
            label: "relative L2 error",
            labelSize: 22,
            values: (_, splits) => splits.map((v) => (v === null ? "" : `1e${Math.round(Math.log10(v))}`)),
          },
        ],
        series: [
          {},
          ...curves.map((curve) => ({
            label: curve.label,
            stroke: colour(curve.colour),
            dash: curve.dash,
            width: curve.thin ? 1.5 : 2,
            spanGaps: false,
            points: {
              show: !curve.thin,
              size: 7,
              fill: curve.hollow ? colour("paper") : colour(curve.colour),
              stroke: colour(curve.colour),
            },
          })),
        ],
        hooks: {
          setCursor: [
            (u) => {
              if (!byKey) point(u.cursor.idx, u.cursor.left >= 0);
            },
          ],
        },
      },
      data,
      holder,
    );
    plot.over.addEventListener("mouseleave", tipAway);
    plot.over.addEventListener("click", () => {
      if (at !== null) open(at);
    });
  }
  function point(i, shown) {
    if (i === null || i === undefined || !shown) return;
    at = i;
    const box = plot.over.getBoundingClientRect();
    const tops = plot.series
      .slice(1)
      .map((series, s) =>
        series.show && data[s + 1][i] !== null ? plot.valToPos(data[s + 1][i], "y") : Infinity,
      );
    const top = Math.min(...tops);
    tipAt(box.left + plot.valToPos(i, "x"), box.top + (Number.isFinite(top) ? top : box.height / 2), tell(i));
  }
  holder.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && at !== null) {
      event.preventDefault();
      open(at);
      return;
    }
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    at = at === null ? 0 : Math.min(Math.max(at + step, 0), labels.length - 1);
    byKey = true;
    plot.setCursor({ left: plot.valToPos(at, "x"), top: 10 });
    byKey = false;
    point(at, true);
    live.textContent = tell(at);
  });
  holder.addEventListener("blur", tipAway);
  new ResizeObserver(() => plot?.setSize({ width: Math.max(holder.clientWidth, 280), height: 320 })).observe(
    holder,
  );
  // Not before the element is on the page: uPlot needs its width.
  requestAnimationFrame(() => holder.isConnected && draw());
  return { node: el("div", {}, holder, live), redraw: () => holder.isConnected && draw() };
}

/** The same numbers as a table. */
function tableOf(title, heads, rows) {
  return el(
    "details",
    {},
    el("summary", {}, "The numbers as a table"),
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        { class: "numbers" },
        el("caption", {}, title),
        headRow(heads),
        el(
          "tbody",
          {},
          rows.map((row) =>
            el(
              "tr",
              {},
              row.map((cell, i) =>
                i ? el("td", { class: "number" }, cell) : el("th", { scope: "row" }, cell),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}
