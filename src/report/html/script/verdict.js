// The verdict in one sentence, and what it rests on.

function verdictSection(report, level) {
  return el(
    "section",
    { class: "verdict", "aria-label": `Verdict on ${clean(report.engine)}` },
    el("div", { class: "note" }, clean(report.sides)),
    report.note ? el("p", {}, el("strong", {}, prose(report.note))) : null,
    el(level, {}, badgeBox(report.outcome), " ", prose(report.headline)),
    report.diagnosed ? el("p", {}, "It computes: ", el("strong", {}, clean(report.diagnosed)), ".") : null,
    report.reasoning.length
      ? el(
          "details",
          { open: report.outcome !== "pass" },
          el("summary", {}, "Why"),
          report.reasoning.map((text) => el("p", {}, prose(text))),
        )
      : null,
  );
}

const badgeBox = (outcome) => {
  const node = badge(outcome);
  node.classList.add("badge");
  return node;
};

function summarySection(report) {
  const facts = report.summary.map(([name, text]) => [el("dt", {}, name), el("dd", {}, prose(text))]);
  const many = report.prompts.length > 1;
  const prompts = el(
    "details",
    {},
    el("summary", {}, `${report.prompts.length} prompts`),
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        { class: "numbers" },
        headRow(["prompt", "tokens", "outcome", "worst point", "relative L2"]),
        el(
          "tbody",
          {},
          report.prompts.map((p) =>
            el(
              "tr",
              {},
              el("th", { scope: "row" }, clean(p.id)),
              el("td", {}, String(p.tokens)),
              el("td", {}, badge(p.outcome)),
              el("td", {}, el("code", {}, clean(p.worst_point ?? "–"))),
              el("td", { class: "number" }, show(number(p.worst_rel_l2))),
            ),
          ),
        ),
      ),
    ),
  );
  return el(
    "section",
    { "aria-labelledby": "summary-title" },
    el("h2", { id: "summary-title" }, "Summary"),
    el("dl", { class: "facts" }, facts),
    report.warnings.length
      ? el(
          "ul",
          { class: "warnings", "aria-label": "Warnings" },
          report.warnings.map((text) => el("li", {}, prose(text))),
        )
      : null,
    many ? prompts : null,
  );
}

/** The points where an error is born, each with a button that opens it. */
function faultsSection(report, page) {
  if (!report.faults.length) return null;
  const first = new Map();
  for (const fault of report.faults) {
    const known = first.get(fault.point);
    if (!known) first.set(fault.point, { fault, often: 1 });
    else known.often += 1;
  }
  const rows = [...first.values()].map(({ fault, often }) => {
    const point =
      report.points.find((p) => p.point === fault.point && p.state === "born") ??
      report.points.find((p) => p.point === fault.point);
    const button = el(
      "button",
      { type: "button", class: "name", onclick: (event) => point && page.open(point, event.currentTarget) },
      el("code", {}, clean(fault.point)),
      fault.side === "reference" ? " (in the reference)" : null,
    );
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, button),
      el("td", { class: "number" }, show(number(fault.rel_l2), 1)),
      el("td", { class: "number" }, `${multiple(number(fault.ratio))} ×`),
      el("td", {}, `${clean(fault.prompt)}, step ${fault.step}`),
      el("td", {}, String(often)),
    );
  });
  return el(
    "section",
    { "aria-labelledby": "faults-title" },
    el("h2", { id: "faults-title" }, "Where errors are born"),
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        { class: "numbers" },
        headRow(["point", "relative L2", `× ${report.ratios_of}`, "first in", "prompts and steps"]),
        el("tbody", {}, rows),
      ),
    ),
  );
}
