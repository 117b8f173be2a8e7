//! All that is found out about each pair: its errors by arm, and the judgement.

use super::assemble::Options;
use crate::align::{Pair, align};
use crate::arms::Quantization;
use crate::compare::{compare, refuse_other_arm, refuse_repeated_layers, refuse_wrong_seed};
use crate::error::Result;
use crate::localize::{Evidence, Judgement, State, Storage, localize};
use crate::metrics::Metrics;
use crate::online::{self, Base, Measured};
use crate::progress;
use crate::replay::{Held, Place, Replay, replay};
use crate::trace::Trace;
use std::collections::HashMap;

/// One pair with all that was found out about it.
pub(super) struct Row<'a> {
    /// Reference and candidate.
    pub pair: Pair<'a>,
    /// C − T.
    pub total: Option<Metrics>,
    /// Q − T, where arm Q was run.
    pub quantization: Option<Metrics>,
    /// C − Q, where arm Q was run.
    pub engine: Option<Metrics>,
    pub judgement: Option<Judgement>,
    /// Why the candidate cannot be judged here, though reference and candidate could be compared.
    pub unjudged: Option<String>,
    /// Why it was not replayed, though the weights are known.
    pub not_replayed: Option<String>,
    /// True where arm Q is what the candidate is judged by.
    pub armed: bool,
}

impl Row<'_> {
    /// The metrics that the candidate is judged by: against arm Q where that was run.
    pub fn judged(&self) -> Option<&Metrics> {
        if self.armed { self.engine.as_ref() } else { self.total.as_ref() }
    }

    /// Prompt, step and point.
    pub fn key(&self) -> online::Key {
        owned(&self.pair)
    }

    /// Why nothing is known about the candidate here; none where something is.
    pub fn note(&self) -> Option<&str> {
        self.pair.note().or(self.unjudged.as_deref())
    }
}

/// A point of a step of a prompt.
type Key<'a> = (&'a str, u32, &'a str);

fn key<'a>(pair: &Pair<'a>) -> Key<'a> {
    (pair.prompt, pair.step, pair.point)
}

fn owned(pair: &Pair<'_>) -> online::Key {
    (pair.prompt.to_owned(), pair.step, pair.point.to_owned())
}

/// What arm Q shows of a point.
struct Split {
    quantization: Option<Metrics>,
    engine: Option<Metrics>,
    judgement: Option<Judgement>,
    /// Why it shows nothing.
    note: Option<String>,
}

/// Compares the arms with each other and judges the candidate, prompt after prompt.
pub(super) fn rows<'a>(
    reference: &'a Trace,
    candidate: &'a Trace,
    quantization: Quantization<'a>,
    options: &Options<'a>,
) -> Result<Vec<Row<'a>>> {
    let live = options.live.map(|live| live.measured);
    let (pairs, total) = measure(reference, candidate, live.map(|live| (live, Base::Reference)), options)?;
    let locals = match live {
        Some(measured) => {
            pairs.iter().filter_map(|p| Some((key(p), measured.replay(&owned(p))?.clone()))).collect()
        }
        None => replayed(candidate, &pairs, options.held, options)?,
    };
    let storage = quantization.storage(reference, candidate);
    let mut rows = judged(reference, candidate, quantization, (pairs, total), &locals, &storage, options)?;
    for row in &mut rows {
        row.not_replayed = match locals.get(&key(&row.pair)) {
            Some(Replay::Unmeasured(why)) => Some(why.clone()),
            _ => None,
        };
    }
    Ok(rows)
}

fn judged<'a>(
    reference: &'a Trace,
    candidate: &'a Trace,
    quantization: Quantization<'a>,
    (pairs, total): (Vec<Pair<'a>>, Vec<Option<Metrics>>),
    locals: &Locals<'a>,
    storage: &Storage,
    options: &Options<'a>,
) -> Result<Vec<Row<'a>>> {
    match quantization {
        Quantization::Exact | Quantization::Stated | Quantization::Unknown | Quantization::Other => {
            let mut judgements = judge(&pairs, &total, [locals, &Locals::new()], storage, options);
            if options.reference_held.is_some() && judgements.iter().flatten().any(|j| j.disputed) {
                let theirs = replayed(reference, &pairs, options.reference_held, options)?;
                judgements = judge(&pairs, &total, [locals, &theirs], storage, options);
            }
            let rows = pairs.into_iter().zip(total).zip(judgements);
            Ok(rows
                .map(|((pair, total), judgement)| Row {
                    pair,
                    total,
                    quantization: None,
                    engine: None,
                    unjudged: not_judged(judgement.as_ref()),
                    judgement,
                    not_replayed: None,
                    armed: false,
                })
                .collect())
        }
        Quantization::Unmeasured => {
            // Only what no format explains can be held against the candidate: a number that is not finite.
            let nothing_known = Storage { parameter_error: everything(&pairs), ..storage.clone() };
            let judgements = judge(&pairs, &total, [locals, &Locals::new()], &nothing_known, options);
            let rows = pairs.into_iter().zip(total).zip(judgements);
            Ok(rows.map(|((pair, total), judgement)| without_arm(pair, total, judgement)).collect())
        }
        Quantization::Arm(arm) => {
            let mut split = split(reference, candidate, arm, locals, storage, options)?;
            let rows = pairs.into_iter().zip(total);
            Ok(rows.map(|(pair, total)| with_arm(split.remove(&key(&pair)), pair, total)).collect())
        }
    }
}

fn measure<'a>(
    reference: &'a Trace,
    candidate: &'a Trace,
    live: Option<(&Measured, Base)>,
    options: &Options<'a>,
) -> Result<(Vec<Pair<'a>>, Vec<Option<Metrics>>)> {
    let pairs = align(options.graph, reference, candidate, options.points, options.gains)?;
    if let Some((measured, base)) = live {
        let metrics: Vec<_> = pairs.iter().map(|p| measured.metrics(base, &owned(p)).cloned()).collect();
        refuse_wrong_seed(candidate, &pairs, &metrics)?;
        return Ok((pairs, metrics));
    }
    let _stage = progress::stage(format_args!(
        "comparing {} pairs of {} and {}",
        pairs.len(),
        reference.path().display(),
        candidate.path().display()
    ));
    let bar = progress::bar("comparing", pairs.len() as u64, options.quiet);
    let metrics = compare(options.graph, reference, candidate, &pairs, options.gains, || bar.inc(1));
    bar.finish_and_clear();
    refuse_wrong_seed(candidate, &pairs, &metrics)?;
    Ok((pairs, metrics))
}

/// What came of the replay of a side's points.
type Locals<'a> = HashMap<Key<'a>, Replay>;

/// Replays what a side has of the points, where its weights are known.
fn replayed<'a>(
    side: &Trace,
    pairs: &[Pair<'a>],
    held: Option<&Held>,
    options: &Options<'_>,
) -> Result<Locals<'a>> {
    let Some(held) = held else { return Ok(Locals::new()) };
    let prompts = &side.manifest().prompts;
    let there = |pair: &&Pair<'a>| side.find(pair.prompt, pair.step, pair.point).is_some();
    let place = |pair: &Pair<'a>| {
        let prompt = prompts.iter().find(|p| p.id == pair.prompt)?;
        Some((key(pair), Place { prompt, step: pair.step, point: pair.point }))
    };
    let (keys, places): (Vec<_>, Vec<_>) = pairs.iter().filter(there).filter_map(place).unzip();
    let _stage =
        progress::stage(format_args!("replaying {} points of {}", places.len(), side.path().display()));
    let bar = progress::bar("replaying", places.len() as u64, options.quiet);
    let replays = replay(side, held, &places, || bar.inc(1))?;
    bar.finish_and_clear();
    Ok(keys.into_iter().zip(replays).collect())
}

fn judge(
    pairs: &[Pair<'_>],
    metrics: &[Option<Metrics>],
    [locals, reference]: [&Locals<'_>; 2],
    storage: &Storage,
    options: &Options<'_>,
) -> Vec<Option<Judgement>> {
    let all = pairs.iter().zip(metrics);
    let all: Vec<Evidence<'_>> = all
        .map(|(pair, metrics)| Evidence {
            pair,
            metrics: metrics.as_ref(),
            local: locals.get(&key(pair)).and_then(Replay::local),
            reference: reference.get(&key(pair)).and_then(Replay::local),
        })
        .collect();
    let prompts = all.chunk_by(|a, b| a.pair.prompt == b.pair.prompt);
    prompts.flat_map(|prompt| localize(options.graph, options.floor, storage, prompt)).collect()
}

/// An infinite storage error for every parameter.
fn everything(pairs: &[Pair<'_>]) -> std::collections::BTreeMap<String, f64> {
    let params = pairs.iter().filter_map(|p| p.component).flat_map(|c| &c.params);
    params.map(|param| (param.clone(), f64::INFINITY)).collect()
}

/// Why an error is not judged: more than the limit would be excused, or neither side is known to err.
fn not_judged(judgement: Option<&Judgement>) -> Option<String> {
    let judgement = judgement.filter(|j| j.state == State::Unmeasured)?;
    if judgement.disputed {
        return Some(super::verdict::dispute(judgement));
    }
    Some(format!(
        "rounding and storage would explain an error of {:.1e} here, too much to tell a fault: {}",
        judgement.explained, judgement.cause
    ))
}

/// A point of a quantized candidate without arm Q: its total error is known, its own is not.
fn without_arm(pair: Pair<'_>, total: Option<Metrics>, judgement: Option<Judgement>) -> Row<'_> {
    let nothing =
        |j: &Judgement| matches!(j.state, State::Explained | State::Unmeasured) && j.local.is_none();
    let judgement = judgement.filter(|j| !nothing(j));
    let unjudged =
        judgement.is_none().then(|| "what the engine adds to quantization: there is no arm Q".to_owned());
    Row {
        pair,
        total,
        quantization: None,
        engine: None,
        judgement,
        unjudged,
        not_replayed: None,
        armed: false,
    }
}

fn with_arm(split: Option<Split>, pair: Pair<'_>, total: Option<Metrics>) -> Row<'_> {
    let split = split.unwrap_or(Split {
        quantization: None,
        engine: None,
        judgement: None,
        note: Some("arm Q lacks it".into()),
    });
    Row {
        pair,
        total,
        quantization: split.quantization,
        engine: split.engine,
        unjudged: split.note.or_else(|| not_judged(split.judgement.as_ref())),
        judgement: split.judgement,
        not_replayed: None,
        armed: true,
    }
}

fn split<'a>(
    reference: &'a Trace,
    candidate: &'a Trace,
    arm: &'a Trace,
    locals: &Locals<'a>,
    storage: &Storage,
    options: &Options<'a>,
) -> Result<HashMap<Key<'a>, Split>> {
    refuse_repeated_layers(options.graph, arm)?;
    let live = options.live.map(|live| (live.measured, Base::ArmQ));
    let (pairs, engine) = measure(arm, candidate, live, options)?;
    if candidate.manifest().provenance.hashes.dequantized.is_none() {
        refuse_other_arm(arm, &pairs, &engine, true)?;
    }
    let judgements = judge(&pairs, &engine, [locals, &Locals::new()], storage, options);
    let mut split: HashMap<Key<'a>, Split> = HashMap::new();
    for ((pair, engine), judgement) in pairs.iter().zip(engine).zip(judgements) {
        let note = pair.note().map(|note| format!("between arm Q and the candidate: {note}"));
        split.insert(key(pair), Split { quantization: None, engine, judgement, note });
    }
    let (pairs, prices) = measure(reference, arm, None, options)?;
    refuse_other_arm(arm, &pairs, &prices, false)?;
    for (pair, price) in pairs.iter().zip(prices) {
        if let Some(split) = split.get_mut(&key(pair)) {
            split.quantization = price;
            if split.note.is_none() {
                split.note = pair.note().map(|note| format!("between the reference and arm Q: {note}"));
            }
        }
    }
    Ok(split)
}
