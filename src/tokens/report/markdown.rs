//! `report.md`, and what the terminal shows.

use super::{Bin, DistributionSummary, LayerLink, TokenReport, WorstPrompt};
use crate::report::{
    Outcome, Room, Sections, check_status, clean, code, command, cut, figure, fitted, folded, maybe, named,
    number, plain, prose, self_check, strong, word, wrap,
};
use crate::tokens::{Choices, Criterion, Share, Summary};

/// A share of tokens. They are no independent trials: behind a divergence all of a prompt's tokens may differ.
fn tokens(share: Share) -> String {
    if share.count == 0 {
        return "–".to_owned();
    }
    format!("{:.2} % ({} of {})", 100.0 * share.value(), share.of, share.count)
}

/// A share of prompts or questions, with its interval.
fn percent(share: Share) -> String {
    if share.count == 0 {
        return "–".to_owned();
    }
    format!(
        "{:.1} % ({} of {}; 95 %: {:.1}–{:.1})",
        100.0 * share.value(),
        share.of,
        share.count,
        100.0 * share.low,
        100.0 * share.high
    )
}

fn value(value: Option<f64>) -> String {
    value.map_or_else(|| "UNMEASURED".to_owned(), figure)
}

fn verdict(pass: Option<bool>) -> &'static str {
    match pass {
        Some(true) => "pass",
        Some(false) => "**FAIL**",
        None => "UNMEASURED",
    }
}

/// Renders the page.
pub fn tokens_markdown(report: &TokenReport) -> String {
    sections(report, None).concat().join("\n") + "\n"
}

/// Renders the page for GitHub's comments and summaries, in fewer than 65,000 bytes: no picture lies beside it.
pub fn tokens_github(report: &TokenReport) -> String {
    fitted(|room| sections(report, Some(room)))
}

/// The page in its parts; of limited size where there is a `room`, and then without pictures.
fn sections(report: &TokenReport, room: Option<Room>) -> Sections {
    let chars = room.map_or(usize::MAX, |room| room.chars);
    let rows = room.map_or(usize::MAX, |room| room.rows);
    let mut head = vec![
        format!(
            "# {}: tokens of {} against {}",
            word(report.outcome),
            plain(&cut(&report.engine, chars)),
            plain(&cut(&report.reference.engine, chars))
        ),
        String::new(),
        strong(&cut(&report.headline, chars)),
        String::new(),
        format!("{} prompts, {} tokens each.", report.prompts.len(), report.setting.tokens),
        String::new(),
    ];
    head.extend(gate(report));
    let mut greedy = greedy(report);
    greedy.extend(if room.is_none() {
        vec![String::new(), "![Where the greedy runs part](divergence.svg)".to_owned()]
    } else {
        bars(report)
    });
    let mut distribution = [vec![String::new()], distribution(&report.distribution, report)].concat();
    if room.is_none() {
        distribution.extend([String::new(), "![KL divergence by position](kl.svg)".to_owned()]);
    }
    let mut sections = vec![head, greedy, distribution];
    sections.extend(report.choices.iter().map(|choices| questions(choices, chars)));
    if !report.worst.is_empty() {
        sections.push(vec![String::new(), "## Worst prompts".to_owned()]);
        // Each has a table of its own.
        let most = room.map_or(usize::MAX, |room| room.rows / 8 + 1);
        sections.extend(report.worst.iter().take(most).map(|prompt| worst(prompt, chars)));
        sections.extend((report.worst.len() > most).then(|| left_out(report.worst.len() - most)));
    }
    sections.push(prompts(report, rows));
    sections.push(provenance(report, chars));
    sections
}

fn left_out(n: usize) -> Vec<String> {
    vec![String::new(), format!("… {n} more, in report.json")]
}

/// Signs of a criterion's name.
const NAME: usize = 120;

fn gate(report: &TokenReport) -> Vec<String> {
    let said = |text: &str| plain(&cut(text, NAME));
    let row = |c: &Criterion| {
        format!("| {} | {} | {} | {} |", said(&c.name), value(c.value), said(&c.limit), verdict(c.pass))
    };
    let head = [
        format!("| gate {} | value | limit | |", named(&report.gate.profile)),
        "|---|---|---|---|".to_owned(),
    ];
    head.into_iter().chain(report.gate.criteria.iter().map(row)).collect()
}

fn greedy(report: &TokenReport) -> Vec<String> {
    let head = ["", "**Greedy**", "", "| | |", "|---|---|"].map(str::to_owned);
    let mut lines = head.to_vec();
    for rate in &report.greedy.matches {
        lines.push(format!("| equal tokens, first {} | {} |", rate.first, tokens(rate.share)));
    }
    lines.push(format!("| prompts equal throughout | {} |", percent(report.greedy.exact)));
    let parted = report.greedy.exact.count - report.greedy.exact.of;
    if parted > 0 {
        let ties = report.greedy.ties.map_or_else(|| "UNMEASURED".to_owned(), |n| format!("{n} of {parted}"));
        lines.push(format!("| divergences at a tie of the reference | {ties} |"));
    }
    lines
}

/// Where the greedy runs part, as bars of text.
fn bars(report: &TokenReport) -> Vec<String> {
    const WIDTH: usize = 40;
    let bins = &report.greedy.histogram;
    let never = ("never".to_owned(), report.greedy.exact.of);
    let name = |bin: &Bin| match bin.to - bin.from {
        1 => bin.from.to_string(),
        _ => format!("{}–{}", bin.from, bin.to - 1),
    };
    let all: Vec<(String, usize)> = bins.iter().map(|bin| (name(bin), bin.prompts)).chain([never]).collect();
    let most = all.iter().map(|(_, n)| *n).max().unwrap_or(0).max(1);
    let bar = |(name, n): &(String, usize)| {
        format!("{name:>9} {n:>5}  {}", "#".repeat((n * WIDTH).div_ceil(most))).trim_end().to_owned()
    };
    let mut lines = vec![String::new(), "```text".to_owned(), " parts at prompts".to_owned()];
    lines.extend(all.iter().map(bar));
    lines.push("```".to_owned());
    lines
}

fn questions(choices: &Choices, chars: usize) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!(
            "**Choice questions** ({}; {} examples before each; template of lm-evaluation-harness's `mmlu`)",
            plain(&cut(&choices.source, chars)),
            choices.shots
        ),
        String::new(),
    ];
    let note = choices.note.iter();
    lines.extend(note.flat_map(|note| [format!("Note: {}.", plain(&cut(note, chars))), String::new()]));
    lines.extend([
        "| | |".to_owned(),
        "|---|---|".to_owned(),
        format!("| right, reference | {} |", percent(choices.reference)),
        format!("| right, candidate | {} |", percent(choices.candidate)),
        format!("| lost, won, other letter | {}, {}, {} |", choices.lost, choices.won, choices.changed),
        format!("| McNemar's exact test | p = {:.3} |", choices.p_value),
    ]);
    lines
}

fn provenance(report: &TokenReport, chars: usize) -> Vec<String> {
    let said = |text: &str| plain(&cut(text, chars));
    let (r, c) = (&report.reference, &report.candidate);
    let lines = vec![
        format!("- reference: {} {}, {}", said(&r.engine), said(&r.engine_version), said(&r.dtype)),
        format!(
            "- candidate: {} {}, {}, {}",
            said(&c.engine),
            said(&c.engine_version),
            said(&c.path),
            said(&c.dtype)
        ),
        format!("- self-check: {}", prose(&cut(&self_check(&report.self_check), chars))),
        format!(
            "- greedy decoding without a repetition penalty on both sides; sampling at temperature {}, seed {}",
            report.setting.temperature, report.setting.seed
        ),
        command(&report.layerdiff, &report.command, chars),
    ];
    folded("Provenance", false, lines)
}

fn row(name: &str, summary: Option<Summary>) -> String {
    match summary {
        None => format!("| {name} | UNMEASURED | | | | |"),
        Some(s) => {
            let figures = [s.mean, s.median, s.p95, s.p99, s.max].map(number);
            format!("| {name} | {} |", figures.join(" | "))
        }
    }
}

fn distribution(d: &DistributionSummary, report: &TokenReport) -> Vec<String> {
    let t = report.setting.temperature;
    let sampling = &report.sampling;
    vec![
        "**Distributions**, after the reference's tokens, over the whole vocabulary".to_owned(),
        String::new(),
        "| | mean | median | p95 | p99 | max |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
        row("KL, nats", d.kl),
        row("KL of PyTorch in float64: the floor", d.kl_floor),
        row("total variation", d.total_variation),
        row("Δp of the reference's token", d.delta_p),
        row(&format!("KL at temperature {t}"), d.tempered_kl),
        row(&format!("total variation at temperature {t}"), d.tempered_total_variation),
        String::new(),
        "| | |".to_owned(),
        "|---|---|".to_owned(),
        format!("| same likeliest token | {} |", tokens(d.top1)),
        format!("| of the five likeliest the same | {:.2} % |", 100.0 * d.top5),
        format!(
            "| perplexity of the reference's tokens: reference, candidate | {:.5}, {:.5} |",
            d.perplexity_reference, d.perplexity_candidate
        ),
        format!(
            "| same draw with the same random numbers, temperature {t} | {} |",
            tokens(sampling.agreement)
        ),
        format!(
            "| what the total variation allows | {:.2} %–{:.2} % |",
            100.0 * sampling.expected[0],
            100.0 * sampling.expected[1]
        ),
        format!("| sampled runs equal throughout | {} |", percent(sampling.equal_runs)),
        format!("| tokens before sampled runs part, mean | {:.1} |", sampling.mean_common_run),
    ]
}

fn worst(prompt: &WorstPrompt, chars: usize) -> Vec<String> {
    let quoted = |text: &str| code(&cut(&text.replace('\n', "⏎"), chars));
    let mut lines = vec![String::new()];
    match &prompt.greedy.divergence {
        None => lines.push(format!("### {}: equal throughout", named(&prompt.id))),
        Some(d) => {
            let kind = match d.is_tie() {
                Some(true) => "a tie of the reference",
                Some(false) => "no tie",
                None => "floor UNMEASURED",
            };
            lines.push(format!("### {}: parts at token {} ({kind})", named(&prompt.id), d.position));
            lines.extend([
                String::new(),
                "| | |".to_owned(),
                "|---|---|".to_owned(),
                format!("| prompt | …{} |", quoted(&prompt.prompt)),
                format!("| both | {} |", quoted(&prompt.common)),
                format!("| reference | **▸** {} |", quoted(&prompt.reference)),
                format!("| candidate | **▸** {} |", quoted(&prompt.candidate)),
                format!(
                    "| margin, first to second (ln p) | reference {}, candidate {} |",
                    number(d.margin()),
                    number(d.candidate_margin())
                ),
            ]);
            for (side, top) in ["reference", "candidate"].iter().zip(&prompt.top) {
                let five: Vec<String> = top
                    .iter()
                    .map(|(text, p)| format!("{} {:.1} %", quoted(text), 100.0 * p.exp()))
                    .collect();
                lines.push(format!("| five likeliest, {side} | {} |", five.join(", ")));
            }
        }
    }
    lines.extend(prompt.layers.iter().flat_map(|link| layers(link, chars)));
    lines
}

fn layers(link: &LayerLink, chars: usize) -> Vec<String> {
    let cause = match (&link.first_fault, &link.diagnosis) {
        (Some(point), Some(name)) => {
            format!(" It starts at {}: {}.", named(point), prose(&cut(name, chars)))
        }
        (Some(point), None) => format!(" It starts at {}.", named(point)),
        (None, _) if link.outcome != Outcome::Pass => " Nothing is said of the components.".to_owned(),
        (None, _) => {
            " No component is at fault: what differs is rounding, or the price of quantization.".to_owned()
        }
    };
    let mut lines = vec![
        String::new(),
        format!(
            "The layers at this token (rests on {}): {}.{cause}",
            plain(&cut(&link.rests_on, chars)),
            prose(&cut(&link.headline, chars))
        ),
        String::new(),
        "| layer's output | total C−T | quantization Q−T | engine C−Q |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    lines.extend(link.curve.iter().map(|e| {
        format!(
            "| {} | {} | {} | {} |",
            named(&e.point),
            maybe(e.total),
            maybe(e.quantization),
            maybe(e.engine)
        )
    }));
    lines
}

/// The prompts, of many the first that part and those with the largest divergence.
fn prompts(report: &TokenReport, most: usize) -> Vec<String> {
    let mut order: Vec<usize> = (0..report.prompts.len()).collect();
    let badness = |i: &usize| {
        let p = &report.prompts[*i];
        (p.divergence.unwrap_or(usize::MAX), std::cmp::Reverse(p.mean_kl.to_bits()))
    };
    if order.len() > most {
        order.sort_by_key(badness);
        order.truncate(most);
        order.sort_unstable();
    }
    let mut lines = vec![
        "| prompt | tokens | parts at | mean KL | largest KL |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(order.iter().map(|i| &report.prompts[*i]).map(|p| {
        let at = p.divergence.map_or_else(|| "never".to_owned(), |d| d.to_string());
        format!("| {} | {} | {at} | {} | {} |", named(&p.id), p.tokens, number(p.mean_kl), number(p.max_kl))
    }));
    let rest = report.prompts.len() - order.len();
    lines.extend(if rest > 0 { left_out(rest) } else { Vec::new() });
    folded(&format!("All {} prompts", report.prompts.len()), false, lines)
}

/// Renders the summary in lines of at most `width` columns.
pub fn tokens_terminal(report: &TokenReport, width: usize) -> String {
    let width = width.clamp(60, 110);
    let mut lines = vec![format!(
        "{}  tokens of {} against {}",
        word(report.outcome),
        clean(&report.engine),
        clean(&report.reference.engine)
    )];
    lines.extend(wrap(&clean(&report.headline), width));
    lines.push(String::new());
    for c in &report.gate.criteria {
        lines.push(format!(
            "{:<34} {:>10}  {:<14} {}",
            clean(&c.name),
            value(c.value),
            c.limit,
            verdict(c.pass).trim_matches('*')
        ));
    }
    lines.push(String::new());
    for rate in &report.greedy.matches {
        lines.push(format!("{:<34} {}", format!("equal tokens, first {}", rate.first), tokens(rate.share)));
    }
    lines.push(format!("{:<34} {}", "prompts equal throughout", percent(report.greedy.exact)));
    if let Some(kl) = report.distribution.kl {
        lines.push(format!(
            "{:<34} mean {}, p99 {}, max {}",
            "KL, nats",
            number(kl.mean),
            number(kl.p99),
            number(kl.max)
        ));
    }
    lines.push(format!("{:<34} {}", "same likeliest token", tokens(report.distribution.top1)));
    if let Some(c) = &report.choices {
        lines.push(format!(
            "{:<34} {} against {}; {} lost, {} won",
            "choice questions right",
            percent(c.candidate),
            c.reference.of,
            c.lost,
            c.won
        ));
        lines.extend(c.note.iter().flat_map(|note| wrap(&clean(&format!("note: {note}")), width)));
    }
    for prompt in &report.worst {
        if let (Some(d), Some(layers)) = (&prompt.greedy.divergence, &prompt.layers) {
            let at = match (&layers.first_fault, layers.outcome) {
                (Some(point), _) => format!("starts at {point}"),
                (None, Outcome::Pass) => "no component is at fault".to_owned(),
                (None, _) => layers.headline.clone(),
            };
            lines.extend(wrap(&clean(&format!("{} parts at token {}: {at}", prompt.id, d.position)), width));
        }
    }
    lines.push(format!("self-check {}", check_status(&report.self_check)));
    lines.join("\n") + "\n"
}
