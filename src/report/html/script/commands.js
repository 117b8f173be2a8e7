// Commands that reproduce a component's numbers.

/** An argument as a shell takes it: names from files must not run anything. */
const quoted = (text) => (/^[\w.,:/=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

// Those that stand alone; all others take a value.
const SWITCHES = new Set(["--json", "--quiet", "-q", "--other-weights"]);
// What a reader who looks for one point has no use for, or chooses anew.
const LEFT_OUT = new Set(["--out", "--prompt", "--engine", "--json", "--quiet", "-q"]);

/** A command line in its parts: `{verb, places, flags}`. */
function parsed(command) {
  const [, verb, ...rest] = command;
  const places = [],
    flags = [];
  for (let i = 0; i < rest.length; i++) {
    const [name, ...value] = rest[i].split("=");
    if (!rest[i].startsWith("-")) places.push(rest[i]);
    else if (SWITCHES.has(name)) flags.push([name]);
    else flags.push([name, value.length ? value.join("=") : (rest[++i] ?? "")]);
  }
  return { verb, places, flags };
}

/** What to type to see a point's numbers again, with a word on each. */
function commandsFor(report, point) {
  const { verb, places, flags } = parsed(report.command);
  const value = (name) => flags.find((flag) => flag[0] === name)?.[1];
  const keep = (names) => flags.filter((flag) => names.includes(flag[0])).flat();
  const line = (...parts) => ["layerdiff", ...parts].map(quoted).join(" ");
  const rest = flags.filter(([name]) => !LEFT_OUT.has(name)).flat();
  const inspect = (trace) =>
    line("inspect", trace, point.point, "--prompt", point.prompt, "--step", String(point.step));
  if (verb === "compare" && places.length >= 2) {
    return [
      [
        "compare the traces again, this prompt only",
        line("compare", ...places, ...rest, "--prompt", point.prompt, "--out", "again"),
      ],
      ["the point in the candidate's trace", inspect(places[1])],
      ["and in the reference's", inspect(places[0])],
    ];
  }
  if (verb !== "run") return [["the command of this report", line(...report.command.slice(1))]];
  const engine = ["--engine", report.engine];
  const again = [
    "the run again, this engine and prompt only",
    line("run", ...rest, ...engine, "--prompt", point.prompt, "--out", "again"),
  ];
  const reference = value("--reference");
  // A reference that is a trace stands for its prompts too.
  const trace =
    reference && !/^(torch|self|lattice-[^/]*)$/.test(reference) && !value("--prompts")
      ? ["--prompts", reference]
      : [];
  // To `capture` an engine's own weights are its model.
  const weights = value("--weights");
  const model = weights ? ["--model", weights] : keep(["--model"]);
  const capture = line(
    "capture",
    ...engine,
    ...model,
    ...keep(["--path", "--prompts", "--steps", "--lora"]),
    ...trace,
    "--prompt",
    point.prompt,
    "--out",
    "candidate",
  );
  return [again, ["the point in a trace of the engine", `${capture} &&\n${inspect("candidate")}`]];
}

/** The commands with a button for each that copies it. */
function commandList(report, point) {
  return commandsFor(report, point).map(([what, text]) => {
    const shown = el("pre", {}, clean(text).replace(/&& layerdiff/, "&&\nlayerdiff"));
    const copy = el(
      "button",
      {
        type: "button",
        class: "copy",
        "aria-label": `Copy: ${what}`,
        onclick: () => {
          getSelection().selectAllChildren(shown);
          navigator.clipboard?.writeText(shown.textContent).then(
            () => {
              copy.textContent = "Copied";
            },
            () => {},
          );
        },
      },
      "Copy",
    );
    return el("div", {}, el("div", { class: "note" }, `${what} `, copy), shown);
  });
}
