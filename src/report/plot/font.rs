//! The bundled font: pictures need none from the user's machine.

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};
use std::sync::Once;

/// What plotters divides a size by to get an em.
const PLOTTERS_EM: f64 = 1.24;
/// Beyond printable ASCII.
const SIGNS: &str = "−×·₂…→≤≥–—±√∞";

/// Makes the font known to plotters.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let regular = register_font("sans-serif", FontStyle::Normal, include_bytes!("font/sans-regular.ttf"));
        let bold = register_font("sans-serif", FontStyle::Bold, include_bytes!("font/sans-bold.ttf"));
        assert!(regular.is_ok() && bold.is_ok(), "the bundled font is valid");
    });
}

/// The font whose em is `size` px.
pub(super) fn font(size: f64, bold: bool) -> FontDesc<'static> {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    FontDesc::new(FontFamily::SansSerif, size * PLOTTERS_EM, style)
}

/// Width of a text in px.
pub(super) fn width(text: &str, size: f64, bold: bool) -> f64 {
    register();
    // plotters rounds down to whole px: measure large.
    let magnified = 64.0;
    font(size * magnified, bold).layout_box(text).map_or(0.0, |(_, (right, _))| f64::from(right) / magnified)
}

/// The text with `?` for each sign that the font lacks.
pub(super) fn drawable(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') || SIGNS.contains(c) { c } else { '?' }).collect()
}

/// The text, cut to `room` px.
pub(super) fn fit(text: &str, size: f64, bold: bool, room: f64) -> String {
    let mut text = drawable(text);
    if width(&text, size, bold) <= room {
        return text;
    }
    while !text.is_empty() && width(&format!("{text}…"), size, bold) > room {
        text.pop();
    }
    text + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_that_may_be_drawn_is_in_the_font() {
        let missing = width("\u{e000}", 22.0, false);
        for c in SIGNS.chars().chain('!'..='~') {
            let w = width(&c.to_string(), 22.0, false);
            assert!(w > 0.0 && (w - missing).abs() > 1e-9, "{c}");
        }
    }

    #[test]
    fn a_text_is_cut_to_its_room() {
        assert_eq!(fit("short", 22.0, false, 200.0), "short");
        let cut = fit(&"long ".repeat(40), 22.0, false, 200.0);
        assert!(cut.ends_with('…') && width(&cut, 22.0, false) <= 200.0);
        assert_eq!(drawable("a\u{1b}[0m\nö"), "a?[0m??");
    }
}
