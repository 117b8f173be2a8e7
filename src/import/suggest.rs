//! What a dump that nothing says anything about might be: by name, by shape, and by value.

use super::block::Block;
use super::format::{Item, Kind, Source};
use super::fused::fused;
use super::names::Names;
use super::near::{SAME, Way, distance};
use super::pattern::placed;
use super::plan::Target;
use crate::model::Component;
use crate::tensor::DType;
use crate::trace::Trace;
use std::fmt::Write;

/// A point that a dump might be.
#[derive(Debug, Clone)]
pub(super) struct Guess {
    pub point: String,
    pub layer: Option<usize>,
    pub way: Way,
    /// Relative L2 error against the reference's.
    pub error: f64,
}

/// What is known about one dump.
#[derive(Debug, Clone)]
pub(super) struct Suggestion {
    pub name: String,
    /// The name without the directories of prompt and step.
    pub file: String,
    /// Place of the prompt, and step.
    pub pass: (usize, u32),
    form: String,
    /// True for what is no tensor that a trace can hold.
    unreadable: bool,
    /// The nearest by value.
    pub value: Option<Guess>,
    /// The nearest by name, and whether it has as many elements.
    by_name: Option<(String, bool)>,
    /// Those of as many elements.
    pub by_shape: Vec<String>,
    /// Those that have as many elements together.
    pub fused: Vec<String>,
    /// Elements of a token, where the dump does not say how its values lie.
    pub width: Option<usize>,
}

impl Suggestion {
    /// Looks for the points that `item` might be in that step.
    pub fn of(
        source: &dyn Source,
        index: usize,
        (prompt, step): (usize, u32),
        target: &Target<'_>,
        reference: Option<&Trace>,
    ) -> Self {
        let item = &source.items()[index];
        let ids: Vec<&str> = target.prompts.iter().map(|p| p.id.as_str()).collect();
        let file = placed(&item.name, &ids).1;
        let names = Names::new(target.graph);
        let all = target.graph.components();
        let fitting: Vec<&Component> =
            all.iter().filter(|c| may_be(item, &target.shape(c, prompt, step))).collect();
        let value = reference.and_then(|r| by_value(source, index, &fitting, (prompt, step), target, r));
        Self {
            name: item.name.clone(),
            pass: (prompt, step),
            form: item.form(),
            value,
            by_name: names.nearest(file).map(|near| {
                let point = names.get(near).map_or(near, |meant| &meant.point);
                (near.to_owned(), fitting.iter().any(|c| c.point == point))
            }),
            file: file.to_owned(),
            unreadable: matches!(item.kind, Kind::Other(_)),
            // Many points may have as many elements by chance; the values tell.
            width: match (&item.shape, item.elements(), target.tokens(prompt, step).0) {
                (None, Some(elements), tokens @ 1..) => Some(elements / tokens),
                _ => None,
            },
            fused: Some(fused(item, file, (prompt, step), target))
                .filter(|points| {
                    fitting.is_empty()
                        || reference.is_some_and(|r| holds(source, index, points, (prompt, step), target, r))
                })
                .unwrap_or_default(),
            by_shape: fitting.into_iter().map(|c| c.point.clone()).collect(),
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        let mut line = format!("`{}` ({})", self.name, self.form);
        let _infallible = match (&self.value, &self.by_name, self.by_shape.as_slice()) {
            (Some(guess), ..) => write!(
                line,
                ": by value `{}`{}, relative L2 error {:.1e}",
                guess.point,
                if guess.way.axes.is_empty() && guess.way.pairs.is_none() {
                    String::new()
                } else {
                    format!(" {}", guess.way.words())
                },
                guess.error
            ),
            (None, ..) if !self.fused.is_empty() => {
                write!(line, ": as many elements as `{}` together", self.fused.join("`, `"))
            }
            (None, Some((near, true)), _) => write!(line, ": did you mean `{near}`?"),
            (None, Some((near, false)), _) => {
                write!(line, ": did you mean `{near}`? It has another number of elements")
            }
            (None, None, []) if self.unreadable => {
                write!(line, ": leave it out with `ignore = true` in a map")
            }
            (None, None, []) => write!(line, ": no point has as many elements"),
            (None, None, [one]) => write!(line, ": only `{one}` has as many elements"),
            (None, None, [first, rest @ ..]) => {
                write!(line, ": `{first}` and {} more points have as many elements", rest.len())
            }
        };
        line
    }
}

/// True where the values of a dump are near those of these points side by side.
fn holds(
    source: &dyn Source,
    index: usize,
    points: &[String],
    (prompt, step): (usize, u32),
    target: &Target<'_>,
    reference: &Trace,
) -> bool {
    let Some(dump) = read(source, index) else { return false };
    let id = &target.prompts[prompt].id;
    let parts: Option<Vec<_>> =
        points.iter().map(|point| Some(reference.view(reference.find(id, step, point)?))).collect();
    let Some(parts) = parts.filter(|parts| !parts.is_empty()) else { return false };
    let widths: Vec<usize> = parts.iter().map(|part| part.shape.last().copied().unwrap_or(0)).collect();
    let width: usize = widths.iter().sum();
    let elements = dump.view().len();
    if width == 0 || elements % width != 0 {
        return false;
    }
    let dump = Block { shape: vec![elements / width, width], ..dump };
    let mut from = 0;
    parts.into_iter().zip(widths).all(|(part, width)| {
        let own = dump.chosen(1, from..from + width);
        from += width;
        distance(part, &own, &Way::plain(part.shape)) < 50.0 * SAME
    })
}

/// The values of a dump; what cannot be read is an error where it is imported, and here no help.
fn read(source: &dyn Source, index: usize) -> Option<Block> {
    let item = &source.items()[index];
    let (Kind::Known(dtype) | Kind::Assumed(dtype)) = item.kind else { return None };
    let bytes = source.read(index).ok().filter(|bytes| bytes.len() as u64 == item.bytes)?;
    Some(Block { dtype, shape: Vec::new(), bytes })
}

fn may_be(item: &Item, shape: &[usize]) -> bool {
    item.elements().is_some_and(|n| Some(n) == shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size)))
}

/// The point whose values are the nearest, if any is near at all.
fn by_value(
    source: &dyn Source,
    index: usize,
    fitting: &[&Component],
    (prompt, step): (usize, u32),
    target: &Target<'_>,
    reference: &Trace,
) -> Option<Guess> {
    let item = &source.items()[index];
    let id = &target.prompts[prompt].id;
    let entries: Vec<_> =
        fitting.iter().filter_map(|c| Some((c, reference.find(id, step, &c.point)?))).collect();
    if matches!(item.kind, Kind::Known(DType::U8) | Kind::Assumed(DType::U8)) || entries.is_empty() {
        return None;
    }
    let block = read(source, index)?;
    let mut best: Option<Guess> = None;
    for (component, entry) in entries {
        if !entry.dtype.is_float() {
            continue;
        }
        for way in Way::all(item.shape.as_deref(), &entry.shape, target.graph.size("head_dim")) {
            let error = distance(reference.view(entry), &block, &way);
            // A quantized or a faulty engine is further from the reference, and still nearest to its own.
            if error < 50.0 * SAME && best.as_ref().is_none_or(|b| error < b.error) {
                best = Some(Guess { point: component.point.clone(), layer: component.layer, way, error });
            }
        }
    }
    best
}
