//! What a run of several engines prints.

use super::super::text::{about_faults, clean, compared_with, maybe, ran, share, tail, word, wrap};
use super::super::{EngineResult, Figures, Outcome, ReportSet};
use super::{NARROWEST, WIDEST};
use console::Style;

/// Columns that the numbers and the outcome take.
const FIXED: usize = 62;

/// Renders the results in lines of at most `width` columns; 60 if that is less.
pub fn terminal_set(set: &ReportSet, colour: bool, width: usize) -> String {
    let width = width.clamp(NARROWEST, WIDEST);
    let point = width.saturating_sub(FIXED);
    let with = compared_with(set).map_or_else(String::new, |with| clean(&format!(", compared with {with}")));
    let mut lines = vec![format!("{}  {}{with}", paint(set.outcome, colour), share(set)), String::new()];
    let header = format!(
        "{:<17} {:<10} {:>7} {:>7} {:>7} {:>7}  {}",
        "engine",
        "outcome",
        "total",
        "bf16",
        "quant.",
        "engine",
        if point > 10 { "worst point" } else { "" }
    );
    lines.push(header.trim_end().to_owned());
    for engine in &set.engines {
        lines.push(row(engine, colour, point));
    }
    let key = "Relative L2 errors where the engine adds most (the largest total where that is not known): total C−T, PyTorch in bfloat16 F−T, price of quantization Q−T, engine C−Q; – is UNMEASURED or not needed: an engine's own report says which.";
    lines.extend(wrap(key, width));
    lines.push(String::new());
    for engine in &set.engines {
        lines.extend(wrap(
            &clean(&format!("{} ({}): {}", engine.engine, ran(engine), engine.headline)),
            width,
        ));
        let about =
            about_faults(engine).iter().flat_map(|about| wrap(&clean(about), width - 2)).collect::<Vec<_>>();
        lines.extend(about.into_iter().map(|line| format!("  {line}")));
    }
    lines.join("\n") + "\n"
}

fn paint(outcome: Outcome, colour: bool) -> String {
    let style = match outcome {
        Outcome::Pass => Style::new().green(),
        Outcome::Fault => Style::new().red(),
        Outcome::Invalid | Outcome::Unmeasured => Style::new().yellow(),
    };
    style.bold().force_styling(colour).apply_to(word(outcome)).to_string()
}

fn row(engine: &EngineResult, colour: bool, point: usize) -> String {
    let worst = engine.worst.as_ref();
    let number = |of: &dyn Fn(&Figures) -> Option<f64>| maybe(worst.and_then(of));
    let padding = 10usize.saturating_sub(word(engine.outcome).len());
    let line = format!(
        "{:<17} {}{:padding$} {:>7} {:>7} {:>7} {:>7}  {}",
        tail(&clean(&engine.engine), 17),
        paint(engine.outcome, colour),
        "",
        number(&|w| w.total),
        number(&|w| w.floor.get("bfloat16").copied()),
        number(&|w| w.quantization),
        number(&|w| w.engine),
        worst.filter(|_| point > 10).map_or_else(String::new, |w| tail(&clean(&w.point), point))
    );
    line.trim_end().to_owned()
}
