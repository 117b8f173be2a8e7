//! The four errors of the arms, as the report states them.

use super::rows::Row;
use crate::arms::Quantization;
use crate::floor::Floor;
use crate::model::{Graph, layer_of};
use crate::number::count;
use crate::trace::{Provenance, Trace};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which arms were run. What was not is said to be unmeasured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arms {
    /// C − T: the whole difference.
    pub total: Arm,
    /// F − T, for each precision that was run.
    pub floor: Vec<Arm>,
    /// Q − T: the price of quantization.
    pub quantization: Arm,
    /// C − Q: what the candidate itself adds.
    pub engine: Arm,
}

/// One difference of two arms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// `measured`; `exact` where there is none by construction; `stated` where the trace only says how much
    /// its format changes each parameter; `unmeasured`.
    pub status: String,
    /// What was run, in words.
    pub description: String,
    /// Precision of the arm, where it is one of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Origin of the arm's own run; none where it is the reference's or the candidate's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// The relative L2 errors at one point; none of what was not measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Figures {
    pub point: String,
    pub layer: Option<usize>,
    pub step: u32,
    pub prompt: String,
    #[serde(with = "crate::number::option")]
    pub total: Option<f64>,
    /// By the arm's precision.
    #[serde(with = "crate::number::map")]
    pub floor: BTreeMap<String, f64>,
    #[serde(with = "crate::number::option")]
    pub quantization: Option<f64>,
    #[serde(with = "crate::number::option")]
    pub engine: Option<f64>,
}

/// The errors of the logits at one position of the sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TokenError {
    /// 0 is the prefill.
    pub step: u32,
    /// Position in the sequence, from 0 on.
    pub position: usize,
    #[serde(with = "crate::number::option")]
    pub total: Option<f64>,
    #[serde(with = "crate::number::option")]
    pub quantization: Option<f64>,
    #[serde(with = "crate::number::option")]
    pub engine: Option<f64>,
}

impl Arms {
    pub(super) fn new(
        reference: &Trace,
        candidate: &Trace,
        quantization: Quantization<'_>,
        floors: &[&Floor],
    ) -> Self {
        let (t, c) = (&reference.manifest().provenance, &candidate.manifest().provenance);
        let arm = |status: &str, description: String| Arm {
            status: status.to_owned(),
            description,
            dtype: None,
            provenance: None,
        };
        let measured = floors.iter().filter(|f| f.dtype().is_some());
        let floor =
            measured.map(|f| Arm { dtype: f.dtype().map(str::to_owned), ..arm("measured", f.description()) });
        let status = quantization.status();
        let (price, engine) = match quantization {
            Quantization::Exact => (
                arm(status, "none: both sides compute with the same weights".into()),
                arm("measured", "the total, since there is no price of quantization".into()),
            ),
            Quantization::Stated => (arm(status, stated(c)), arm("unmeasured", "at most the total".into())),
            Quantization::Arm(q) => {
                let who = &q.manifest().provenance;
                let rounded = who
                    .activation_bits
                    .map_or_else(String::new, |bits| format!(", activations in {bits} bits"));
                let description = format!(
                    "{} in {} on the candidate's dequantized weights{rounded}",
                    who.engine, who.dtype
                );
                let price = Arm { provenance: Some(who.clone()), ..arm(status, description) };
                (price, arm("measured", "the candidate against arm Q".into()))
            }
            Quantization::Other => {
                let why = "the two sides ran on different weights";
                (arm(status, why.into()), arm(status, why.into()))
            }
            Quantization::Unknown => {
                let why = "what a side computed with is not known: its trace has no hash of the weights";
                (arm(status, why.into()), arm(status, why.into()))
            }
            Quantization::Unmeasured => {
                let why = "no arm Q was run on the candidate's dequantized weights";
                (arm(status, why.into()), arm(status, why.into()))
            }
        };
        let total = arm("measured", format!("{} against {} in {}", c.engine, t.engine, t.dtype));
        Self { total, floor: floor.collect(), quantization: price, engine }
    }
}

fn stated(candidate: &Provenance) -> String {
    let worst = candidate.parameter_error.values().copied().max_by(f64::total_cmp).unwrap_or(0.0);
    let changed = count(candidate.parameter_error.len(), "weight tensor");
    format!("16 bits change {changed} by a relative L2 of at most {worst:.1e}, which is allowed for")
}

/// The errors of a row, as far as they are known; `quantized` says whether the candidate is.
pub(super) fn figures(
    row: &Row<'_>,
    quantization: Quantization<'_>,
    quantized: bool,
    floors: &[&Floor],
) -> Figures {
    let pair = &row.pair;
    let error = |m: &Option<crate::metrics::Metrics>| m.as_ref().map(|m| m.rel_l2);
    let total = error(&row.total);
    let exact = matches!(quantization, Quantization::Exact);
    let floor = |f: &&Floor| Some((f.dtype()?.to_owned(), f.error(pair.prompt, pair.step, pair.point)?));
    Figures {
        point: pair.point.to_owned(),
        layer: layer_of(pair.point),
        step: pair.step,
        prompt: pair.prompt.to_owned(),
        total,
        floor: floors.iter().filter_map(floor).collect(),
        // Of two runs on the same quantized weights none shows what the weights cost.
        quantization: if exact {
            total.filter(|_| !quantized).map(|_| 0.0)
        } else {
            error(&row.quantization)
        },
        engine: if exact { total } else { error(&row.engine) },
    }
}

/// The errors of the logits over the positions of one prompt.
pub(super) fn by_token(
    graph: &Graph,
    rows: &[Row<'_>],
    quantization: Quantization<'_>,
    prompt: &str,
) -> Vec<TokenError> {
    let Some(logits) = graph.components().last() else { return Vec::new() };
    let exact = matches!(quantization, Quantization::Exact);
    let mut tokens = Vec::new();
    for row in rows.iter().filter(|r| r.pair.prompt == prompt && r.pair.point == logits.point) {
        let at = |m: &Option<crate::metrics::Metrics>, i: usize| m.as_ref()?.per_token.get(i).copied()?;
        for i in 0..row.pair.tokens {
            let total = at(&row.total, i);
            tokens.push(TokenError {
                step: row.pair.step,
                position: row.pair.context - row.pair.tokens + i,
                total,
                quantization: if exact { total.map(|_| 0.0) } else { at(&row.quantization, i) },
                engine: if exact { total } else { at(&row.engine, i) },
            });
        }
    }
    tokens
}
