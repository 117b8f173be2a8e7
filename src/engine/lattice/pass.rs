//! The instrumented forward pass: lattice's kernels in lattice's order, every point offered to a
//! hook.
//!
//! The serial engine takes one token through all layers before the next. A token at a layer
//! depends on earlier tokens at the same layer and on earlier layers, so that taking all tokens
//! through one layer before the next computes the same operations on the same numbers: the bits
//! are the same, and one layer's tensors are all that is in memory.

use super::adapter;
use super::attention;
use super::gdn;
use super::weights::{Matrix, Mixer, Sizes, Weights};
use crate::error::{Error, Result};
use crate::hook::{At, Hook, offer};
use crate::tensor::Tensor;
use lattice_compute::attention::gdn::{GatedDeltaNetState, GdnGeometry};
use lattice_compute::forward::cpu::{elementwise_mul, silu_inplace};
use lattice_compute::rope::RopeTable;
use lattice_tune::lora::LoraAdapter;

/// Which of the engine's numeric paths is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// One token at a time through the fused kernels: the F16 and Q8 engines, and every decode of
    /// the f32 engine.
    Serial,
    /// All tokens at once: the prefill of `generate` on the f32 engine.
    Batched,
    /// One token at a time through the plain loops of the Q8_0 engine.
    Scalar,
}

impl Path {
    /// The name in a trace's provenance.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial | Self::Scalar => "serial",
            Self::Batched => "batched",
        }
    }

    /// The path that decodes after a prefill on this one.
    fn decode(self) -> Self {
        match self {
            Self::Batched => Self::Serial,
            serial => serial,
        }
    }

    /// `x Wᵀ` row by row or all rows at once, as the path does it.
    pub(super) fn linear(self, w: &Matrix<'_>, x: &[f32], k: usize) -> Vec<f32> {
        match self {
            Self::Batched => w.rows(x, x.len() / k, k),
            Self::Serial | Self::Scalar => x.chunks_exact(k).flat_map(|row| w.rows(row, 1, k)).collect(),
        }
    }
}

/// The runs of an [`Engine`](crate::engine::Engine) that are the pass alone, through its `with_model`.
macro_rules! runs_of_the_model {
    () => {
        fn generate(
            &self,
            tokens: &[u32],
            count: usize,
            choose: &mut dyn FnMut(&[f32], usize) -> u32,
            hook: &mut dyn crate::hook::Hook,
        ) -> crate::error::Result<Vec<u32>> {
            self.with_model(|model| model.generate(tokens, count, choose, hook))
        }

        fn run_unchecked(
            &mut self,
            tokens: &[u32],
            forced: &[u32],
            hook: &mut dyn crate::hook::Hook,
        ) -> crate::error::Result<()> {
            self.with_model(|model| model.run(tokens, forced, hook).map(drop))
        }
    };
}

pub(super) use runs_of_the_model;

/// What a sequence leaves behind for its next token.
#[derive(Debug)]
pub struct State {
    /// Tokens seen so far.
    pub seen: usize,
    /// Rotated keys and values `[seen, kv_dim]` of each layer; empty for others.
    pub cache: Vec<(Vec<f32>, Vec<f32>)>,
    /// Convolution and recurrent state of each layer; unused for others.
    pub gdn: Vec<GatedDeltaNetState>,
}

impl State {
    /// That of an empty sequence.
    pub fn new(layers: usize, geometry: &GdnGeometry) -> Self {
        Self {
            seen: 0,
            cache: vec![Default::default(); layers],
            gdn: (0..layers).map(|_| GatedDeltaNetState::from_geometry(geometry)).collect(),
        }
    }
}

/// A model as its engine holds it, and how the engine computes with it.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    pub weights: &'a Weights<'a>,
    pub sizes: Sizes,
    pub geometry: &'a GdnGeometry,
    pub rope: &'a RopeTable,
    pub path: Path,
    pub adapter: Option<&'a LoraAdapter>,
}

impl Model<'_> {
    /// A prefill of `tokens`, then one step for each of `forced`: the hidden states of all positions, the logits
    /// after the prefill and after each step.
    pub fn run(&self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Output> {
        if tokens.is_empty() {
            return Err(Error::new("the prompt has no tokens"));
        }
        let mut state = State::new(self.weights.layers.len(), self.geometry);
        let mut output = self.pass(self.path, 0, hook).run(tokens, &mut state)?;
        for (step, &id) in (1..).zip(forced) {
            let next = self.pass(self.path.decode(), step, hook).run(&[id], &mut state)?;
            output.hidden.extend(next.hidden);
            output.logits.extend(next.logits);
        }
        Ok(output)
    }

    /// `count` tokens after `tokens`, each as `choose` takes it of the logits before it.
    pub fn generate(
        &self,
        tokens: &[u32],
        count: usize,
        choose: &mut dyn FnMut(&[f32], usize) -> u32,
        hook: &mut dyn Hook,
    ) -> Result<Vec<u32>> {
        let mut state = State::new(self.weights.layers.len(), self.geometry);
        let mut ids = Vec::new();
        let mut output = self.pass(self.path, 0, hook).run(tokens, &mut state)?;
        for step in 0..count {
            let next = choose(output.last(), step);
            ids.push(next);
            if ids.len() < count {
                output = self.pass(self.path.decode(), ids.len() as u32, hook).run(&[next], &mut state)?;
            }
        }
        Ok(ids)
    }

    fn pass<'b>(&'b self, path: Path, step: u32, hook: &'b mut dyn Hook) -> Pass<'b> {
        Pass {
            weights: self.weights,
            sizes: self.sizes,
            rope: self.rope,
            path,
            adapter: self.adapter,
            step,
            hook,
        }
    }
}

/// One pass over some tokens of a sequence.
pub struct Pass<'a> {
    pub weights: &'a Weights<'a>,
    pub sizes: Sizes,
    pub rope: &'a RopeTable,
    pub path: Path,
    pub adapter: Option<&'a LoraAdapter>,
    /// 0 is the prefill.
    pub step: u32,
    pub hook: &'a mut dyn Hook,
}

/// What a pass ends with.
pub struct Output {
    /// After the final norm: `[tokens, hidden]`.
    pub hidden: Vec<f32>,
    /// Of the last position: `[1, vocab]`.
    pub logits: Vec<f32>,
    /// Number of logits of one position.
    pub vocab: usize,
}

impl Output {
    /// The logits of the last position.
    pub fn last(&self) -> &[f32] {
        &self.logits[self.logits.len() - self.vocab..]
    }
}

impl Pass<'_> {
    /// Takes `tokens` through the model; `state` is read and brought up to date.
    pub fn run(mut self, tokens: &[u32], state: &mut State) -> Result<Output> {
        let Sizes { hidden, eps, .. } = self.sizes;
        let n = tokens.len();
        let embedded =
            tokens.iter().flat_map(|&id| self.weights.embed_tokens.row(id as usize, hidden)).collect();
        let mut stream = self.point("model.embed_tokens", &[n, hidden], embedded)?;
        let tables = self.rope_tables(state.seen, n)?;
        for (i, layer) in self.weights.layers.iter().enumerate() {
            let name = |local: &str| format!("model.layers.{i}.{local}");
            let normed = rms_norm(&stream, layer.input_layernorm, eps);
            let normed = self.point(&name("input_layernorm"), &[n, hidden], normed)?;
            let mixed = match &layer.mixer {
                Mixer::Full(w) => attention::layer(&mut self, i, w, &normed, &tables, &mut state.cache[i])?,
                Mixer::Linear(w) => gdn::layer(&mut self, i, w, &normed, &mut state.gdn[i])?,
            };
            let residual = add(&stream, &mixed);
            let residual = self.point(&name("post_attention_residual"), &[n, hidden], residual)?;
            let normed = rms_norm(&residual, layer.post_attention_layernorm, eps);
            let normed = self.point(&name("post_attention_layernorm"), &[n, hidden], normed)?;
            let inner = self.sizes.intermediate;
            let gate = self.linear(i, "mlp.gate_proj", &layer.gate_proj, &normed, hidden)?;
            let up = self.linear(i, "mlp.up_proj", &layer.up_proj, &normed, hidden)?;
            let act = self.point(&name("mlp.act"), &[n, inner], self.silu_mul(gate, &up))?;
            let down = self.linear(i, "mlp.down_proj", &layer.down_proj, &act, inner)?;
            stream = self.point(&format!("model.layers.{i}"), &[n, hidden], add(&residual, &down))?;
        }
        let normed = rms_norm(&stream, self.weights.norm, eps);
        let normed = self.point("model.norm", &[n, hidden], normed)?;
        let logits = self.logits(&normed, n)?;
        state.seen += n;
        Ok(Output { hidden: normed, vocab: logits.len(), logits })
    }

    /// The logits of the last position. Those of the others, which the engine does not compute, are there only
    /// for a hook that wants them.
    fn logits(&mut self, normed: &[f32], n: usize) -> Result<Vec<f32>> {
        const POINT: &str = "lm_head";
        let hidden = self.sizes.hidden;
        let shown = if self.hook.wants(POINT) { normed } else { &normed[normed.len() - hidden..] };
        // Both paths project one position at a time.
        let mut logits = Path::Serial.linear(&self.weights.head, shown, hidden);
        let vocab = logits.len() / (shown.len() / hidden);
        if logits.len() == n * vocab {
            logits = self.point(POINT, &[n, vocab], logits)?;
        }
        Ok(logits.split_off(logits.len() - vocab))
    }

    /// Cosines and sines `[tokens, rope_half]` from position `start` on.
    fn rope_tables(&mut self, start: usize, n: usize) -> Result<[Vec<f32>; 2]> {
        let half = self.sizes.rope_half;
        let range = start * half..(start + n) * half;
        let cos = range.clone().map(|i| self.rope.cos_at(i)).collect();
        let sin = range.map(|i| self.rope.sin_at(i)).collect();
        Ok([
            self.point("model.rotary_emb.cos", &[n, half], cos)?,
            self.point("model.rotary_emb.sin", &[n, half], sin)?,
        ])
    }

    /// `silu(gate) · up`, over a slice as long as the path's: the kernel's last lanes depend on it.
    fn silu_mul(&self, mut gate: Vec<f32>, up: &[f32]) -> Vec<f32> {
        let chunk = match self.path {
            Path::Serial | Path::Scalar => self.sizes.intermediate,
            Path::Batched => gate.len(),
        };
        for (gate, up) in gate.chunks_exact_mut(chunk).zip(up.chunks_exact(chunk)) {
            silu_inplace(gate);
            elementwise_mul(gate, up);
        }
        gate
    }

    /// A linear of layer `i` on rows of `k`, with the adapter on it if there is one: all that it computes
    /// is offered to the hook.
    pub(super) fn linear(
        &mut self,
        i: usize,
        local: &str,
        w: &Matrix<'_>,
        x: &[f32],
        k: usize,
    ) -> Result<Vec<f32>> {
        let point = format!("model.layers.{i}.{local}");
        let module = local.rsplit('.').next().unwrap_or(local);
        let mut out = self.path.linear(w, x, k);
        if let Some(adapter) = self.adapter {
            out = adapter::linear(self, adapter, (i, module), x, out, &point)?;
        }
        let n = x.len() / k;
        self.point(&point, &[n, out.len() / n], out)
    }

    /// Offers numbers to the hook.
    pub(super) fn point(&mut self, point: &str, shape: &[usize], values: Vec<f32>) -> Result<Vec<f32>> {
        self.offer(point, false, shape, values)
    }

    /// Offers numbers that the engine does not hold but that follow from what it holds. The second
    /// result is true when the hook changed a bit of them.
    pub(super) fn derived(
        &mut self,
        point: &str,
        shape: &[usize],
        values: Vec<f32>,
    ) -> Result<(Vec<f32>, bool)> {
        if !self.hook.wants(point) {
            return Ok((values, false));
        }
        let returned = self.offer(point, true, shape, values.clone())?;
        let changed = returned.iter().zip(&values).any(|(a, b)| a.to_bits() != b.to_bits());
        Ok((returned, changed))
    }

    fn offer(&mut self, point: &str, derived: bool, shape: &[usize], values: Vec<f32>) -> Result<Vec<f32>> {
        if !self.hook.wants(point) {
            return Ok(values);
        }
        let at = At { point, step: self.step, derived, rows: None };
        offer(self.hook, at, Tensor::new(shape, values))?.into_f32()
    }
}

/// `x · rsqrt(mean x² + eps) · (1 + w)` over rows as wide as `w`.
///
/// Order of operations: the squares are summed in order; the root is inverted once; each element
/// is multiplied by the inverse and then by `1 + w`.
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(w.len()) {
        let sum: f32 = row.iter().fold(0.0, |sum, v| sum + v * v);
        let inverse = 1.0 / (sum / w.len() as f32 + eps).sqrt();
        out.extend(row.iter().zip(w).map(|(v, w)| v * inverse * (1.0 + w)));
    }
    out
}

fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}
