//! What a run prints for a person.

mod bar;
mod set;

use super::replays;
use super::stops::{self, Stop, kinds, stops};
use super::text::{
    arms, clean, coverage, ignored_adapter, maybe, multiple, number, outcomes, ratios_of, runs, self_check,
    short_headline, sides, tail, warnings, word, wrap,
};
use super::{Outcome, Report};
use crate::number::count;
use bar::Bar;
use console::{Style, measure_text_width};
pub use set::terminal_set;

/// Narrower than this the table cannot be read.
const NARROWEST: usize = 60;
/// Wider lines are harder to read, not easier.
pub(super) const WIDEST: usize = 110;
/// More layers than these are abridged: the verdict should still be on the screen.
const ROWS: usize = 40;
/// Lines of reasoning.
const REASONS: usize = 14;
/// Columns that do not depend on the width: mark, number, type, three numbers, spaces.
const FIXED: usize = 37;

/// Renders the report in lines of at most `width` columns; 60 if that is less.
///
/// Colour only repeats what words and signs say.
pub fn terminal(report: &Report, colour: bool, width: usize) -> String {
    let page = Page { report, colour, width: width.clamp(NARROWEST, WIDEST) };
    let mut lines = page.verdict();
    lines.push(String::new());
    lines.extend(page.table());
    lines.push(String::new());
    lines.extend(page.facts());
    lines.join("\n") + "\n"
}

/// The error of each layer as a bar, in lines of at most `width` columns without colour.
pub(super) fn curve(report: &Report, width: usize) -> Vec<String> {
    Page { report, colour: false, width: width.clamp(NARROWEST, WIDEST) }.table()
}

struct Page<'a> {
    report: &'a Report,
    colour: bool,
    width: usize,
}

impl Page<'_> {
    fn paint(&self, style: &Style, text: &str) -> String {
        style.clone().force_styling(self.colour).apply_to(text).to_string()
    }

    /// `name: text`, wrapped and indented below itself.
    fn item(&self, name: &str, text: &str) -> Vec<String> {
        let name = format!("{name:<11}");
        wrap(&clean(text), self.width - 11)
            .into_iter()
            .enumerate()
            .map(|(i, line)| if i == 0 { format!("{name}{line}") } else { format!("{:11}{line}", "") })
            .collect()
    }

    fn verdict(&self) -> Vec<String> {
        let report = self.report;
        let style = match report.outcome {
            Outcome::Pass => Style::new().green().bold(),
            Outcome::Fault => Style::new().red().bold(),
            Outcome::Invalid | Outcome::Unmeasured => Style::new().yellow().bold(),
        };
        let word = word(report.outcome);
        let against = clean(&format!("  {}", sides(report)));
        let mut lines = vec![self.paint(&style, word) + &tail(&against, self.width - word.len())];
        if let Some(note) = ignored_adapter(report) {
            let note = wrap(&clean(note), self.width);
            lines.extend(note.iter().map(|line| self.paint(&Style::new().yellow().bold(), line)));
        }
        lines.extend(wrap(&clean(short_headline(report)), self.width));
        let reasons = wrap(&clean(&report.verdict.reasoning.join(" ")), self.width - 2);
        let cut = reasons.len() > REASONS;
        lines.extend(reasons.into_iter().take(REASONS).map(|line| format!("  {line}")));
        lines.extend(cut.then(|| "  … (all of it is in the report)".to_owned()));
        lines
    }

    fn table(&self) -> Vec<String> {
        let (stops, kinds) = (stops(self.report), kinds(self.report));
        let bar = Bar::new(&stops, (self.width - FIXED) / 3);
        let name = self.width - FIXED - bar.width;
        let quantized = self.report.arms.quantization.status == "measured";
        let faint = Style::new().dim();
        let header = format!(
            "  {:>6} {} {:<name$} {:>7} {:>7} {:>7}  {}",
            "layer",
            "T",
            "worst point",
            if quantized { "engine" } else { "error" },
            if quantized { "quant." } else { "output" },
            "floor",
            bar.scale()
        );
        let mut lines = vec![self.paint(&faint, header.trim_end())];
        let mut skipped = 0;
        for (stop, shown) in stops.iter().zip(shown(&stops)) {
            if !shown {
                skipped += 1;
                continue;
            }
            lines.extend(left_out(&mut skipped));
            let born = stop.born().next().is_some();
            let worst = stop.shown();
            let letter = stop.kind.map_or(' ', |k| kinds[k].letter);
            let what = worst.map_or(
                if stop.points.is_empty() { "(not asked for)" } else { "(UNMEASURED)" },
                stops::local,
            );
            let what = tail(&clean(what), name);
            let padding = name - measure_text_width(&what);
            let line = format!(
                "{} {:>6} {letter} {what}{:padding$} {:>7} {:>7} {:>7}  {}",
                if born {
                    '>'
                } else if stop.unmeasured() > 0 {
                    '?'
                } else {
                    ' '
                },
                tail(&clean(&stop.label), 6),
                "",
                maybe(worst.and_then(stops::error)),
                maybe(if quantized {
                    worst.and_then(|p| p.quantization)
                } else {
                    stop.output().and_then(stops::error)
                }),
                maybe(worst.and_then(|p| p.floor)),
                bar.draw(worst.and_then(stops::error), worst.and_then(|p| p.floor)),
            );
            let line = line.trim_end();
            lines.push(if born { self.paint(&Style::new().red(), line) } else { line.to_owned() });
        }
        lines.extend(left_out(&mut skipped));
        let types: Vec<String> = kinds.iter().map(|k| format!("{} = {}", k.letter, k.name)).collect();
        let missing =
            if stops.iter().any(|s| s.unmeasured() > 0) { " ? some points not compared." } else { "" };
        let any_born = stops.iter().any(|s| s.born().next().is_some());
        let born = if any_born {
            " > a fault is born at the point named, which stands there though others after it may err more."
        } else {
            ""
        };
        let key = format!(
            "Relative L2 errors, the largest over prompts and steps{}. T: {}. # the point's, | its floor, ! not finite.{born}{missing}",
            if quantized { ": engine C−Q, price of quantization Q−T" } else { "" },
            types.join(", ")
        );
        lines.extend(wrap(&clean(&key), self.width).iter().map(|line| self.paint(&faint, line)));
        lines
    }

    /// The points where an error is born, each once, with its largest error and ratio and how often.
    fn faults(&self) -> String {
        let points = stops::faulty_points(self.report);
        let than = ratios_of(self.report);
        let list = points.iter().take(5).map(|point| {
            let often = match point.often {
                1 => String::new(),
                n => format!("; {n} prompts and steps"),
            };
            let (error, ratio) = (number(point.rel_l2), multiple(point.worst.ratio));
            format!("{} (largest error {error}, ratio {ratio} × {than}{often})", point.worst.point)
        });
        let mut list: Vec<String> = list.collect();
        if points.len() > list.len() {
            list.push(count(points.len() - list.len(), "more point"));
        }
        list.join("; ")
    }

    fn facts(&self) -> Vec<String> {
        let report = self.report;
        let mut lines = Vec::new();
        if let Some(runs) = runs(report) {
            lines.extend(self.item("runs", &runs));
        }
        if report.prompts.len() > 1 {
            lines.extend(self.item("prompts", &format!("{}: {}", report.prompts.len(), outcomes(report))));
        }
        if report.faults.len() > 1 {
            lines.extend(self.item("faults", &self.faults()));
        }
        lines.extend(self.item("coverage", &coverage(report.coverage)));
        if let Some(line) = replays::line(&report.replay_unmeasured) {
            lines.extend(self.item("replay", &line));
        }
        lines.extend(self.item("self-check", &self_check(&report.self_check)));
        lines.extend(self.item("floor", &format!("{}: {}", report.floor.kind, report.floor.description)));
        lines.extend(self.item("arms", &arms(report)));
        let warnings = warnings(report);
        for warning in warnings.iter().take(5) {
            lines.extend(self.item("warning", warning));
        }
        if warnings.len() > 5 {
            lines.extend(self.item("warning", &format!("{} more in the report", warnings.len() - 5)));
        }
        lines
    }
}

fn left_out(skipped: &mut usize) -> Option<String> {
    let n = std::mem::take(skipped);
    (n > 0).then(|| format!("{:>8}   {n} with smaller errors", "…"))
}

/// Which stops get a line: all, or of very many those with faults, the largest errors and the ends.
fn shown(stops: &[Stop]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..stops.len()).collect();
    let importance = |i: usize| {
        let ends = i < 4 || i + 4 >= stops.len();
        let error = stops[i].worst().and_then(stops::error).unwrap_or(-1.0);
        (stops[i].born().next().is_some(), ends, error)
    };
    order.sort_by(|a, b| {
        let (a, b) = (importance(*a), importance(*b));
        (b.0, b.1).cmp(&(a.0, a.1)).then(b.2.total_cmp(&a.2))
    });
    let mut shown = vec![false; stops.len()];
    order.iter().take(ROWS).for_each(|i| shown[*i] = true);
    shown
}

#[cfg(test)]
mod tests;
