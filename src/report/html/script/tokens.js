// Points × tokens: which tokens an error hits.

const MOST_COLUMNS = 96;

const tokenLists = { total: (p) => p.tokens, adds: (p) => p.engine_tokens };

/** Prompts of which points have errors by token, the report's own first: those kept whole, else what there is. */
function tokenPrompts(report) {
  const have = new Set(
    report.byPrompt.size
      ? report.byPrompt.keys()
      : report.points.filter((p) => p.tokens.length > 1).map((p) => p.prompt),
  );
  return [...have].sort((a, b) => (b === report.prompt_id) - (a === report.prompt_id));
}

/** A point's errors by position: the prefill's tokens, and one for each decoded step. */
function byPosition(points, prefill) {
  const errors = [];
  for (const { point, list } of points) {
    const start = point.step === 0 ? 0 : prefill + point.step - 1;
    list.forEach((error, i) => {
      // Null is a token that was not compared.
      if (error !== null) errors[start + i] = { error, point, position: start + i };
    });
  }
  return errors;
}

/** A row for each point, with the point's name as short as it is clear. */
const tokenLabel = (point, layer) =>
  point.layer === null || layer !== "outputs" ? point.local : point.point.replace(/^model\./, "");

/** What the prompt says, where the report knows it. */
function promptText(prompt) {
  if (!prompt?.text) return null;
  return el(
    "details",
    { open: prompt.text.length < 600 },
    el("summary", {}, `Text of prompt ${clean(prompt.id)}`),
    el("pre", { class: "prompt", tabindex: 0 }, cleanLines(prompt.text)),
  );
}

function tokensSection(report, page) {
  const prompts = tokenPrompts(report);
  if (!prompts.length) return null;
  const measures = Object.keys(tokenLists).filter((key) =>
    report.points.some((p) => tokenLists[key](p).length),
  );
  const chosen = { prompt: prompts[0], layer: report.first_fault?.layer ?? "outputs", measure: measures[0] };
  chosen.layer = String(chosen.layer ?? "outputs");
  const holder = el("div");
  const layers = report.places.filter((p) => p.layer !== null);
  function draw() {
    const named = new Map();
    const kept = report.byPrompt.get(chosen.prompt);
    for (const [i, point] of report.points.entries()) {
      const fits =
        chosen.layer === "outputs"
          ? point.layer === null || point.local === OUTPUT
          : String(point.layer) === chosen.layer;
      const of = point.prompt === chosen.prompt ? point : kept?.[i];
      if (!fits || !of) continue;
      const list = tokenLists[chosen.measure](of);
      if (!list.length) continue;
      named.set(point.point, [...(named.get(point.point) ?? []), { point, list }]);
    }
    const prompt = report.prompts.find((p) => p.id === chosen.prompt);
    const rows = [...named.values()].map((points) => ({
      label: tokenLabel(points[0].point, chosen.layer),
      errors: byPosition(points, prompt?.tokens ?? 0),
    }));
    const count = Math.max(0, ...rows.map((row) => row.errors.length));
    const group = Math.max(1, Math.ceil(count / MOST_COLUMNS));
    const columns = Array.from({ length: Math.ceil(count / group) }, (_, i) => {
      const last = Math.min(count, (i + 1) * group) - 1;
      return {
        label: group === 1 ? `position ${i}` : `positions ${i * group} to ${last}`,
        short: String(i * group),
        from: i * group,
        to: last + 1,
      };
    });
    const cell = (row, column) => {
      const here = row.errors.slice(column.from, column.to).filter(Boolean);
      const worst = here.reduce(
        (a, b) => (a === null || b.error > a.error || Number.isNaN(b.error) ? b : a),
        null,
      );
      if (!worst) return null;
      const text = show(worst.error, 1);
      return {
        value: worst.error,
        text,
        label: `${clean(worst.point.point)}, position ${worst.position}${tokenAt(worst.position)}, step ${worst.point.step}: relative L2 ${text}`,
        born: false,
        point: worst.point,
      };
    };
    const values = rows
      .flatMap((row) => row.errors)
      .filter(Boolean)
      .map((e) => e.error);
    const grouped = group > 1 ? `; each column is the largest of ${group} positions` : "";
    const ids = [...(prompt?.token_ids ?? []), ...(prompt?.step_token_ids ?? [])];
    const texts = prompt?.token_texts ?? [];
    const tokenAt = (i) => {
      if (i >= ids.length) return "";
      const text = i < texts.length ? `“${clean(texts[i].replaceAll("\n", "⏎"))}”, ` : "";
      return ` (${text}token id ${ids[i]})`;
    };
    const many =
      report.prompts.length > 1 && !kept
        ? "; empty where another prompt has the larger error, which alone is kept"
        : "";
    holder.replaceChildren(
      ...[
        rows.length
          ? heatmap({
              caption: `${MEASURES[chosen.measure][0]} by position, prompt ${clean(chosen.prompt)}: the prompt's tokens, then the decoded ones${grouped}${many}`,
              rows,
              columns,
              cell,
              scale: errorScale(values),
              corner: "position",
              open: (content, node) => page.open(content.point, node),
            })
          : el(
              "p",
              { class: "note" },
              "No point here has its largest error in this prompt: the report keeps each point's worst prompt only.",
            ),
        promptText(prompt),
      ].filter(Boolean),
    );
  }
  draw();
  page.onStep(() => {});
  page.onTheme(draw);
  const change = (key) => (value) => {
    chosen[key] = value;
    draw();
  };
  const places = [
    ["outputs", "outputs of all layers"],
    ...layers.map((p) => [p.label, `layer ${p.label}, ${p.type}`]),
  ];
  return el(
    "section",
    { id: "tokens", "aria-labelledby": "tokens-title" },
    el("h2", { id: "tokens-title" }, "Points × tokens"),
    el(
      "div",
      { class: "controls" },
      select("Points", places, chosen.layer, change("layer")),
      prompts.length > 1
        ? select(
            prompts.length < report.prompts.length
              ? `Prompt (the worst ${prompts.length} of ${report.prompts.length})`
              : "Prompt",
            prompts.map((p) => [p, clean(p)]),
            chosen.prompt,
            change("prompt"),
          )
        : null,
      measures.length > 1
        ? select(
            "Colour",
            measures.map((m) => [m, MEASURES[m][0]]),
            chosen.measure,
            change("measure"),
          )
        : null,
    ),
    holder,
  );
}
