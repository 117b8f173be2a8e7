//! What stands under the plot.

use super::axis::Frame;
use super::font;
use super::scene::{Anchor, Scene};
use super::theme::{INK, MUTED, SHADES, TEXT};
use crate::report::stops::{Kind, Stop};

impl Frame {
    /// Draws the stops' names, the letters of the layers' types, and what they and the letters are.
    pub(super) fn draw_labels(&self, scene: &mut Scene, stops: &[&Stop], kinds: &[Kind], name: &str) {
        let y = self.area.bottom + 30.0;
        let widest = stops.iter().filter(|s| s.layer.is_some()).map(|s| font::width(&s.label, TEXT, false));
        let widest = widest.fold(0.0, f64::max) + 10.0;
        let narrowest = (0..stops.len()).filter(|i| stops[*i].layer.is_some()).map(|i| self.slot_width(i));
        let narrowest = narrowest.fold(f64::INFINITY, f64::min);
        let steps = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 256, 512];
        let step = steps.into_iter().find(|s| *s as f64 * narrowest >= widest).unwrap_or(1024);
        let mut letters: Vec<(usize, char, usize)> = Vec::new();
        for (slot, stop) in stops.iter().enumerate() {
            if stop.layer.is_none_or(|layer| layer % step == 0) {
                scene.text((self.x(slot), y), &stop.label, TEXT, INK, Anchor::Centre);
            }
            if let Some(kind) = stop.kind {
                letters.push((
                    slot,
                    kinds[kind].letter,
                    stops.iter().filter(|s| s.kind == Some(kind)).count(),
                ));
            }
        }
        // Where there is no room for all letters, those of the rarer type come first, and a type
        // shows all or none.
        letters.sort_by_key(|(slot, letter, count)| (*count, *letter, *slot));
        let mut taken: Vec<f64> = Vec::new();
        let mut drawn: Vec<char> = Vec::new();
        for same in letters.chunk_by(|a, b| a.1 == b.1) {
            let places: Vec<f64> = same.iter().map(|(slot, ..)| self.x(*slot)).collect();
            let all = taken.iter().chain(&places);
            let apart = |x: &f64| all.clone().filter(|t| (*t - x).abs() < 19.0).count() == 1;
            if places.iter().all(apart) {
                for x in &places {
                    scene.bold((*x, y + 28.0), &same[0].1.to_string(), TEXT, MUTED, Anchor::Centre);
                }
                taken.extend(places);
                drawn.push(same[0].1);
            }
        }
        // A letter that is nowhere in the picture needs no explanation.
        let meanings = kinds.iter().enumerate().filter_map(|(i, kind)| {
            match (drawn.contains(&kind.letter), i % SHADES.len() == 0) {
                (true, true) => Some(format!("{} = {}", kind.letter, kind.name)),
                (true, false) => Some(format!("{} = {}, shaded", kind.letter, kind.name)),
                (false, true) => None,
                (false, false) => Some(format!("shaded: {}", kind.name)),
            }
        });
        let meanings = meanings.collect::<Vec<_>>().join("   ·   ");
        let name = if meanings.is_empty() { name.to_owned() } else { format!("{name}   —   {meanings}") };
        let middle = f64::midpoint(self.area.left, self.area.right);
        let name = font::fit(&name, TEXT, false, self.area.right - self.area.left);
        scene.text((middle, y + 62.0), &name, TEXT, MUTED, Anchor::Centre);
    }
}
