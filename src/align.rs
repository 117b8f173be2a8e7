//! Alignment: which tensor of the candidate belongs to which of the reference.

mod bases;

pub use bases::restore;

use crate::basis::Gains;
use crate::error::{Error, Result, nearest_point};
use crate::model::{Component, Graph, PointFilter};
use crate::number::count;
use crate::prompt::Prompt;
use crate::tensor::DType;
use crate::trace::{Entry, Trace};
use bases::{check_bases, is_known};
use std::collections::BTreeSet;

/// A point of a step of a prompt, with what both sides have of it.
#[derive(Debug, Clone)]
pub struct Pair<'a> {
    /// The prompt's id.
    pub prompt: &'a str,
    /// The step.
    pub step: u32,
    /// Tokens that the step takes.
    pub tokens: usize,
    /// Tokens that it sees: these and all before them.
    pub context: usize,
    /// The point's name.
    pub point: &'a str,
    /// Its component; none for a name that the architecture does not know.
    pub component: Option<&'a Component>,
    /// The query tokens whose rows both sides have, as positions in the step; none where both have all.
    pub rows: Option<Vec<usize>>,
    /// The shape of what both sides have; empty where they cannot be compared.
    pub shape: Vec<usize>,
    /// What can be done with it.
    pub partner: Partner<'a>,
}

impl Pair<'_> {
    /// Why it cannot be compared; none when it can.
    pub fn note(&self) -> Option<&str> {
        match &self.partner {
            Partner::Matched(..) => None,
            Partner::Mismatched(note) | Partner::Unmeasured(note) => Some(note),
        }
    }
}

/// Whether both sides have a point.
#[derive(Debug, Clone)]
pub enum Partner<'a> {
    /// Both have it, in the same form.
    Matched(&'a Entry, &'a Entry),
    /// Both have it, in a form that cannot be compared.
    Mismatched(String),
    /// A side lacks it.
    Unmeasured(String),
}

/// Pairs up two traces, in the architecture's order of execution within each step.
///
/// Every point that the architecture has and the filter accepts is there, and every other name
/// that a side has: what has no partner is unmeasured. Only what both sides say they cannot show is not
/// expected.
///
/// A side that is in a rotated basis is brought back to the original one where it is compared; a point
/// whose gain is not among `gains` and folded away is unmeasured.
pub fn align<'a>(
    graph: &'a Graph,
    reference: &'a Trace,
    candidate: &'a Trace,
    points: &PointFilter,
    gains: &Gains,
) -> Result<Vec<Pair<'a>>> {
    for trace in [reference, candidate] {
        check_bases(graph, trace).map_err(|e| e.at(trace.path()))?;
    }
    check_prompts(reference, candidate)?;
    let mut pairs = Vec::new();
    let prompts = reference.manifest().prompts.iter();
    let extra =
        candidate.manifest().prompts.iter().filter(|p| find(&reference.manifest().prompts, &p.id).is_none());
    for prompt in prompts.chain(extra) {
        align_prompt(graph, reference, candidate, points, gains, prompt, &mut pairs)?;
    }
    if pairs.is_empty() {
        return Err(points.chooses_nothing());
    }
    if !pairs.iter().any(|p| matches!(p.partner, Partner::Matched(..))) {
        return Err(nothing_in_common(reference, candidate, &pairs));
    }
    Ok(pairs)
}

/// A tensor that the candidate has just left, and what can be done with it.
pub fn meet<'a>(
    graph: &'a Graph,
    reference: &'a Trace,
    prompt: &'a Prompt,
    candidate: &'a Entry,
    gains: &Gains,
) -> Result<Pair<'a>> {
    let step = candidate.step;
    let (tokens, context) = sizes(prompt, step);
    let known = graph.get(&candidate.point).map(|component| Known { graph, component, tokens, context });
    let reference = reference.find(&prompt.id, step, &candidate.point);
    pair((&prompt.id, step, &candidate.point), (tokens, context), known, (reference, Some(candidate)), gains)
}

fn pair<'a>(
    (prompt, step, point): (&'a str, u32, &'a str),
    (tokens, context): (usize, usize),
    known: Option<Known<'a>>,
    (r, c): (Option<&'a Entry>, Option<&'a Entry>),
    gains: &Gains,
) -> Result<Pair<'a>> {
    let partner = partner(known, r, c, gains)?;
    let (rows, shape) = match partner {
        Partner::Matched(r, c) => {
            let rows = common_rows(r, c);
            let some = known.filter(|_| rows.is_some());
            (rows.clone(), some.map_or_else(|| r.shape.clone(), |known| known.shape(rows.as_deref())))
        }
        _ => (None, Vec::new()),
    };
    let component = known.map(|known| known.component);
    Ok(Pair { prompt, step, tokens, context, point, component, rows, shape, partner })
}

/// How many tokens a step takes, and how many it sees.
fn sizes(prompt: &Prompt, step: u32) -> (usize, usize) {
    let tokens = if step == 0 { prompt.token_ids.len() } else { 1 };
    (tokens, prompt.token_ids.len() + step as usize)
}

fn find<'a>(prompts: &'a [Prompt], id: &str) -> Option<&'a Prompt> {
    prompts.iter().find(|p| p.id == id)
}

/// The traces must be of the same architecture and of the same tokens.
fn check_prompts(reference: &Trace, candidate: &Trace) -> Result<()> {
    let (r, c) = (reference.manifest(), candidate.manifest());
    if r.architecture != c.architecture {
        return Err(Error::new("the traces are of different architectures")
            .expected(&r.architecture, &c.architecture)
            .at(candidate.path())
            .hint("a comparison needs two runs of one model"));
    }
    let mut common = 0;
    for prompt in &c.prompts {
        let Some(other) = find(&r.prompts, &prompt.id) else { continue };
        common += 1;
        let ids = |prompt: &Prompt| [prompt.token_ids.clone(), prompt.step_token_ids.clone()].concat();
        let (ours, theirs) = (ids(prompt), ids(other));
        // A side may have decoded further than the other; what both did must be the same.
        let decoded = prompt.step_token_ids.len().min(other.step_token_ids.len());
        let equal = prompt.token_ids == other.token_ids
            && prompt.step_token_ids[..decoded] == other.step_token_ids[..decoded];
        if !equal {
            let at = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
            let show = |ids: &[u32]| match ids.get(at) {
                Some(id) => format!("{}, id {id} at position {at}", count(ids.len(), "token")),
                None => format!("{}, none at position {at}", count(ids.len(), "token")),
            };
            return Err(Error::new(format!("the traces are of different tokens for prompt `{}`", prompt.id))
                .expected(show(&theirs), show(&ours))
                .at(candidate.path())
                .hint("tokenize once and give both engines the same ids, decoded ones included; a chat template or a BOS token often makes the difference"));
        }
    }
    if common == 0 {
        let list =
            |prompts: &[Prompt]| prompts.iter().take(3).map(|p| p.id.clone()).collect::<Vec<_>>().join(", ");
        return Err(Error::new("the traces have no prompt in common").expected(list(&r.prompts), list(&c.prompts)).at(candidate.path())
            .hint("choose a prompt that the reference has with --prompt ID, or capture the reference anew with --reference torch"));
    }
    Ok(())
}

fn align_prompt<'a>(
    graph: &'a Graph,
    reference: &'a Trace,
    candidate: &'a Trace,
    points: &PointFilter,
    gains: &Gains,
    prompt: &'a Prompt,
    pairs: &mut Vec<Pair<'a>>,
) -> Result<()> {
    let both = || {
        reference
            .entries()
            .iter()
            .chain(candidate.entries())
            .filter(|e| e.prompt == prompt.id && points.accepts(&e.point))
    };
    let steps: BTreeSet<u32> = both().map(|e| e.step).chain([0]).collect();
    for step in steps {
        let (tokens, context) = sizes(prompt, step);
        let known = graph.components().iter().filter(|c| points.accepts(&c.point));
        let pair = |point: &'a str, component: Option<&'a Component>| {
            let known = component.map(|component| Known { graph, component, tokens, context });
            let sides = (reference.find(&prompt.id, step, point), candidate.find(&prompt.id, step, point));
            self::pair((&prompt.id, step, point), (tokens, context), known, sides, gains)
        };
        let left_out = |point: &str| {
            [reference, candidate]
                .iter()
                .all(|t| t.find(&prompt.id, step, point).is_none() && t.manifest().leaves_out(step, point))
        };
        // Only what the tokens leave behind can be unknown by nature, and only before a later step is known.
        let by_nature =
            |c: &Component| step == 0 && !graph.axes(c).iter().any(|a| a == "tokens" || a == "context");
        for component in known.filter(|c| !(by_nature(c) && left_out(&c.point))) {
            pairs.push(pair(&component.point, Some(component))?);
        }
        let unknown: BTreeSet<&str> = both()
            .filter(|e| e.step == step && graph.get(&e.point).is_none())
            .map(|e| e.point.as_str())
            .collect();
        for point in unknown {
            pairs.push(pair(point, None)?);
        }
    }
    Ok(())
}

/// A component of a step.
#[derive(Clone, Copy)]
struct Known<'a> {
    graph: &'a Graph,
    component: &'a Component,
    tokens: usize,
    context: usize,
}

impl Known<'_> {
    /// The shape of what was captured, of these rows if not of all.
    fn shape(&self, rows: Option<&[usize]>) -> Vec<usize> {
        self.graph.shape_of_rows(self.component, self.tokens, self.context, rows)
    }
}

/// The query tokens whose rows both sides have; none where both have all.
pub fn common_rows(r: &Entry, c: &Entry) -> Option<Vec<usize>> {
    match (&r.rows, &c.rows) {
        (None, rows) | (rows, None) => rows.clone(),
        (Some(r), Some(c)) => Some(r.iter().copied().filter(|row| c.binary_search(row).is_ok()).collect()),
    }
}

fn partner<'a>(
    component: Option<Known<'_>>,
    reference: Option<&'a Entry>,
    candidate: Option<&'a Entry>,
    gains: &Gains,
) -> Result<Partner<'a>> {
    let (r, c) = match (reference, candidate) {
        (Some(r), Some(c)) => (r, c),
        (Some(_), None) => return Ok(Partner::Unmeasured("the candidate lacks it".into())),
        (None, Some(_)) => return Ok(Partner::Unmeasured("the reference lacks it".into())),
        (None, None) => return Ok(Partner::Unmeasured("both traces lack it".into())),
    };
    if let Some(note) = mismatch(component, r, c) {
        return Ok(Partner::Mismatched(note));
    }
    if common_rows(r, c).is_some_and(|rows| rows.is_empty()) {
        return Ok(Partner::Unmeasured("the two sides kept the rows of different tokens".into()));
    }
    for (entry, other) in [(r, c), (c, r)] {
        if let Err(note) = restore(component.map(|known| known.component), entry, other, gains)? {
            return Ok(Partner::Unmeasured(note));
        }
    }
    Ok(Partner::Matched(r, c))
}

/// Why two entries cannot be compared, whatever is known about the model.
fn mismatch(known: Option<Known<'_>>, r: &Entry, c: &Entry) -> Option<String> {
    let row_axis = known.and_then(|known| known.graph.row_axis(known.component));
    if row_axis.is_none() && (r.rows.is_some() || c.rows.is_some()) {
        let words = |entry: &Entry| entry.rows.as_ref().map_or("all", |_| "some");
        return Some(format!(
            "{} of the rows in the reference, {} in the candidate, of a point that has none by its description",
            words(r),
            words(c)
        ));
    }
    if r.rows == c.rows && r.shape != c.shape {
        return Some(format!("shape {:?} in the reference, {:?} in the candidate", r.shape, c.shape));
    }
    if r.dtype.is_float() != c.dtype.is_float() {
        return Some(format!("dtype {} in the reference, {} in the candidate", r.dtype, c.dtype));
    }
    if r.basis != c.basis && !(is_known(&r.basis) && is_known(&c.basis)) {
        return Some(format!("basis {} in the reference, {} in the candidate", r.basis, c.basis));
    }
    if let Some(known) = known {
        let component = known.component;
        // Each side has its own rows; beyond them both must be what the configuration says.
        for (side, entry) in [("reference", r), ("candidate", c)] {
            let shape = known.shape(entry.rows.as_deref());
            if entry.shape != shape && r.shape == c.shape {
                return Some(format!("shape {:?} on both sides, {shape:?} by the configuration", r.shape));
            }
            if entry.shape != shape {
                return Some(format!(
                    "shape {:?} in the {side}, {shape:?} by the configuration",
                    entry.shape
                ));
            }
        }
        if component.dtype.is_some_and(|d| d != r.dtype)
            || (component.dtype.is_none() && r.dtype == DType::U8)
        {
            return Some(format!("dtype {} does not fit this point", r.dtype));
        }
    }
    None
}

fn nothing_in_common(reference: &Trace, candidate: &Trace, pairs: &[Pair<'_>]) -> Error {
    if let Some(note) = pairs.iter().find_map(|p| match &p.partner {
        Partner::Mismatched(note) => Some((p.point, note)),
        _ => None,
    }) {
        return Error::new(format!("no point can be compared: `{}` has {}", note.0, note.1))
            .at(candidate.path())
            .hint("do both traces belong to the same model and prompt?");
    }
    let sample = |trace: &Trace| {
        trace.entries().iter().take(3).map(|e| e.point.clone()).collect::<Vec<_>>().join(", ")
    };
    let error = Error::new("the traces have no point in common")
        .expected(sample(reference), sample(candidate))
        .at(candidate.path());
    let known = pairs.iter().filter_map(|p| p.component).map(|c| c.point.as_str());
    match candidate.entries().first().and_then(|e| nearest_point(&e.point, known)) {
        Some(near) => {
            error.hint(format!("points carry the Hugging Face module path: did you mean `{near}`?"))
        }
        None => error.hint("points carry the Hugging Face module path, such as model.layers.0.mlp.up_proj"),
    }
}
