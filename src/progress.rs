//! Progress on stderr; nothing when it is not a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `total` items; hidden when stderr is piped or `quiet`.
pub fn bar(what: &str, total: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let style = ProgressStyle::with_template("{prefix:>10} {bar:24} {pos}/{len} {msg} {elapsed} (eta {eta})")
        .expect("the template is constant");
    bar.set_style(style);
    bar.set_prefix(what.to_owned());
    bar
}
