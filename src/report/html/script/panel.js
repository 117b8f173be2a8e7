// The panel of one component: what it computes, its numbers, and how to see them again.

/** The worst element of a comparison, as rows of a table. */
const spotRow = (what, at, max) =>
  at && [what, `[${at.index.join(", ")}]`, show(at.reference, 7), show(at.candidate, 7), show(max)];

function numbersTable(point) {
  const floors = point.floors.map(([dtype, error]) => [`floor F−T in ${clean(dtype)}`, show(error)]);
  const rows = [
    ["total C−T, relative L2", show(point.rel_l2)],
    ...floors,
    ["explained at most", show(point.explained)],
    ["quantization Q−T", show(point.quantization)],
    ["engine adds C−Q", show(point.armed ? point.engine_rel_l2 : point.adds)],
    ["local error by replay", point.ratio === null ? "–" : `${multiple(point.ratio)} × its bound`],
    ["largest absolute error", show(point.max_abs)],
    ["typical reference value (RMS)", show(point.rms)],
    ...(point.nonfinite ? [["not finite on one side only", `${point.nonfinite.mismatches} elements`]] : []),
    ["cosine", point.cosine === null ? "–" : String(point.cosine)],
    ["norm, candidate / reference", point.norm_ratio === null ? "–" : String(point.norm_ratio)],
  ];
  return el(
    "table",
    { class: "numbers" },
    el(
      "tbody",
      {},
      rows.map(([name, value]) =>
        el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "number" }, value)),
      ),
    ),
  );
}

function spots(point) {
  const rows = [
    spotRow("C−T", point.at, point.max_abs),
    point.armed ? spotRow("C−Q", point.engine_at, point.engine_max_abs) : null,
  ].filter(Boolean);
  if (!rows.length) return null;
  return el(
    "div",
    { class: "wide" },
    el(
      "table",
      { class: "numbers" },
      headRow(["", "at", "reference", "candidate", "apart"]),
      el(
        "tbody",
        {},
        rows.map((row) =>
          el(
            "tr",
            {},
            row.map((cell) => el("td", { class: "number" }, cell)),
          ),
        ),
      ),
    ),
  );
}

function meaning(report, point, page) {
  const component = componentOf(report, point);
  const shape = el("code", {}, `[${point.shape.join(", ")}]`);
  if (!component) return el("dl", { class: "facts" }, el("dt", {}, "Shape"), el("dd", {}, shape));
  const link = (name) => {
    const target =
      report.points.find((p) => p.point === name && p.step === point.step) ??
      report.points.find((p) => p.point === name);
    return el(
      "div",
      {},
      target
        ? el(
            "button",
            { type: "button", class: "name", onclick: () => page.open(target) },
            el("code", {}, clean(name)),
          )
        : el("code", {}, clean(name)),
    );
  };
  const names = (list) =>
    list.length ? list.map((name) => el("div", {}, el("code", {}, clean(name)))) : "none";
  const rows = [
    ["Computes", component.op.replaceAll("_", " ")],
    ["Formula", el("code", {}, component.formula)],
    ["Inputs", component.inputs.length ? component.inputs.map(link) : "the token ids and positions"],
    ...(component.carried.length ? [["From the step before", component.carried.map(link)]] : []),
    ...(component.params.length ? [["Parameters", names(component.params)]] : []),
    ["Shape", [shape, ` ${component.shape.join(" × ")}`]],
  ];
  return el(
    "dl",
    { class: "facts" },
    rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

/** What is said of the point: its state, its faults, its diagnosis. */
function findings(report, point) {
  const faults = report.faults.filter((f) => f.point === point.point);
  const here = faults.find((f) => f.step === point.step && f.prompt === point.prompt) ?? faults[0];
  const parts = [
    el(
      "p",
      { class: point.state === "born" ? "outcome fault" : "" },
      `${point.state === "born" ? "✗ " : ""}${STATES[point.state] ?? clean(point.state)}`,
    ),
  ];
  for (const note of [point.note, point.replay && `not replayed: ${point.replay}`])
    if (note) parts.push(el("p", {}, prose(note)));
  if (here) parts.push(el("p", {}, prose(`Prompt ${here.prompt}, step ${here.step}: ${here.reason}.`)));
  const diagnoses = report.diagnosis.filter((d) => d.point === point.point);
  if (diagnoses.length) parts.push(el("h3", {}, "Diagnosis"));
  for (const d of diagnoses) {
    const left = d.id ? ` What remains is ${multiple(number(d.residual_ratio))} of its bound.` : "";
    parts.push(
      el(
        "p",
        {},
        el("strong", {}, d.id ? clean(d.name) : "no known wrong formula reproduces its output"),
        ". ",
        prose(d.description),
        left,
      ),
    );
  }
  return parts;
}

const PANEL = el("aside", { id: "panel", role: "dialog", "aria-labelledby": "panel-title", hidden: true });
let cameFrom = null;

/** Opens the panel on a point; the focus comes back to `from` when it is closed. */
function openPanel(report, point, page, from) {
  if (from) cameFrom = from;
  tipAway();
  const steps = report.points.filter((p) => p.point === point.point);
  const title = el("h2", { id: "panel-title", tabindex: -1 }, el("code", {}, clean(point.point)));
  const choice =
    steps.length > 1
      ? select(
          "Step",
          steps.map((p) => [p.step, p.step ? `${p.step}, decoded` : "0, prefill"]),
          point.step,
          (step) =>
            openPanel(
              report,
              steps.find((p) => String(p.step) === step),
              page,
            ),
        )
      : `step ${point.step}`;
  const sections = [
    ["Numbers", numbersTable(point)],
    ["Worst element", spots(point)],
    ["Distribution", distribution(point)],
    ["Reproduce", commandList(report, point)],
  ];
  PANEL.replaceChildren(
    el("button", { type: "button", class: "close", onclick: closePanel, "aria-label": "Close" }, "✕"),
    title,
    el("div", { class: "controls" }, choice, el("span", { class: "note" }, `prompt ${clean(point.prompt)}`)),
    ...findings(report, point),
    meaning(report, point, page),
    ...sections.flatMap(([name, content]) =>
      content && content.length !== 0 ? [el("h3", {}, name), ...[content].flat()] : [],
    ),
  );
  PANEL.hidden = false;
  PANEL.scrollTop = 0;
  document.body.classList.add("open");
  title.focus();
}

function closePanel() {
  if (PANEL.hidden) return;
  PANEL.hidden = true;
  document.body.classList.remove("open");
  if (cameFrom?.isConnected) cameFrom.focus();
}
