// How the absolute errors of a point's elements are distributed.

function distribution(point) {
  const parts = [];
  if (point.histogram && (point.histogram.zeros || point.histogram.counts.length)) {
    const { from, counts, zeros } = point.histogram;
    const most = Math.max(...counts, 1);
    const bound = (i) => 4 ** (from + i);
    const bars = counts.map((count, i) => {
      const bar = el("i", {
        class: count ? "" : "empty",
        title: `${show(bound(i), 1)} to ${show(bound(i + 1), 1)}: ${count}`,
      });
      bar.style.height = `${(100 * count) / most}%`;
      return bar;
    });
    const label = `${counts.map((count, i) => `${count} from ${show(bound(i), 1)}`).join(", ")}; ${zeros} are 0`;
    if (counts.length)
      parts.push(
        el("div", { class: "bars", role: "img", "aria-label": `Elements by absolute error: ${label}` }, bars),
        el(
          "div",
          { class: "ends" },
          el("span", {}, show(bound(0), 1)),
          el("span", {}, "absolute error, each bar × 4"),
          el("span", {}, show(bound(counts.length), 1)),
        ),
      );
    parts.push(
      el(
        "p",
        { class: "note" },
        `${zeros} of ${counts.reduce((a, b) => a + b, zeros)} finite elements are equal.`,
      ),
    );
  }
  const names = ["median", "90 %", "99 %", "99.9 %", "largest"];
  const values = [...point.quantiles, point.max_abs];
  if (point.quantiles.length)
    parts.push(
      el(
        "table",
        { class: "numbers" },
        el("caption", {}, "Absolute error, below which so many elements stay"),
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            names.map((name) => el("th", { scope: "col" }, name)),
          ),
        ),
        el(
          "tbody",
          {},
          el(
            "tr",
            {},
            values.map((v) => el("td", { class: "number" }, show(v))),
          ),
        ),
      ),
    );
  return parts;
}
