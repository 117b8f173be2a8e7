// Several engines on one page: a table, their curves in one chart, and a tab for each.

const ENGINE_COLOURS = ["total", "adds", "pass", "explained", "price", "floor"];
const ENGINE_DASHES = [[], [8, 4], [2, 3], [10, 4, 2, 4], [5, 5], [14, 4]];
const COMPARED = {
  judged: ["what the engine adds, where it is known; else the total", (p) => p.judged],
  total: MEASURES.total,
  price: ["price of quantization Q−T", (p) => p.quantization],
};

function enginesSection(set, reports, page) {
  const by = new Map(reports.map((report) => [report.engine, report]));
  const worstRatio = (report) => largest(report.points, (p) => p.ratio)?.ratio ?? null;
  const rows = set.engines.map((engine) => {
    const report = by.get(engine.engine);
    const name = report
      ? el(
          "button",
          { type: "button", class: "name", onclick: () => page.show(engine.engine) },
          clean(engine.engine),
        )
      : clean(engine.engine);
    const figures = ["total", "quantization", "engine"].map((key) =>
      el("td", { class: "number" }, show(number(engine.worst?.[key]), 1)),
    );
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, name),
      el("td", {}, badge(engine.outcome)),
      figures,
      el("td", { class: "number" }, report ? multiple(worstRatio(report)) : "–"),
      el(
        "td",
        { class: "words" },
        prose(
          (engine.diagnosis ? `${engine.headline}: ${engine.diagnosis}` : engine.headline).replace(
            /^[A-Z]+: /,
            "",
          ),
        ),
      ),
    );
  });
  const heads = [
    "engine",
    "outcome",
    "total",
    "quantization",
    "engine adds",
    "largest local ratio",
    "verdict",
  ];
  const table = el(
    "div",
    { class: "wide" },
    el(
      "table",
      { class: "numbers" },
      el("caption", {}, "Relative L2 errors where the engine adds most (the largest total where that is not known); – is UNMEASURED or not needed: an engine's own report says which"),
      headRow(heads),
      el("tbody", {}, rows),
    ),
  );
  return el(
    "section",
    { "aria-labelledby": "engines-title" },
    el("h2", { id: "engines-title" }, "Engines"),
    table,
    enginesChart(reports, page),
  );
}

function enginesChart(reports, page) {
  const holder = el("div");
  let chosen = "judged",
    drawn = null;
  function draw() {
    const figure = COMPARED[chosen][1];
    const labels = reports[0].places.map((p) => p.label);
    const found = reports.map((report) =>
      labels.map((label) => {
        const points = report.places.find((p) => p.label === label)?.points ?? [];
        const born = points.filter((p) => p.state === "born");
        return largest(chosen === "judged" && born.length ? born : points, figure);
      }),
    );
    const value = (e, i) => (found[e][i] ? figure(found[e][i]) : null);
    const title = `Engines: ${COMPARED[chosen][0]}`;
    const curves = reports.map((report, e) => ({
      label: clean(report.engine),
      colour: ENGINE_COLOURS[e % 6],
      dash: ENGINE_DASHES[e % 6],
      hollow: e % 2 === 1,
      values: labels.map((_, i) => value(e, i)),
    }));
    const lines = (i) => [
      `at ${labels[i]}`,
      ...reports.map(
        (report, e) =>
          `${clean(report.engine)}: ${show(value(e, i), 1)}${found[e][i] ? ` at ${clean(found[e][i].local)}` : ""}`,
      ),
    ];
    drawn = chart({
      title,
      labels,
      axis: "layer",
      curves,
      tell: (i) => lines(i).join("\n"),
      open: (i) => {
        const worst = largest(
          reports.map((_, e) => ({ e, value: value(e, i) })),
          (one) => one.value,
        );
        if (worst) page.open(reports[worst.e], found[worst.e][i], drawn.node.firstChild);
      },
    });
    holder.replaceChildren(
      drawn.node,
      tableOf(
        title,
        ["place", ...curves.map((c) => c.label)],
        labels.map((label, i) => [label, ...reports.map((_, e) => show(value(e, i), 1))]),
      ),
    );
  }
  if (!reports.length) return null;
  draw();
  page.onPageTheme(() => drawn.redraw());
  const choices = Object.entries(COMPARED).filter(([, [, of]]) =>
    reports.some((r) => r.points.some((p) => of(p) !== null)),
  );
  return el(
    "div",
    {},
    el(
      "div",
      { class: "controls" },
      select(
        "Curves",
        choices.map(([key, [name]]) => [key, name]),
        chosen,
        (key) => {
          chosen = key;
          draw();
        },
      ),
    ),
    holder,
  );
}

/** A tab for each engine; arrows move between them. */
function tabs(reports, show) {
  const buttons = reports.map((report) =>
    el(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${reports.indexOf(report)}`,
        "aria-controls": "report",
        onclick: () => choose(report.engine),
      },
      badge(report.outcome),
      ` ${clean(report.engine)}`,
    ),
  );
  function choose(engine, focus) {
    const chosen = reports.findIndex((r) => r.engine === engine);
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", String(i === chosen));
      button.tabIndex = i === chosen ? 0 : -1;
    });
    if (focus) buttons[chosen].focus();
    show(reports[chosen], buttons[chosen].id);
  }
  const list = el(
    "div",
    {
      role: "tablist",
      "aria-label": "Engines",
      onkeydown: (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!step) return;
        const at = buttons.indexOf(document.activeElement);
        choose(reports[(at + step + reports.length) % reports.length].engine, true);
      },
    },
    buttons,
  );
  return { list, choose };
}
