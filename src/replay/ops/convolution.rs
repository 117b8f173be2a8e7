//! The causal convolution of a GatedDeltaNet.

use super::norm::silu;
use super::sized;
use crate::replay::judge::Judge;
use crate::replay::precision::within_range;
use crate::replay::step::{Replayed, Step};

/// The inputs of the step behind those that the step before left: `[channels, kept + tokens]`.
fn with_history(step: &Step<'_>, kept: usize) -> Replayed<(usize, Vec<f64>)> {
    let x = step.input(0)?.to_f64();
    let channels = step.dim("conv_dim");
    sized("the input", x.len(), step.tokens() * channels)?;
    let width = kept + step.tokens();
    let mut all = vec![0.0; channels * width];
    if let Some(state) = step.carried()? {
        let state = state.to_f64();
        sized("the state", state.len(), channels * kept)?;
        for (line, old) in all.chunks_exact_mut(width).zip(state.chunks_exact(kept.max(1))) {
            line[..kept].copy_from_slice(&old[..kept]);
        }
    }
    for (t, row) in x.chunks_exact(channels).enumerate() {
        all.chunks_exact_mut(width).zip(row).for_each(|(line, x)| line[kept + t] = *x);
    }
    Ok((width, all))
}

/// Which input a tap takes, of token, tap and kernel, from those that are kept on; none is 0.
pub(crate) type Tap = fn(usize, usize, usize) -> Option<usize>;

/// `silu(Σ_j w_j x_{t−K+1+j})` for each channel, the oldest tap first.
pub(crate) fn conv_silu(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    conv_by(step, judge, |t, j, _| Some(t + j), silu)
}

/// [`conv_silu`] with other taps and another activation.
pub(crate) fn conv_by(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    tap: Tap,
    activation: fn(f64) -> f64,
) -> Replayed<()> {
    let w = step.parameter(0)?.to_f64();
    let channels = step.dim("conv_dim");
    let kernel = w.len() / channels.max(1);
    sized("the weight", w.len(), channels * kernel)?;
    let (width, all) = with_history(step, kernel.saturating_sub(1))?;
    let precision = step.precision()?;
    let gamma = precision.gamma(kernel + 1);
    for t in 0..step.tokens() {
        let (mut out, mut bounds) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
        for (line, w) in all.chunks_exact(width).zip(w.chunks_exact(kernel)) {
            let terms = w.iter().enumerate().filter_map(|(j, w)| {
                let x = line.get(tap(t, j, kernel)?)?;
                Some(x * w)
            });
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), p: f64| (sum + p, size + p.abs()));
            let y = activation(sum);
            out.push(y);
            // silu has slope at most 1.1; a sum may be rounded to the stored type before it.
            let error = gamma * size + precision.stored * sum.abs();
            // A logistic function below the smallest number is 0, whatever it is multiplied with.
            let least = precision.least * (kernel as f64 + sum.abs());
            let rounding = 6.0 * precision.unit * y.abs() + precision.stored * y.abs();
            bounds.push(within_range(size, 1.1 * error + rounding + least));
        }
        judge.check(t * channels, &out, &bounds);
    }
    Ok(())
}

/// The last inputs of each channel, the oldest first; zeros before the first token.
pub(crate) fn state(step: &Step<'_>, judge: &mut Judge<'_>) -> Replayed<()> {
    state_by(step, judge, |line, kept| line[line.len() - kept..].to_vec())
}

/// [`state`] of other inputs: of a channel's old state with the new inputs behind it, and the size of a state.
pub(crate) fn state_by(
    step: &Step<'_>,
    judge: &mut Judge<'_>,
    keep: fn(&[f64], usize) -> Vec<f64>,
) -> Replayed<()> {
    let kept = step.dim("conv_tail");
    let (width, all) = with_history(step, kept)?;
    for (channel, line) in all.chunks_exact(width).enumerate() {
        judge.check_exact(channel * kept, &keep(line, kept));
    }
    Ok(())
}
