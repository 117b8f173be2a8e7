//! From shapes to SVG text and PNG files.

use super::font;
use super::scene::{Anchor, Place, Scene, Shape};
use super::theme::{Colour, WIDTH};
use crate::error::{Error, Result};
use plotters::prelude::{BitMapBackend, DrawingBackend, RGBAColor, SVGBackend, ShapeStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, RGBColor, TextStyle};
use std::path::Path;

/// Bitmaps are drawn this many times as large and averaged: plotters' thick lines have hard edges.
const SUPERSAMPLING: usize = 3;
/// Fonts as wide as the bundled one, then any.
const FAMILIES: &str = "\"Liberation Sans, Arimo, Arial, Helvetica, sans-serif\"";

/// How a backend places a text.
#[derive(Clone, Copy)]
struct Metrics {
    scale: f64,
    /// From the top of the text, as plotters has it, to the baseline, in em.
    ascent: f64,
}

/// The picture as SVG.
pub(crate) fn svg(scene: &Scene) -> Result<String> {
    let mut text = String::new();
    let mut backend = SVGBackend::with_string(&mut text, size(scene));
    draw(scene, &mut backend, Metrics { scale: 1.0, ascent: 0.76 })?;
    backend.present().map_err(|e| failed(&e))?;
    drop(backend);
    Ok(with_widths(scene, &text))
}

/// Gives each text the width that it was laid out for: another machine has another sans-serif.
fn with_widths(scene: &Scene, svg: &str) -> String {
    let widths = scene.shapes.iter().filter_map(|shape| match shape {
        Shape::Text(text) => Some(font::width(&text.content, text.size, text.bold)),
        _ => None,
    });
    let mut parts = svg.split("<text ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for (part, width) in parts.zip(widths) {
        // plotters puts line breaks around the letters, which would count as spaces.
        let part = part.replacen(">\n", ">", 1).replacen("\n</text>", "</text>", 1);
        let part = part.replacen("\"sans-serif\"", FAMILIES, 1);
        out.extend([
            &format!("<text textLength=\"{width:.1}\" lengthAdjust=\"spacingAndGlyphs\" "),
            part.as_str(),
        ]);
    }
    out
}

/// Width and height in px.
fn size(scene: &Scene) -> (u32, u32) {
    (WIDTH as u32, scene.height as u32)
}

/// Writes the picture as PNG.
pub(crate) fn png(scene: &Scene, path: &Path) -> Result<()> {
    let size = size(scene);
    let (width, height) = (size.0 as usize, size.1 as usize);
    let large = (size.0 * SUPERSAMPLING as u32, size.1 * SUPERSAMPLING as u32);
    let mut pixels = vec![255; 3 * width * height * SUPERSAMPLING * SUPERSAMPLING];
    {
        let mut backend = BitMapBackend::with_buffer(&mut pixels, large);
        let metrics = Metrics { scale: SUPERSAMPLING as f64, ascent: 0.62 };
        draw(scene, &mut backend, metrics)?;
        backend.present().map_err(|e| failed(&e))?;
    }
    let small = averaged(&pixels, width, height);
    // What the system says of a full disk does not come through the library: writing as much says it again.
    let refused = |e: &dyn std::fmt::Display| match std::fs::write(path, &small) {
        Err(io) => Error::io("write the picture", path, &io),
        Ok(()) => failed(e),
    };
    let mut backend = BitMapBackend::new(path, size);
    backend.blit_bitmap((0, 0), size, &small).map_err(|e| failed(&e))?;
    backend.present().map_err(|e| refused(&e))
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::new(format!("cannot draw the picture: {error}"))
}

/// The mean of each square of pixels.
fn averaged(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let n = SUPERSAMPLING;
    let mut small = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let at = |i: usize| 3 * ((y * n + i / n) * width * n + x * n + i % n) + channel;
                let sum: usize = (0..n * n).map(|i| usize::from(pixels[at(i)])).sum();
                small.push(((sum + n * n / 2) / (n * n)) as u8);
            }
        }
    }
    small
}

fn colour((r, g, b): Colour, opacity: f64) -> RGBAColor {
    RGBColor(r, g, b).mix(opacity)
}

fn draw<B: DrawingBackend>(scene: &Scene, backend: &mut B, metrics: Metrics) -> Result<()> {
    font::register();
    let scale = metrics.scale;
    let at = |(x, y): Place| ((x * scale).round() as i32, (y * scale).round() as i32);
    let stroke = |c: Colour, width: f64| ShapeStyle {
        color: colour(c, 1.0),
        filled: false,
        stroke_width: (width * scale).round().max(1.0) as u32,
    };
    let full =
        |c: Colour, opacity: f64| ShapeStyle { color: colour(c, opacity), filled: true, stroke_width: 0 };
    for shape in &scene.shapes {
        match shape {
            Shape::Line { places, colour, width } => {
                backend
                    .draw_path(places.iter().map(|p| at(*p)), &stroke(*colour, *width))
                    .map_err(|e| failed(&e))?;
            }
            Shape::Fill { places, colour, opacity } => {
                backend
                    .fill_polygon(places.iter().map(|p| at(*p)), &full(*colour, *opacity))
                    .map_err(|e| failed(&e))?;
            }
            Shape::Disc { centre, radius, colour } => {
                backend
                    .draw_circle(at(*centre), (radius * scale).round() as u32, &full(*colour, 1.0), true)
                    .map_err(|e| failed(&e))?;
            }
            Shape::Ring { centre, radius, colour, width } => {
                let radius = (radius * scale).round() as u32;
                backend
                    .draw_circle(at(*centre), radius, &stroke(*colour, *width), false)
                    .map_err(|e| failed(&e))?;
            }
            Shape::Text(text) => {
                let horizontal = match text.anchor {
                    Anchor::Left => HPos::Left,
                    Anchor::Centre => HPos::Center,
                    Anchor::Right => HPos::Right,
                };
                let ink = colour(text.colour, 1.0);
                let style = TextStyle::from(font::font(text.size * scale, text.bold))
                    .color(&ink)
                    .pos(Pos::new(horizontal, VPos::Top));
                let (x, y) = text.at;
                backend
                    .draw_text(&text.content, &style, at((x, y - metrics.ascent * text.size)))
                    .map_err(|e| failed(&e))?;
            }
        }
    }
    Ok(())
}
