//! The formula of each kind of component in one line, for people.

use crate::model::Op;

/// What the component computes; x is its first input, w its parameter.
pub(super) fn formula(op: Op) -> &'static str {
    match op {
        Op::Embedding => "row w[id] for each token",
        Op::RopeTable => "cos or sin of position · θ^(−i/half)",
        Op::RmsNorm => "x · 1/√(mean x² + ε) · (shift + w)",
        Op::GatedRmsNorm => "w · o/√(mean o² + ε) · silu(z)",
        Op::L2Norm => "x / √(Σ x² + ε) for each head",
        Op::Linear => "x Wᵀ",
        Op::SplitHeads => "one part of each head's row, copied",
        Op::Rope => "(a cos − b sin, b cos + a sin) for each pair (a, b) of a head's halves",
        Op::CausalMask => "1 where a token may look, at itself and all before it; else 0",
        Op::KvCache => "what the step before left, and this step's rows behind it",
        Op::AttentionScores => "q · k / √d where the mask allows it, else −∞",
        Op::Softmax => "exp(s − max) / Σ exp(s − max) over each row",
        Op::AttentionContext => "Σ p v over the tokens",
        Op::SigmoidGate => "x · sigmoid(gate)",
        Op::Sigmoid => "sigmoid(x)",
        Op::CausalConvSilu => "silu(Σⱼ wⱼ x₍t−K+1+j₎) for each channel, the oldest tap first",
        Op::ConvState => "the last inputs of each channel, the oldest first",
        Op::GdnDecay => "exp(−exp(A_log) · softplus(a + dt_bias)) for each value head",
        Op::DeltaRule => "for each token: S ← g S; m = Sᵀ k; S ← S + k ((v − m) β)ᵀ; o = Sᵀ q / √d",
        Op::DeltaRuleState => "S after the last token: S ← g S; m = Sᵀ k; S ← S + k ((v − m) β)ᵀ",
        Op::Add => "the sum of the inputs",
        Op::AddScaled => "a + scale · b",
        Op::SiluMul => "silu(gate) · up",
    }
}
