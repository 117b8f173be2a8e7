//! One point in full, or many in a table.

use super::statistics::Statistics;
use crate::number::count;
use crate::trace::Entry;
use std::fmt::Write;

/// One point with its first and last values and their distribution.
pub(super) fn describe(entry: &Entry, s: &Statistics) -> String {
    let list = |values: &[f64]| values.iter().map(|v| format!("{v:.6e}")).collect::<Vec<_>>().join("  ");
    let rows = entry.rows.as_ref().map_or_else(String::new, |rows| {
        let list = rows.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        format!("{}: {list}\n", super::some_of(rows))
    });
    let mut out = format!(
        "{} (prompt {}, step {})\n{} {:?}, basis {}, {} in order of execution{}\n{rows}\n",
        entry.point,
        entry.prompt,
        entry.step,
        entry.dtype,
        entry.shape,
        entry.basis,
        entry.order,
        if entry.derived { ", derived" } else { "" }
    );
    let _infallible = write!(
        out,
        "elements {}   NaN {}   inf {}   zeros {}\nmin {:.6e}   max {:.6e}   mean {:.6e}   rms {:.6e}   (of the finite ones)\nfirst  {}\nlast   {}\n\n",
        s.elements,
        s.nan,
        s.inf,
        s.zeros,
        s.min,
        s.max,
        s.mean,
        s.rms,
        list(&s.first),
        list(&s.last)
    );
    let largest = s.histogram.iter().map(|(.., n)| *n).max().unwrap_or(0).max(1);
    for (low, high, count) in &s.histogram {
        let bar = "#".repeat((count * 50).div_ceil(largest));
        let _infallible = writeln!(out, "{low:>13.5e} .. {high:>13.5e}  {count:>8}  {bar}");
    }
    out
}

/// A line for each point, in order of execution.
pub(super) fn table(prompt: &str, step: u32, rows: &[(&Entry, Statistics)]) -> String {
    let shape = |entry: &Entry| format!("{:?}", entry.shape);
    let width = |of: &dyn Fn(&Entry) -> usize| rows.iter().map(|(e, _)| of(e)).max().unwrap_or(0).max(5);
    let (name_width, shape_width) = (width(&|e| e.point.len()), width(&|e| shape(e).len()));
    let mut out = format!(
        "{} (prompt {prompt}, step {step})\n\n{:<name_width$}  dtype  {:<shape_width$}  {:>11}  {:>11}  {:>11}  {:>11}  {:>5}  {:>5}\n",
        count(rows.len(), "point"),
        "point",
        "shape",
        "min",
        "max",
        "mean",
        "rms",
        "NaN",
        "inf"
    );
    for (entry, s) in rows {
        let _infallible = writeln!(
            out,
            "{:<name_width$}  {:<5}  {:<shape_width$}  {:>11.4e}  {:>11.4e}  {:>11.4e}  {:>11.4e}  {:>5}  {:>5}",
            entry.point,
            entry.dtype.to_string(),
            shape(entry),
            s.min,
            s.max,
            s.mean,
            s.rms,
            s.nan,
            s.inf
        );
    }
    out + "\nmin, max, mean and rms are of the finite values\n"
}
