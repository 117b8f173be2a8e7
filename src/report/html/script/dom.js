// Elements, numbers and colours. All text of a report goes through textContent: names and prompts come from
// files that anyone may have written.

/** Makes an element; `on…` keys are listeners, all others attributes. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

// What steers the direction of writing would let a name look like another one.
const STEERING = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** The text without signs that cannot be seen. */
const clean = (text) => String(text).replace(STEERING, " ");

/** The text with its lines and tabs, as it is shown in a block. */
const cleanLines = (text) =>
  String(text)
    .split("\n")
    .map((line) => line.split("\t").map(clean).join("\t"))
    .join("\n");

/** Text in which names stand between backticks, as nodes. */
function prose(text) {
  const parts = clean(text).split("`");
  const paired = parts.length - (1 - (parts.length % 2));
  return parts.map((part, i) => (i >= paired ? "`" + part : i % 2 ? el("code", {}, part) : part));
}

/** A number of a report: what JSON cannot hold is written as text. */
function number(value) {
  if (value === null || value === undefined) return null;
  if (typeof value === "number") return value;
  return { inf: Infinity, "-inf": -Infinity }[value] ?? NaN;
}

const exponent = (value, digits) => value.toExponential(digits).replace("e+", "e");

/** `1.2e-6`; `0`, `∞` and `NaN` as such, a dash for one that there is not. */
function show(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "∞";
  return value === 0 ? "0" : exponent(value, digits);
}

/** A multiple: plain as long as that is short. */
function multiple(value) {
  if (value === null || !Number.isFinite(value) || value === 0) return show(value, 1);
  if (value >= 0.01 && value < 10) return value.toPrecision(2);
  return value >= 10 && value < 1e4 ? String(Math.round(value)) : exponent(value, 1);
}

const SYMBOLS = { pass: "✓", fault: "✗", invalid: "⚠", unmeasured: "?" };

/** The outcome as a symbol and a word. */
const badge = (outcome) =>
  el("span", { class: `outcome ${outcome}` }, `${SYMBOLS[outcome] ?? "?"} ${clean(outcome).toUpperCase()}`);

/** A colour of the style sheet, as it is now. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const DARK = matchMedia("(prefers-color-scheme: dark)");

/** Paper is light whatever the screen is: `data-print` stands on the page while it is printed. */
const dark = () => DARK.matches && !("print" in document.documentElement.dataset);

/** A choice among values with its label. */
function select(label, options, value, change) {
  const list = el("select", { onchange: (event) => change(event.target.value) });
  for (const [key, text] of options) list.append(el("option", { value: key, selected: key === value }, text));
  return el("label", {}, `${label} `, list);
}

/** The head of a table, a column for each name. */
const headRow = (names) =>
  el(
    "thead",
    {},
    el(
      "tr",
      {},
      names.map((name) => el("th", { scope: "col" }, name)),
    ),
  );
