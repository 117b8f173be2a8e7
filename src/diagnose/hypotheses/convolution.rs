//! The causal convolution of a GatedDeltaNet.

use super::{Hypothesis, exact};
use crate::replay::Edits;
use crate::replay::ops::convolution::{conv_by, conv_silu, state, state_by};
use crate::replay::ops::elementwise::logistic;
use crate::replay::ops::norm::silu;

pub(super) const CONV: &[Hypothesis] = &[
    exact("conv-no-silu", "silu is left out", |s, j| conv_by(s, j, |t, i, _| Some(t + i), |x| x)),
    exact("conv-sigmoid", "sigmoid instead of silu", |s, j| conv_by(s, j, |t, i, _| Some(t + i), logistic)),
    exact("conv-silu-twice", "silu twice", |s, j| conv_by(s, j, |t, i, _| Some(t + i), |x| silu(silu(x)))),
    exact("conv-taps-reversed", "taps reversed: the newest first", |s, j| {
        conv_by(s, j, |t, i, k| Some(t + k - 1 - i), silu)
    }),
    exact(
        "conv-newest-twice",
        "the newest input is read twice and the oldest never: it enters the buffer before the buffer is read",
        |s, j| conv_by(s, j, |t, i, k| Some(t + (i + 1).min(k - 1)), silu),
    ),
    exact("conv-late", "inputs one token too late: the newest is not read", |s, j| {
        conv_by(s, j, |t, i, _| (t + i).checked_sub(1), silu)
    }),
    exact("conv-early", "inputs one token too early: the next one is read", |s, j| {
        conv_by(s, j, |t, i, _| Some(t + i + 1), silu)
    }),
    exact("conv-oldest-missing", "the oldest tap is left out", |s, j| {
        conv_by(s, j, |t, i, _| (i > 0).then_some(t + i), silu)
    }),
    exact("conv-newest-missing", "the newest tap is left out", |s, j| {
        conv_by(s, j, |t, i, k| (i + 1 < k).then_some(t + i), silu)
    }),
    exact("conv-state-ignored", "the inputs of the steps before are lost", |s, j| {
        conv_silu(&s.edited(&Edits::fresh()), j)
    }),
    exact("conv-no-history", "only the newest input is read", |s, j| {
        conv_by(s, j, |t, i, k| (i + 1 == k).then_some(t + i), silu)
    }),
    exact("conv-weight-transposed", "taps and channels of the weight exchanged", |s, j| {
        let channels = s.dim("conv_dim");
        let edits = Edits::of_parameter(s, 0, |_, w| {
            let (old, kernel) = (w.clone(), w.len() / channels);
            w.iter_mut().enumerate().for_each(|(i, w)| *w = old[i % kernel * channels + i / kernel]);
        })?;
        conv_silu(&s.edited(&edits), j)
    }),
];

pub(super) const STATE: &[Hypothesis] = &[
    exact("conv-state-not-updated", "the state is that of the step before", |s, j| {
        state_by(s, j, |line, kept| line[..kept].to_vec())
    }),
    exact("conv-state-late", "the state lacks the newest input", |s, j| {
        state_by(s, j, |line, kept| line[line.len() - kept - 1..line.len() - 1].to_vec())
    }),
    exact("conv-state-reversed", "the newest input comes first", |s, j| {
        state_by(s, j, |line, kept| line.iter().rev().take(kept).copied().collect())
    }),
    exact("conv-state-fresh", "the inputs of the steps before are lost", |s, j| {
        state(&s.edited(&Edits::fresh()), j)
    }),
    exact("conv-state-zero", "the state is not returned: 0", |s, j| {
        state_by(s, j, |_, kept| vec![0.0; kept])
    }),
    exact("conv-state-twice", "the newest input is kept twice", |s, j| {
        state_by(s, j, |line, kept| {
            let newest = line.last().copied();
            line[line.len() + 1 - kept..].iter().copied().chain(newest).collect()
        })
    }),
];
