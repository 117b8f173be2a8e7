// A report as the page uses it.

const OUTPUT = "layer output";

/** Rows of numbers to points with names. */
function read(raw, components) {
  const plain = new Set(["step", "layer", "shape", "state", "nonfinite", "histogram", "elements"]);
  const shared = new Set(["point", "prompt", "family", "note", "replay"]);
  const lists = new Set(["quantiles", "tokens", "engine_tokens"]);
  const value = (name, cell) => {
    if (plain.has(name)) return cell;
    if (shared.has(name)) return cell === null ? null : raw.texts[cell];
    if (lists.has(name)) return (cell ?? []).map(number);
    if (name === "at" || name === "engine_at")
      return cell && { index: cell[0], reference: number(cell[1]), candidate: number(cell[2]) };
    if (name === "floors") return cell.map(([dtype, error]) => [raw.texts[dtype], number(error)]);
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
  // Beside those of each point's worst prompt, which stand at the point itself.
  const own = (cell) => ({
    tokens: (cell?.[0] ?? []).map(number),
    engine_tokens: (cell?.[1] ?? []).map(number),
  });
  return {
    ...raw,
    points,
    byPrompt: new Map((raw.by_prompt ?? []).map(([prompt, cells]) => [prompt, cells.map(own)])),
    names: new Set(points.map((p) => p.point)),
    places: places(points, raw.layer_types),
    components: components[raw.architecture] ?? [],
  };
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
  const before = [],
    after = [];
  const layers = layerTypes.map((type, layer) => ({
    label: String(layer),
    layer,
    type: type.replaceAll("_", " "),
    points: [],
  }));
  const names = { embed_tokens: "embed", lm_head: "logits" };
  let inside = false;
  for (const point of points) {
    if (point.layer !== null) {
      inside = true;
      while (layers.length <= point.layer)
        layers.push({ label: String(layers.length), layer: layers.length, type: "", points: [] });
      layers[point.layer].points.push(point);
      continue;
    }
    const known = [...before, ...after].find((place) => place.points[0].point === point.point);
    if (known) {
      known.points.push(point);
      continue;
    }
    const last = point.point.split(".").pop();
    const late = inside || last === "norm" || last === "lm_head";
    (late ? after : before).push({
      label: names[last] ?? last,
      layer: null,
      type: "",
      late,
      points: [point],
    });
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

const STATES = {
  born: "an error is born here",
  inherited: "inherits an error from upstream",
  absorbed: "an error from upstream is absorbed here",
  explained: "explained",
  mismatched: "mismatched",
  unmeasured: "unmeasured",
};
