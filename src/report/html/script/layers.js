// Layers × components.

const MEASURES = {
  total: ["total error C−T", (p) => p.rel_l2],
  adds: ["what the engine adds C−Q", (p) => (p.armed ? p.engine_rel_l2 : p.adds)],
  ratio: ["local error as a multiple of its bound", (p) => p.ratio],
};

/** The measures that the report has; the total where it has none, to show what is missing. */
function measuresOf(report) {
  const known = Object.keys(MEASURES).filter((key) =>
    report.points.some((p) => MEASURES[key][1](p) !== null),
  );
  return known.length ? known : ["total"];
}

/** Rows: components in the order of execution, grouped by module, those outside the layers at the ends. */
function componentRows(report) {
  // Each type of layer has its own order; a name is put behind the one that it follows.
  const names = [];
  for (const place of report.places.filter((p) => p.layer !== null)) {
    let last = -1;
    for (const { local } of place.points) {
      const at = names.indexOf(local);
      if (at < 0) names.splice(++last, 0, local);
      else last = at;
    }
  }
  const outside = report.places.filter((p) => p.layer === null);
  const module = (name) => (name.includes(".") ? name.slice(0, name.indexOf(".")) : "");
  const inside = names.map((name, i) => {
    const own = module(name);
    const starts = own !== (i ? module(names[i - 1]) : "");
    return {
      label: own ? name.slice(own.length + 1) : name,
      name,
      group: starts && own ? own : null,
      gap: starts && !own,
    };
  });
  const ends = (late) =>
    outside
      .filter((p) => p.late === late)
      .map((p, i) => ({ label: p.points[0].local, place: p, gap: late && !i }));
  return [...ends(false), ...inside, ...ends(true)];
}

function layersSection(report, page) {
  const measures = measuresOf(report);
  let measure = report.outcome === "fault" && measures.includes("ratio") ? "ratio" : measures[0];
  const holder = el("div");
  const rows = componentRows(report);
  const ends = report.places.some((p) => p.layer === null);
  const columns = report.places
    .filter((p) => p.layer !== null)
    .map((p) => ({ label: `layer ${p.label}`, short: p.label, place: p }));
  if (ends)
    columns.unshift({ label: "outside the layers", short: columns.length > 15 ? "" : "ends", place: null });
  function draw() {
    const figure = MEASURES[measure][1];
    const at = (row, column) => {
      const place = column.place ?? row.place;
      if (!place || Boolean(column.place) === Boolean(row.place)) return null;
      const points = place.points.filter((p) => (row.place || p.local === row.name) && page.inStep(p));
      if (!points.length) return null;
      return cellOf(points, figure, measure);
    };
    const values = report.points
      .filter(page.inStep)
      .map(figure)
      .filter((v) => v !== null);
    const scale = measure === "ratio" ? ratioScale() : errorScale(values);
    holder.replaceChildren(
      heatmap({
        caption: `${MEASURES[measure][0]}, ${page.stepName()}; a row for each component, a column for each layer`,
        rows,
        columns,
        cell: at,
        scale,
        corner: "layer",
        open: (content, node) => page.open(content.point, node),
      }),
    );
  }
  draw();
  page.onStep(draw);
  const choice = select(
    "Colour",
    measures.map((key) => [key, MEASURES[key][0]]),
    measure,
    (value) => {
      measure = value;
      draw();
    },
  );
  return el(
    "section",
    { id: "layers", "aria-labelledby": "layers-title" },
    el("h2", { id: "layers-title" }, "Layers × components"),
    el("div", { class: "controls" }, choice, page.stepChoice()),
    el(
      "p",
      { class: "note" },
      "Click a cell, or press Enter on it, to see the component. Arrow keys move, Esc closes.",
    ),
    holder,
  );
}

/** What a cell shows of a component's points at several steps: the largest. */
function cellOf(points, figure, measure) {
  const point = largest(points, figure) ?? points[0];
  const value = figure(point);
  const born = points.find((p) => p.state === "born");
  const shown = measure === "ratio" ? multiple(value) : show(value, 1);
  const said =
    value === null ? "not measured" : measure === "ratio" ? `${shown} of its bound` : `relative L2 ${shown}`;
  const label = `${clean(point.point)}, step ${point.step}: ${said}${born ? "; an error is born here" : ""}`;
  return { value, text: shown, label, born: Boolean(born), point };
}
