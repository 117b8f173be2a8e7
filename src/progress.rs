//! Talk and progress on stderr; bars only where it is a terminal.

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

/// A bar over `total` items; hidden when stderr is piped or `quiet`, and where lines say what is done.
pub fn bar(what: &str, total: u64, quiet: bool) -> ProgressBar {
    let hidden = quiet || log::max_level() >= log::Level::Info;
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = "{prefix:>10} {bar:12} {pos}/{len} {elapsed}, {rate}, {left} left  {wide_msg}";
    let style = ProgressStyle::with_template(template).expect("the template is constant");
    bar.set_style(style.with_key("rate", rate).with_key("left", left));
    bar.set_prefix(what.to_owned());
    // A long item moves the clock all the same.
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// So many a second, or so long each.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let each = match state.per_sec() {
        rate if rate >= 1.0 => write!(out, "{rate:.0}/s"),
        rate if rate > 0.0 => write!(out, "{:.1} s each", 1.0 / rate),
        _ => write!(out, "–/s"),
    };
    each.expect("text takes text");
}

/// How long the rest takes, once something is done.
fn left(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let left = match state.per_sec() {
        rate if rate > 0.0 => write!(out, "{}", HumanDuration(state.eta())),
        _ => write!(out, "–"),
    };
    left.expect("text takes text");
}

/// Has lines say on stderr what is done: nothing at 0, the stages at 1, at 2 also what Python says.
pub fn talk(verbose: u8) {
    let level = [log::LevelFilter::Off, log::LevelFilter::Info].get(usize::from(verbose));
    // A second logger in one process is one too many, and the first goes on.
    if verbose > 0 && log::set_logger(&Talk).is_ok() {
        log::set_max_level(level.copied().unwrap_or(log::LevelFilter::Debug));
    }
}

struct Talk;

impl log::Log for Talk {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("layerdiff")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let _nobody_listens = writeln!(std::io::stderr(), "{}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Says how long a part of the work took that was done in pieces.
pub fn spent(what: impl Display, time: Duration) {
    log::info!("{what}: {:.2} s", time.as_secs_f64());
}

/// Part of the work, whose time is said at its end.
pub struct Stage {
    what: String,
    start: Instant,
}

/// Says that a part of the work begins.
pub fn stage(what: impl Display) -> Stage {
    let what = what.to_string();
    log::info!("{what} …");
    Stage { what, start: Instant::now() }
}

impl Drop for Stage {
    fn drop(&mut self) {
        log::info!("{}: {:.2} s", self.what, self.start.elapsed().as_secs_f64());
    }
}
