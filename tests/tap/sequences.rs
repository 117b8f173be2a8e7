//! Whatever an engine does, there is a valid trace with all of it, or an error and nothing.

use super::{common, names, open, tiny_model};
use layerdiff::tap::Tap;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const POINTS: [&str; 4] = ["model.norm", "lm_head", "model.layers.3.self_attn.attention_mask", "model.nrom"];

/// Token ids of the tiny model are below this.
const VOCABULARY: u32 = 32;

#[derive(Debug, Clone)]
enum Call {
    Prompt(usize, Vec<u32>),
    Step(u32),
    /// A point, and whether the shape is the model's.
    Tensor(usize, bool),
    Row(usize, usize),
}

fn call() -> impl Strategy<Value = Call> {
    // Mostly what is right, or hardly a sequence would be.
    let point = || prop_oneof![20 => 0..3_usize, 1 => Just(3_usize)];
    let token = || prop_oneof![30 => 0..VOCABULARY, 1 => Just(VOCABULARY)];
    prop_oneof![
        2 => (0..4_usize, prop::collection::vec(token(), 0..4)).prop_map(|(id, ids)| Call::Prompt(id, ids)),
        2 => token().prop_map(Call::Step),
        6 => (point(), prop::bool::weighted(0.95)).prop_map(|(point, right)| Call::Tensor(point, right)),
        2 => (0..2_usize, 0..3_usize).prop_map(|(point, row)| Call::Row(point, row)),
    ]
}

/// Where the engine is, by its own books, what it has said, and whether all of that was right.
#[derive(Debug, Default)]
struct Engine {
    /// The running one: its number, and how many tokens it has.
    prompt: Option<(usize, usize)>,
    seen: BTreeSet<usize>,
    step: u32,
    /// Values by prompt, step, point and row.
    told: BTreeMap<(usize, u32, usize, usize), Vec<f32>>,
    /// How many rows there must be, by prompt, step and point.
    height: BTreeMap<(usize, u32, usize), usize>,
    calls: usize,
    rows: usize,
    wrong: bool,
}

impl Engine {
    fn do_it(&mut self, call: &Call, tap: &Tap) {
        match call {
            Call::Prompt(id, token_ids) => {
                (self.prompt, self.step) = (Some((*id, token_ids.len())), 0);
                let bad = token_ids.is_empty() || token_ids.iter().any(|token| *token >= VOCABULARY);
                self.wrong |= bad || !self.seen.insert(*id);
                tap.prompt(&format!("p{id}"), token_ids);
            }
            Call::Step(token) => {
                self.step += 1;
                self.wrong |= self.prompt.is_none() || *token >= VOCABULARY;
                tap.step(*token);
            }
            Call::Tensor(point, right) => {
                let (id, tokens) = self.prompt.unwrap_or((0, 1));
                let now = self.now();
                self.wrong |= self.prompt.is_none() || !right || *point == 3;
                self.height.insert((id, self.step, *point), now);
                let context = tokens + self.step as usize;
                let width = [8, 32, context, 8][*point];
                let shape = if *right { [now, width] } else { [width, now + 1] };
                let values = common::noise(&format!("{}", self.calls), shape[0] * shape[1]);
                if *point == 2 {
                    tap.tensor(POINTS[2], &shape, &vec![1_u8; values.len()]);
                } else {
                    tap.tensor(POINTS[*point], &shape, &values);
                }
                for (row, values) in values.chunks(width.max(1)).enumerate() {
                    self.tell(id, *point, row, values);
                }
            }
            Call::Row(point, row) => {
                let (width, id) = ([8, 32][*point], self.prompt.unwrap_or((0, 1)).0);
                self.wrong |= self.prompt.is_none() || *row >= self.now();
                self.height.insert((id, self.step, *point), self.now());
                let values = common::noise(&format!("{}", self.calls), width);
                tap.rows(POINTS[*point], *row, &[1, width], &values);
                self.tell(id, *point, *row, &values);
            }
        }
        self.calls += 1;
    }

    /// Tokens of this step.
    fn now(&self) -> usize {
        if self.step == 0 { self.prompt.map_or(1, |(_, tokens)| tokens) } else { 1 }
    }

    /// True where something was said, and all that was said was right, once and whole.
    fn all_right(&self) -> bool {
        let rows = |key: &(usize, u32, usize)| {
            self.told.keys().filter(|(id, step, point, _)| (*id, *step, *point) == *key).count()
        };
        let whole = self.height.iter().all(|(key, height)| rows(key) == *height);
        !self.wrong && whole && self.rows == self.told.len() && self.rows > 0
    }

    fn tell(&mut self, id: usize, point: usize, row: usize, values: &[f32]) {
        self.rows += 1;
        self.told.insert((id, self.step, point, row), values.to_vec());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_sequence_of_calls_gives_a_trace_of_all_of_it_or_an_error_and_nothing(
        calls in prop::collection::vec(call(), 0..9),
        begun in prop::bool::weighted(0.9),
    ) {
        let (root, model) = (tempfile::tempdir().unwrap(), tiny_model());
        let out = root.path().join("out");
        let tap = Tap::to(&out, "test", "1", model.path()).unwrap();
        let mut engine = Engine::default();
        let first = Call::Prompt(9, vec![1, 2]);
        begun.then_some(&first).into_iter().chain(&calls).for_each(|call| engine.do_it(call, &tap));
        match tap.finish() {
            Err(error) => {
                prop_assert!(names(root.path()).is_empty(), "{error}");
                prop_assert!(!engine.all_right(), "{error}");
            }
            Ok(()) => {
                let trace = open(&out);
                prop_assert!(engine.all_right());
                let mut found = 0;
                for entry in trace.entries() {
                    let point = POINTS.iter().position(|point| *point == entry.point).unwrap();
                    let id = entry.prompt[1..].parse().unwrap();
                    let values = trace.view(entry).to_f64();
                    for (row, values) in values.chunks(entry.shape[1]).enumerate() {
                        let told = &engine.told[&(id, entry.step, point, row)];
                        let told: Vec<f64> =
                            told.iter().map(|v| if point == 2 { 1.0 } else { f64::from(*v) }).collect();
                        prop_assert_eq!(values, told);
                        found += 1;
                    }
                }
                prop_assert_eq!(found, engine.told.len(), "something that was told is not there");
            }
        }
    }
}
