// Puts the page together.

const DATA = JSON.parse(document.getElementById("data").textContent);
const REPORTS = DATA.reports.map((raw) => read(raw, DATA.components));
const ROOT = document.getElementById("page");
const PAGE_THEME = [];
let redraw = [];

/** What the sections of one report share: the step that is shown, and the panel. */
function sharedBy(report) {
  const shared = { step: "all", stepListeners: [], themeListeners: [], choices: [] };
  const steps = [...new Set(report.points.map((p) => p.step))].sort((a, b) => a - b);
  const names = [
    ["all", "all, the largest"],
    ...steps.map((s) => [String(s), s ? `${s}, decoded` : "0, prefill"]),
  ];
  const set = (step) => {
    shared.step = step;
    shared.choices.forEach((choice) => {
      choice.value = step;
    });
    shared.stepListeners.forEach((listener) => listener());
  };
  return {
    inStep: (p) => shared.step === "all" || String(p.step) === shared.step,
    stepName: () =>
      shared.step === "all"
        ? "the largest over prompts and steps"
        : `step ${shared.step}, the largest over prompts`,
    stepChoice: () => {
      if (steps.length < 2) return null;
      const choice = select("Step", names, shared.step, set);
      shared.choices.push(choice.querySelector("select"));
      return choice;
    },
    onStep: (listener) => {
      shared.stepListeners.push(listener);
      shared.themeListeners.push(listener);
    },
    onTheme: (listener) => shared.themeListeners.push(listener),
    open: (point, from) => openPanel(report, point, pageOf.get(report), from),
    themed: () => shared.themeListeners.forEach((listener) => listener()),
  };
}

const pageOf = new Map();

/** All sections of one report. */
function sections(report, alone) {
  const page = sharedBy(report);
  pageOf.set(report, page);
  redraw = [page.themed];
  return [
    verdictSection(report, alone ? "h1" : "h2"),
    summarySection(report),
    faultsSection(report, page),
    curvesSection(report, page),
    layersSection(report, page),
    tokensSection(report, page),
  ].filter(Boolean);
}

function showSet(set) {
  const holder = el("div", { id: "report", role: "tabpanel" });
  const { list, choose } = tabs(REPORTS, (report, tab) => {
    closePanel();
    holder.setAttribute("aria-labelledby", tab);
    holder.replaceChildren(...sections(report, false));
  });
  const page = {
    show: (engine) => {
      choose(engine);
      list.scrollIntoView();
    },
    open: (report, point, from) => {
      choose(report.engine);
      pageOf.get(report).open(point, from);
    },
    onPageTheme: (listener) => PAGE_THEME.push(listener),
  };
  ROOT.append(
    el(
      "header",
      {},
      el("div", { class: "note" }, clean(set.compared)),
      el("h1", {}, badgeBox(set.outcome), " ", clean(set.headline)),
    ),
    enginesSection(set, REPORTS, page),
    list,
    holder,
  );
  if (REPORTS.length) choose((REPORTS.find((r) => r.outcome === "fault") ?? REPORTS[0]).engine);
}

function showPage() {
  ROOT.replaceChildren();
  if (DATA.set) showSet(DATA.set);
  else if (REPORTS.length) ROOT.append(...sections(REPORTS[0], true));
  document.title = clean(DATA.title);
  ROOT.append(
    el(
      "footer",
      { class: "note" },
      el(
        "p",
        {},
        `layerdiff ${clean(DATA.layerdiff)}: `,
        el("code", {}, clean(DATA.command.map(quoted).join(" "))),
        ". All figures are in report.json beside this page.",
      ),
    ),
  );
  document.body.append(PANEL, TIP);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    closePanel();
    tipAway();
  }
});
const restyle = () => [...PAGE_THEME, ...redraw].forEach((draw) => draw());
DARK.addEventListener("change", restyle);
addEventListener("beforeprint", () => {
  document.documentElement.dataset.print = "";
  restyle();
});
addEventListener("afterprint", () => {
  delete document.documentElement.dataset.print;
  restyle();
});
showPage();
