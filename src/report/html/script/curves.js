// The error curves: total, floor, and what the engine adds.

const CURVES = [
  { label: "total C−T", colour: "total", of: (p) => p.rel_l2 },
  { label: "floor F−T", colour: "floor", dash: [8, 5], thin: true, of: (p) => p.floor },
  { label: "explained at most", colour: "explained", dash: [2, 4], thin: true, of: (p) => p.explained },
  {
    label: "quantization Q−T",
    colour: "price",
    dash: [10, 4, 2, 4],
    hollow: true,
    of: (p) => p.quantization,
  },
  { label: "engine adds C−Q", colour: "adds", hollow: true, of: (p) => (p.armed ? p.engine_rel_l2 : p.adds) },
];

/** Where Q is T, the price is 0 and what the engine adds is the total: one curve says it all. */
const repeats = (report, { of, colour: name }) =>
  (name === "price" && report.points.every((p) => !of(p))) ||
  (name === "adds" && report.points.every((p) => of(p) === null || of(p) === p.rel_l2));

function curvesSection(report, page) {
  const families = [...new Set(report.points.map((p) => p.family))];
  const chosen = new Set(families);
  let by = "layer",
    drawn = null;
  const holder = el("div");
  const shown = CURVES.filter(
    (curve) => report.points.some((p) => curve.of(p) !== null) && !repeats(report, curve),
  );
  function places() {
    const fits = (p) => chosen.has(p.family) && page.inStep(p);
    if (by === "layer") {
      return report.places.map((place) => {
        const points = place.points.filter(fits);
        // Where a fault is born, and not the point downstream of it where the error is largest.
        const born = points.filter((p) => p.state === "born");
        const point =
          largest(
            born.filter((p) => p.point === born[0].point),
            (p) => p.judged,
          ) ?? largest(points, (p) => p.judged);
        return {
          label: place.label,
          name: place.layer === null ? place.label : `layer ${place.label}, ${place.type}`,
          point,
        };
      });
    }
    const named = new Map();
    report.places.forEach((place) =>
      place.points.filter(fits).forEach((p) => named.set(p.point, [...(named.get(p.point) ?? []), p])),
    );
    return [...named].map(([name, points]) => ({
      label: points[0].layer === null ? points[0].local : String(points[0].layer),
      name,
      point: largest(points, (p) => p.judged),
    }));
  }
  function draw() {
    const all = places();
    const values = (of) => all.map(({ point }) => (point ? of(point) : null));
    const lines = ({ name, point }) =>
      point
        ? [
            ...(name === point.point ? [] : [name]),
            clean(point.point),
            `step ${point.step}, prompt ${clean(point.prompt)}`,
            ...shown.filter((c) => c.of(point) !== null).map((c) => `${c.label}: ${show(c.of(point))}`),
            ...(point.state === "born" ? ["✗ an error is born here"] : []),
          ]
        : [name, "not measured"];
    const title = `Error by ${by}, ${page.stepName()}`;
    drawn = chart({
      title,
      labels: all.map((p) => p.label),
      axis: by === "layer" ? "layer" : "points in the order of execution, by their layers",
      curves: shown.map((curve) => ({
        ...curve,
        thin: curve.thin || by === "point",
        values: values(curve.of),
      })),
      tell: (i) => lines(all[i]).join("\n"),
      open: (i) => all[i].point && page.open(all[i].point, drawn.node.firstChild),
    });
    holder.replaceChildren(
      drawn.node,
      tableOf(
        title,
        ["place", "point", ...shown.map((c) => c.label)],
        all.map(({ name, point }) => [
          clean(name),
          point ? clean(point.point) : "–",
          ...shown.map((c) => (point ? show(c.of(point)) : "–")),
        ]),
      ),
    );
  }
  draw();
  page.onStep(draw);
  page.onTheme(() => drawn.redraw());
  const family = (name) =>
    el(
      "label",
      {},
      el("input", {
        type: "checkbox",
        checked: true,
        onchange: (event) => {
          event.target.checked ? chosen.add(name) : chosen.delete(name);
          draw();
        },
      }),
      ` ${clean(name)}`,
    );
  return el(
    "section",
    { id: "curves", "aria-labelledby": "curves-title" },
    el("h2", { id: "curves-title" }, "Error curves"),
    el(
      "div",
      { class: "controls" },
      select(
        "Along",
        [
          ["layer", "layers, the worst point of each"],
          ["point", "every point"],
        ],
        by,
        (value) => {
          by = value;
          draw();
        },
      ),
      page.stepChoice(),
      el("fieldset", {}, el("legend", {}, "Families"), families.map(family)),
    ),
    el(
      "p",
      { class: "note" },
      "All curves of a place are of one point: where an error is born, else where the error is largest. 0 has no place on a logarithmic axis.",
    ),
    holder,
  );
}
