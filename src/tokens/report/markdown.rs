//! `report.md`, and what the terminal shows.

use super::{DistributionSummary, LayerLink, TokenReport, WorstPrompt};
use crate::report::{
    Outcome, check_status, clean, code, figure, maybe, number, plain, prose, self_check, word, wrap,
};
use crate::tokens::{Share, Summary};

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
    let mut lines = vec![
        format!(
            "# {}: tokens of {} against {}",
            word(report.outcome),
            plain(&report.engine),
            plain(&report.reference.engine)
        ),
        String::new(),
        format!("**{}**", prose(&report.headline)),
        String::new(),
        format!("{} prompts, {} tokens each.", report.prompts.len(), report.setting.tokens),
        String::new(),
        format!("| gate `{}` | value | limit | |", report.gate.profile),
        "|---|---|---|---|".to_owned(),
    ];
    for c in &report.gate.criteria {
        lines.push(format!(
            "| {} | {} | {} | {} |",
            plain(&c.name),
            value(c.value),
            c.limit,
            verdict(c.pass)
        ));
    }
    lines.extend([
        String::new(),
        "**Greedy**".to_owned(),
        String::new(),
        "| | |".to_owned(),
        "|---|---|".to_owned(),
    ]);
    for rate in &report.greedy.matches {
        lines.push(format!("| equal tokens, first {} | {} |", rate.first, tokens(rate.share)));
    }
    lines.push(format!("| prompts equal throughout | {} |", percent(report.greedy.exact)));
    let parted = report.greedy.exact.count - report.greedy.exact.of;
    if parted > 0 {
        let ties = report.greedy.ties.map_or_else(|| "UNMEASURED".to_owned(), |n| format!("{n} of {parted}"));
        lines.push(format!("| divergences at a tie of the reference | {ties} |"));
    }
    lines.extend([String::new(), "![Where the greedy runs part](divergence.svg)".to_owned(), String::new()]);
    lines.extend(distribution(&report.distribution, report));
    lines.extend([String::new(), "![KL divergence by position](kl.svg)".to_owned()]);
    if let Some(choices) = &report.choices {
        lines.extend([
            String::new(),
            format!("**Choice questions** ({}; {} examples before each; template of lm-evaluation-harness's `mmlu`)", plain(&choices.source), choices.shots),
            String::new(),
        ]);
        lines.extend(choices.note.iter().flat_map(|note| [format!("Note: {}.", plain(note)), String::new()]));
        lines.extend([
            "| | |".to_owned(),
            "|---|---|".to_owned(),
            format!("| right, reference | {} |", percent(choices.reference)),
            format!("| right, candidate | {} |", percent(choices.candidate)),
            format!("| lost, won, other letter | {}, {}, {} |", choices.lost, choices.won, choices.changed),
            format!("| McNemar's exact test | p = {:.3} |", choices.p_value),
        ]);
    }
    if !report.worst.is_empty() {
        lines.extend([String::new(), "## Worst prompts".to_owned()]);
        report.worst.iter().for_each(|prompt| lines.extend(worst(prompt)));
    }
    lines.extend(prompts(report));
    lines.extend([
        String::new(),
        "<details><summary>Provenance</summary>".to_owned(),
        String::new(),
        format!("- reference: {} {}, {}", plain(&report.reference.engine), plain(&report.reference.engine_version), plain(&report.reference.dtype)),
        format!("- candidate: {} {}, {}, {}", plain(&report.candidate.engine), plain(&report.candidate.engine_version), plain(&report.candidate.path), plain(&report.candidate.dtype)),
        format!("- self-check: {}", prose(&self_check(&report.self_check))),
        format!("- greedy decoding without a repetition penalty on both sides; sampling at temperature {}, seed {}", report.setting.temperature, report.setting.seed),
        format!("- layerdiff {}: {}", plain(&report.layerdiff), code(&report.command.join(" "))),
        String::new(),
        "</details>".to_owned(),
    ]);
    lines.join("\n") + "\n"
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

fn worst(prompt: &WorstPrompt) -> Vec<String> {
    let quoted = |text: &str| code(&text.replace('\n', "⏎"));
    let mut lines = vec![String::new()];
    match &prompt.greedy.divergence {
        None => lines.push(format!("### {}: equal throughout", code(&prompt.id))),
        Some(d) => {
            let kind = match d.is_tie() {
                Some(true) => "a tie of the reference",
                Some(false) => "no tie",
                None => "floor UNMEASURED",
            };
            lines.push(format!("### {}: parts at token {} ({kind})", code(&prompt.id), d.position));
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
    lines.extend(prompt.layers.iter().flat_map(layers));
    lines
}

fn layers(link: &LayerLink) -> Vec<String> {
    let cause = match (&link.first_fault, &link.diagnosis) {
        (Some(point), Some(name)) => format!(" It starts at {}: {}.", code(point), prose(name)),
        (Some(point), None) => format!(" It starts at {}.", code(point)),
        (None, _) if link.outcome != Outcome::Pass => " Nothing is said of the components.".to_owned(),
        (None, _) => {
            " No component is at fault: what differs is rounding, or the price of quantization.".to_owned()
        }
    };
    let mut lines = vec![
        String::new(),
        format!(
            "The layers at this token (rests on {}): {}.{cause}",
            plain(&link.rests_on),
            prose(&link.headline)
        ),
        String::new(),
        "| layer's output | total C−T | quantization Q−T | engine C−Q |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    lines.extend(link.curve.iter().map(|e| {
        format!(
            "| {} | {} | {} | {} |",
            code(&e.point),
            maybe(e.total),
            maybe(e.quantization),
            maybe(e.engine)
        )
    }));
    lines
}

fn prompts(report: &TokenReport) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!("<details><summary>All {} prompts</summary>", report.prompts.len()),
        String::new(),
        "| prompt | tokens | parts at | mean KL | largest KL |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(report.prompts.iter().map(|p| {
        let at = p.divergence.map_or_else(|| "never".to_owned(), |d| d.to_string());
        format!("| {} | {} | {at} | {} | {} |", code(&p.id), p.tokens, number(p.mean_kl), number(p.max_kl))
    }));
    lines.extend([String::new(), "</details>".to_owned()]);
    lines
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
