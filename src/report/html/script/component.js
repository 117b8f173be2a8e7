// What the architecture's description says about a point's component.

/** The component at a point, with the layer's number put in; null where the description says nothing. */
function componentOf(report, point) {
  const part = /^(.*)\.(base_layer|lora_A|lora_B)$/.exec(point.point);
  const own = described(report, point.layer, part ? part[1] : point.point);
  if (!own) return null;
  if (part) return adapterPart(own, part[1], part[2]);
  if (!report.names.has(`${point.point}.base_layer`)) return own;
  return {
    ...own,
    op: "add_scaled",
    formula: "base_layer + scale · lora_B",
    params: [],
    inputs: [`${point.point}.base_layer`, `${point.point}.lora_B`],
  };
}

function described(report, layer, name) {
  const type = layer === null ? null : report.layer_types[layer];
  const here = (text) => text.replace("{i}", layer);
  const fits = (component) => !component.layer_type || component.layer_type === type;
  const found = report.components.find((component) => here(component.point) === name && fits(component));
  if (!found) return null;
  const outputOf = (number) => (number < 0 ? report.components[0].point : `model.layers.${number}`);
  const inputs = found.inputs.map((input) => {
    if (input === "@layer_input") return outputOf(layer - 1);
    if (input === "@last_layer") return outputOf(report.layer_types.length - 1);
    return here(input);
  });
  // An input that the layer's type does not have is left out, as everywhere.
  const exists = (input) =>
    report.names.has(input) || report.components.some((c) => here(c.point) === input && fits(c));
  return {
    ...found,
    inputs: inputs.filter(exists),
    carried: found.carried.map(here),
    params: found.params.map(here),
  };
}

/** One of the points that an adapter adds to a linear. */
function adapterPart(linear, name, part) {
  if (part === "base_layer") return linear;
  const weight = { params: [`${name}.${part}.weight`] };
  return part === "lora_A"
    ? { ...linear, ...weight, formula: "x Aᵀ", shape: [...linear.shape.slice(0, -1), "rank"] }
    : { ...linear, ...weight, formula: "a Bᵀ, not scaled", inputs: [`${name}.lora_A`] };
}
