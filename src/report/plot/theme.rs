//! Sizes and colours of the pictures.
//!
//! A picture is an opaque white card with a thin grey edge, so it looks the same on a light and on
//! a dark page. Letters are at least 22 px high in a picture 1400 px wide: half of that is still
//! legible. Series differ in colour, in dash and in marker: colour is never the only difference.

use super::series::{Dash, Marker, Style};
use crate::report::Outcome;

/// Red, green, blue.
pub(super) type Colour = (u8, u8, u8);

/// Width of a picture.
pub(super) const WIDTH: f64 = 1400.0;
/// Height of a picture.
pub(super) const HEIGHT: f64 = 800.0;
/// Size of all text but the title.
pub(super) const TEXT: f64 = 22.0;
/// Size of the title.
pub(super) const TITLE: f64 = 28.0;
/// Distance of everything from the card's edge.
pub(super) const MARGIN: f64 = 24.0;

pub(super) const PAPER: Colour = (255, 255, 255);
pub(super) const EDGE: Colour = (208, 215, 222);
pub(super) const INK: Colour = (31, 35, 40);
pub(super) const MUTED: Colour = (87, 96, 106);
pub(super) const GRID: Colour = (222, 226, 230);
/// Behind the rows for values that a logarithm cannot show.
pub(super) const ROW: Colour = (245, 240, 226);
/// Behind the layers, by type.
pub(super) const SHADES: [Colour; 4] = [PAPER, (226, 238, 249), (240, 232, 246), (229, 243, 232)];

/// The colour that stands for one of these on a dark page; all others, such as those of heatmaps, stay.
pub(super) fn dark(colour: Colour) -> Colour {
    match colour {
        PAPER => (13, 17, 23),
        EDGE => (61, 68, 77),
        INK => (230, 237, 243),
        MUTED => (160, 168, 178),
        GRID => (44, 50, 58),
        ROW => (48, 42, 26),
        (226, 238, 249) => (20, 34, 52),
        (240, 232, 246) => (40, 28, 50),
        (229, 243, 232) => (20, 42, 30),
        BLACK => (240, 246, 252),
        BLUE => (77, 166, 230),
        GREEN | (0, 110, 80) => (60, 200, 150),
        VERMILLION => (240, 128, 60),
        FAULT => (255, 110, 98),
        FLOOR => (150, 158, 168),
        (130, 80, 0) => (224, 165, 60),
        other => other,
    }
}

// Okabe and Ito's palette, which people with any of the common kinds of colour blindness can tell
// apart. Its yellow is left out: it vanishes on white.
const BLACK: Colour = (0, 0, 0);
const ORANGE: Colour = (230, 159, 0);
const SKY: Colour = (86, 180, 233);
const GREEN: Colour = (0, 158, 115);
const BLUE: Colour = (0, 114, 178);
const VERMILLION: Colour = (213, 94, 0);
const PURPLE: Colour = (204, 121, 167);

/// The ring around a point where a fault is born.
pub(super) const FAULT: Colour = (180, 35, 24);
/// The floor of a family, as boxes.
pub(super) const FLOOR: Colour = (110, 119, 129);

/// The colour of an outcome's badge.
pub(super) fn outcome(outcome: Outcome) -> Colour {
    match outcome {
        Outcome::Pass => (0, 110, 80),
        Outcome::Fault => FAULT,
        Outcome::Invalid => (130, 80, 0),
        Outcome::Unmeasured => MUTED,
    }
}

/// The error of the layers' outputs.
pub(super) const OUTPUT: Style =
    Style { colour: BLUE, dash: Dash::Solid, marker: Some(Marker::Disc), line: Some(3.0) };
/// The worst point of each layer.
pub(super) const WORST: Style =
    Style { colour: VERMILLION, dash: Dash::Solid, marker: Some(Marker::Diamond), line: None };
/// The floor as a curve.
pub(super) const FLOOR_LINE: Style =
    Style { colour: BLACK, dash: Dash::Dashed, marker: None, line: Some(3.0) };
/// The floors of coarser precisions.
const OTHER_FLOORS: [Style; 2] = [
    Style { colour: FLOOR, dash: Dash::Dotted, marker: None, line: Some(3.0) },
    Style { colour: FLOOR, dash: Dash::Dashed, marker: None, line: Some(1.5) },
];
/// The look of a coarser precision's floor.
pub(super) fn floor(dtype: &str) -> Style {
    OTHER_FLOORS[usize::from(dtype == "float16")]
}

/// What a gate allows.
pub(super) const LIMIT: Style = Style { colour: FAULT, dash: Dash::Dashed, marker: None, line: Some(3.0) };

/// The total error, where it is shown beside its parts.
pub(super) const TOTAL: Style =
    Style { colour: GREEN, dash: Dash::Solid, marker: Some(Marker::Square), line: Some(2.0) };
/// The price of quantization; thinner than the total, which it nearly is.
pub(super) const QUANTIZATION: Style =
    Style { colour: ORANGE, dash: Dash::Dashed, marker: Some(Marker::Up), line: Some(3.0) };
/// The largest error that is explained.
pub(super) const EXPLAINED: Style =
    Style { colour: PURPLE, dash: Dash::Dotted, marker: None, line: Some(3.0) };
/// Points before and after the layers.
pub(super) const ENDS: Style =
    Style { colour: INK, dash: Dash::Solid, marker: Some(Marker::Star), line: None };

const PALETTE: [Colour; 7] = [BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE, BLACK];
const MARKERS: [Marker; 7] =
    [Marker::Disc, Marker::Diamond, Marker::Square, Marker::Up, Marker::Down, Marker::Plus, Marker::Cross];
const DASHES: [Dash; 3] = [Dash::Solid, Dash::Dashed, Dash::Dotted];

/// The style of the `i`th series of a picture; no two of the first 21 look alike.
pub(super) fn series(i: usize) -> Style {
    Style {
        colour: PALETTE[i % PALETTE.len()],
        dash: DASHES[(i + i / PALETTE.len()) % DASHES.len()],
        marker: Some(MARKERS[(i + i / PALETTE.len()) % MARKERS.len()]),
        line: Some(2.0),
    }
}
