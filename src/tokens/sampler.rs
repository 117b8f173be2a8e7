//! Sampling with random numbers that two engines have in common.
//!
//! The Gumbel-max trick: the token of the largest `logit / T + noise` is a sample of the distribution at
//! temperature T. The noise of each token is a function of seed, prompt, step and token alone
//! (`layerdiff_hooks.sampler` is its twin), so that engines share it without sharing a generator. Where their
//! distributions differ by the total variation `TV`, they then differ in a token with a probability between
//! `TV` and `2 TV / (1 + TV)` (Daliri, Musco, Suresh: *Coupling without communication and drafter-invariant
//! speculative decoding*, 2024).

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The random numbers of one prompt.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    temperature: f64,
    key: u64,
}

impl Sampler {
    /// The one that `seed` makes for a prompt.
    pub fn new(temperature: f64, seed: u64, prompt_id: &str) -> Self {
        Self { temperature, key: mix(seed ^ fnv1a(prompt_id.as_bytes())) }
    }

    /// Draws a token in a step.
    pub fn draw(&self, logits: &[f32], step: usize) -> u32 {
        let key = mix(self.key.wrapping_add((step as u64).wrapping_mul(GOLDEN)));
        let score =
            |(token, logit): (u32, &f32)| (token, f64::from(*logit) / self.temperature + gumbel(key, token));
        let scores = (0..).zip(logits).map(score);
        let best = scores.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        best.map_or(0, |(token, _)| token)
    }
}

/// The noise of a token: SplitMix64 of key and token, as a uniform number in (0, 1).
fn gumbel(key: u64, token: u32) -> f64 {
    let x = mix(key.wrapping_add((u64::from(token) + 1).wrapping_mul(GOLDEN)));
    let uniform = ((x >> 11) as f64 + 0.5) * (-53.0f64).exp2();
    -(-uniform.ln()).ln()
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: *Fast splittable pseudorandom number generators*, 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::super::distribution::Distribution;
    use super::*;

    /// Made by `hooks/tests/test_sampler.py`, which holds the same numbers.
    #[test]
    fn the_noise_is_that_of_the_python_side() {
        let key = |seed, id: &str, step: u64| {
            mix(mix(seed ^ fnv1a(id.as_bytes())).wrapping_add(step.wrapping_mul(GOLDEN)))
        };
        for (seed, id, step, token, expected) in GOLDENS {
            let noise = gumbel(key(seed, id, step), token);
            assert!((noise - expected).abs() < 1e-12, "{seed} {id} {step} {token}: {noise} {expected}");
        }
    }

    const GOLDENS: [(u64, &str, u64, u32, f64); 4] = [
        (0, "a", 0, 0, -0.501_012_743_878_968_2),
        (0, "a", 0, 2047, 2.274_801_579_357_954_6),
        (7, "code-01", 99, 5, 2.867_502_491_731_95),
        (u64::MAX, "code-01", 1, 248_319, -0.036_667_553_515_153_99),
    ];

    #[test]
    fn the_draws_have_the_probabilities_of_the_distribution() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let expected = Distribution::new(&logits, 0.7).unwrap();
        let sampler = Sampler::new(0.7, 1, "p");
        let mut counts = [0u32; 4];
        for step in 0..20_000 {
            counts[sampler.draw(&logits, step) as usize] += 1;
        }
        for (token, count) in (0..).zip(counts) {
            let p = expected.log_probability(token).exp();
            let deviation = (p * (1.0 - p) / 20_000.0).sqrt();
            let share = f64::from(count) / 20_000.0;
            assert!((share - p).abs() < 5.0 * deviation, "{token}: {share} {p}");
        }
    }

    #[test]
    fn two_engines_differ_as_often_as_their_total_variation_allows() {
        let (a, b) = ([0.0f32, 1.0, 2.0, -1.0], [0.3f32, 0.6, 2.1, -1.0]);
        let tv = Distribution::new(&a, 1.0).unwrap().total_variation(&Distribution::new(&b, 1.0).unwrap());
        let sampler = Sampler::new(1.0, 5, "p");
        let differ = (0..20_000).filter(|s| sampler.draw(&a, *s) != sampler.draw(&b, *s)).count();
        let share = differ as f64 / 20_000.0;
        assert!(share > tv - 0.01 && share < 2.0 * tv / (1.0 + tv) + 0.01, "{share} {tv}");
    }
}
