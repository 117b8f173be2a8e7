// A table of coloured cells: arrows move, Enter opens. It is a table for screen readers too.

const LIGHT_RAMP = ["#eef3f8", "#c6dbef", "#7fb5da", "#2f7fbc", "#08306b"];
const DARK_RAMP = ["#1a2430", "#1d4268", "#2b6ca8", "#5aa7de", "#dcefff"];
const LIGHT_HOT = ["#fdd0a2", "#f16913", "#8c2d04"];
const DARK_HOT = ["#7a3208", "#e06a1b", "#ffd2a6"];

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

/** The colour at `t` from 0 to 1 between those of a ramp. */
function between(ramp, t) {
  const place = Math.min(Math.max(t, 0), 1) * (ramp.length - 1);
  const i = Math.min(Math.floor(place), ramp.length - 2);
  const [a, b] = [channels(ramp[i]), channels(ramp[i + 1])];
  return a.map((v, c) => Math.round(v + (b[c] - v) * (place - i)));
}

const css = (rgb) => `rgb(${rgb.join(" ")})`;

/** Black or white, whichever can be read on the colour. */
function inkOn(rgb) {
  const linear = rgb.map((v) => {
    const s = v / 255;
    return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.18 ? "#000" : "#fff";
}

/** A logarithmic scale over the finite values, with its legend. */
function errorScale(values) {
  const logs = values.filter((v) => Number.isFinite(v) && v > 0).map(Math.log10);
  const low = Math.floor(logs.reduce((a, b) => Math.min(a, b), logs.length ? Infinity : -7));
  const high = Math.max(
    Math.ceil(logs.reduce((a, b) => Math.max(a, b), logs.length ? -Infinity : -5)),
    low + 2,
  );
  const ramp = () => (dark() ? DARK_RAMP : LIGHT_RAMP);
  const at = (v) => (v === 0 ? 0 : Number.isFinite(v) ? (Math.log10(v) - low) / (high - low) : 1);
  return {
    colour: (v) => (Number.isFinite(v) ? between(ramp(), at(v)) : between(hot(), 1)),
    legend: () => [scaleBar(`1e${low}`, `1e${high}`, (t) => between(ramp(), t))],
  };
}

const hot = () => (dark() ? DARK_HOT : LIGHT_HOT);

/** Local errors: blue within the bound, orange beyond. */
function ratioScale() {
  const ramp = () => (dark() ? DARK_RAMP : LIGHT_RAMP).slice(0, 3);
  return {
    colour: (v) => (v <= 1 ? between(ramp(), v) : between(hot(), Number.isFinite(v) ? Math.log10(v) / 4 : 1)),
    legend: () => [
      scaleBar("0", "1, the bound", (t) => between(ramp(), t)),
      scaleBar("1", "10 000 and more", (t) => between(hot(), t)),
    ],
  };
}

function scaleBar(from, to, shade) {
  const steps = Array.from({ length: 9 }, (_, i) => {
    const step = el("i");
    step.style.background = css(shade(i / 8));
    return step;
  });
  return el("span", {}, from, el("span", { class: "ramp", "aria-hidden": "true" }, steps), to);
}

/**
 * `rows` and `columns` have a label, and rows may begin a group or leave a gap; `cell(row, column)` gives null where there is
 * nothing, else `{value, text, label, born, point, token}`; a value of null was not measured.
 */
function heatmap({ caption, rows, columns, cell, scale, open, corner }) {
  const roomy = columns.length <= 16;
  const table = el(
    "table",
    { role: "grid", class: `heat ${roomy ? "roomy" : "narrow"}`, "aria-readonly": "true" },
    el("caption", {}, caption),
  );
  const every = Math.ceil(columns.length / (roomy ? 16 : 40));
  table.append(
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("th", { scope: "col" }, corner),
        columns.map((column, i) =>
          el(
            "th",
            { scope: "col", "aria-label": column.label },
            i % every ? "" : (column.short ?? column.label),
          ),
        ),
      ),
    ),
  );
  const body = el("tbody");
  const grid = [];
  for (const row of rows) {
    if (row.gap)
      body.append(
        el("tr", { class: "gap", "aria-hidden": "true" }, el("td", { colspan: columns.length + 1 })),
      );
    if (row.group)
      body.append(
        el("tr", {}, el("th", { class: "group", colspan: columns.length + 1, scope: "rowgroup" }, row.group)),
      );
    const cells = columns.map((column) => cellNode(cell(row, column), scale, roomy, open));
    grid.push(cells.map((c) => (c.hasAttribute("tabindex") ? c : null)));
    body.append(el("tr", {}, el("th", { scope: "row" }, clean(row.label)), cells));
  }
  table.append(body);
  walk(table, grid);
  const marks = [
    el("span", {}, "✗ an error is born"),
    el("span", {}, "hatched: not measured"),
    el("span", {}, "empty: no such component"),
  ];
  return el(
    "div",
    {},
    el("div", { class: "wide" }, table),
    el("div", { class: "scale" }, scale.legend(), marks),
  );
}

function cellNode(content, scale, roomy, open) {
  if (content === null) return el("td", { "aria-label": "no such component" });
  const { value, text, label, born } = content;
  const missing = value === null;
  const shown = (born ? "✗ " : "") + (missing ? "" : roomy ? text : "");
  const node = el(
    "td",
    {
      role: "gridcell",
      tabindex: -1,
      "aria-label": label,
      class: [born && "born", missing && "missing"].filter(Boolean).join(" "),
      onclick: () => {
        node.focus();
        open(content, node);
      },
      onmouseenter: () => tipBeside(node, label),
      onmouseleave: tipAway,
      onfocus: () => node.matches(":focus-visible") && tipBeside(node, label),
      onblur: tipAway,
    },
    shown.trim(),
  );
  if (!missing) {
    const shade = scale.colour(value);
    node.style.background = css(shade);
    node.style.color = inkOn(shade);
  }
  return node;
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** One cell at a time takes the focus by Tab; arrows move on to the next cell that there is. */
function walk(table, grid) {
  const cells = grid.flatMap((row, r) => row.flatMap((node, c) => (node ? [[node, [r, c]]] : [])));
  const where = new Map(cells);
  let current = cells.find(([node]) => node.classList.contains("born"))?.[0] ?? cells[0]?.[0];
  current?.setAttribute("tabindex", 0);
  table.addEventListener("focusin", (event) => {
    if (!where.has(event.target)) return;
    current.setAttribute("tabindex", -1);
    current = event.target;
    current.setAttribute("tabindex", 0);
  });
  table.addEventListener("keydown", (event) => {
    const at = where.get(event.target);
    if (!at) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      event.target.click();
      return;
    }
    const next = event.key in STEPS ? neighbour(grid, at, STEPS[event.key]) : endOf(grid, at, event.key);
    if (event.key in STEPS || next) event.preventDefault();
    next?.focus();
  });
}

function neighbour(grid, [r, c], [down, right]) {
  for (
    let [i, j] = [r + down, c + right];
    i >= 0 && i < grid.length && j >= 0 && j < grid[i].length;
    i += down, j += right
  ) {
    if (grid[i][j]) return grid[i][j];
  }
  return null;
}

function endOf(grid, [r], key) {
  const row = grid[r].filter(Boolean);
  return key === "Home" ? row[0] : key === "End" ? row.at(-1) : null;
}
