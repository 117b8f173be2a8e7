// A report as the page uses it.

const OUTPUT = "layer output";

/** Rows of numbers to points with names. */
function read(raw, components) {
  const plain = new Set(["point", "step", "prompt", "layer", "family", "shape", "state", "note", "replay", "nonfinite", "histogram", "elements"]);
  const lists = new Set(["quantiles", "tokens", "engine_tokens"]);
  const value = (name, cell) => {
    if (plain.has(name)) return cell;
    if (lists.has(name)) return (cell ?? []).map(number);
    if (name === "at" || name === "engine_at") return cell && { index: cell[0], reference: number(cell[1]), candidate: number(cell[2]) };
    if (name === "floors") return Object.entries(cell ?? {}).map(([dtype, error]) => [dtype, number(error)]);
    return number(cell);
  };
  const points = raw.rows.map((row) => {
    const point = Object.fromEntries(raw.columns.map((name, i) => [name, value(name, row[i])]));
    // Where the candidate is judged against arm Q, `adds` is C−Q; elsewhere Q is T.
    point.armed = point.engine_rel_l2 !== null;
    point.judged = point.armed ? point.engine_rel_l2 : point.rel_l2;
    point.local = localName(point);
    return point;
  });
  return { ...raw, points, places: places(points, raw.layer_types), components: components[raw.architecture] ?? [] };
}

/** The point's name within its layer. */
function localName(point) {
  if (point.layer === null) return point.point.replace(/^model\./, "");
  const prefix = `model.layers.${point.layer}`;
  if (point.point === prefix) return OUTPUT;
  return point.point.startsWith(prefix + ".") ? point.point.slice(prefix.length + 1) : point.point;
}

/** Every layer and every other point, in the order of execution, with their points of all steps. */
function places(points, layerTypes) {
  const before = [], after = [];
  const layers = layerTypes.map((type, layer) => ({ label: String(layer), layer, type: type.replaceAll("_", " "), points: [] }));
  const names = { embed_tokens: "embed", lm_head: "logits" };
  let inside = false;
  for (const point of points) {
    if (point.layer !== null) {
      inside = true;
      while (layers.length <= point.layer) layers.push({ label: String(layers.length), layer: layers.length, type: "", points: [] });
      layers[point.layer].points.push(point);
      continue;
    }
    const known = [...before, ...after].find((place) => place.points[0].point === point.point);
    if (known) { known.points.push(point); continue; }
    const last = point.point.split(".").pop();
    const late = inside || last === "norm" || last === "lm_head";
    (late ? after : before).push({ label: names[last] ?? last, layer: null, type: "", late, points: [point] });
  }
  return [...before, ...layers, ...after];
}

/** The largest by `figure`, the first of equals; NaN is the largest, what is not measured does not count. */
function largest(points, figure) {
  let best = null;
  for (const point of points) {
    const value = figure(point);
    if (value === null) continue;
    const rank = Number.isNaN(value) ? Infinity : value;
    if (best === null || rank > best.rank) best = { point, rank };
  }
  return best?.point ?? null;
}

/** What the architecture says about a point's component; null where it says nothing. */
function componentOf(report, point) {
  const type = point.layer === null ? null : report.layer_types[point.layer];
  const general = point.layer === null ? point.point : point.point.replace(`model.layers.${point.layer}`, "model.layers.{i}");
  const found = report.components.find((c) => c.point === general && (!c.layer_type || c.layer_type === type));
  if (!found) return null;
  const here = (name) => name.replace("{i}", point.layer);
  const outputOf = (layer) => (layer < 0 ? report.components[0].point : `model.layers.${layer}`);
  const known = new Set(report.points.map((p) => p.point));
  const inputs = found.inputs.map((input) => {
    if (input === "@layer_input") return outputOf(point.layer - 1);
    if (input === "@last_layer") return outputOf(report.layer_types.length - 1);
    return here(input);
  });
  // An input that the layer's type does not have is left out, as everywhere.
  const exists = (name) => known.has(name) || report.components.some((c) => here(c.point) === name && (!c.layer_type || c.layer_type === type));
  return { ...found, inputs: inputs.filter(exists), carried: found.carried.map(here), params: found.params.map(here) };
}

const STATES = {
  born: "an error is born here", inherited: "inherits an error from upstream", absorbed: "an error from upstream is absorbed here",
  explained: "explained", mismatched: "mismatched", unmeasured: "unmeasured",
};
