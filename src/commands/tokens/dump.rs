//! What a candidate leaves of a prompt: a trace in the form of PyTorch's.

use crate::capture::{require_identical, write_options};
use crate::checkpoint::ModelDir;
use crate::engine::{Engine, likeliest};
use crate::error::{Error, Result};
use crate::hook::{At, CaptureHook, Chain, Hook, NoHook};
use crate::model::PointFilter;
use crate::prompt::Prompt;
use crate::tensor::Tensor;
use crate::trace::{Evidence, Generated, MANIFEST, SelfCheck, TraceWriter};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokenizers::Tokenizer;

/// A run on the reference's tokens, and the engine's own.
pub(super) struct Said {
    /// The logits after the prompt and after each token that was given.
    pub rows: Vec<Vec<f32>>,
    /// The likeliest tokens, each after the engine's own.
    pub greedy: Vec<u32>,
    pub self_check: Vec<Evidence>,
}

/// Where the dumps of a candidate go, and what they keep.
pub(super) struct Dumps<'a> {
    pub model: &'a ModelDir,
    /// A directory by each prompt's id in it; none where nothing is kept.
    pub dir: Option<PathBuf>,
    /// The same points as in the reference's: the logits, or what they are made of.
    pub points: &'a PointFilter,
    /// None where the model has none.
    pub tokenizer: Option<Tokenizer>,
}

impl Dumps<'_> {
    /// True when the dump of `prompt` is there, or is not wanted.
    pub fn has(&self, prompt: &Prompt) -> bool {
        self.dir.as_ref().is_none_or(|dir| dir.join(&prompt.id).join(MANIFEST).is_file())
    }

    /// Runs `prompt` on its step tokens and lets the engine generate as many; keeps both.
    pub fn make(&self, engine: &mut dyn Engine, prompt: &Prompt) -> Result<Said> {
        let mut writer =
            self.dir.as_ref().map(|dir| self.writer(engine, &dir.join(&prompt.id))).transpose()?;
        if let Some(writer) = &mut writer {
            writer.start_prompt(prompt);
        }
        let (rows, self_check) = rows(
            engine,
            self.model,
            (&prompt.token_ids, &prompt.step_token_ids),
            (writer.as_mut(), self.points),
        )?;
        let begin = Instant::now();
        let count = prompt.step_token_ids.len();
        let greedy = engine.generate(&prompt.token_ids, count, &mut |l, _| likeliest(l), &mut NoHook)?;
        let seconds = begin.elapsed().as_secs_f64();
        if let Some(mut writer) = writer {
            let decode = |tokenizer: &Tokenizer| tokenizer.decode(&greedy, false).ok();
            writer.generated(Generated {
                token_ids: greedy.clone(),
                text: self.tokenizer.as_ref().and_then(decode),
                seconds,
            });
            writer.finish(Some(SelfCheck::new(self_check.clone())))?;
        }
        Ok(Said { rows, greedy, self_check })
    }

    /// A dump without its record is of a run that was killed between the two: it is made again.
    fn writer(&self, engine: &dyn Engine, target: &Path) -> Result<TraceWriter> {
        if target.exists() {
            std::fs::remove_dir_all(target).map_err(|e| Error::io("make a dump again", target, &e))?;
        }
        let mut provenance = engine.provenance();
        provenance.hashes = self.model.hashes()?;
        TraceWriter::create(target, write_options(self.model, provenance))
    }
}

/// The logits after the prompt and after each token that is given, and what the self-check found; the
/// `points` of all passes go to the writer.
pub(super) fn rows(
    engine: &mut dyn Engine,
    model: &ModelDir,
    (tokens, given): (&[u32], &[u32]),
    (writer, points): (Option<&mut TraceWriter>, &PointFilter),
) -> Result<(Vec<Vec<f32>>, Vec<Evidence>)> {
    let graph = model.graph();
    let point = graph.components().last().expect("an architecture has components").point.as_str();
    let rotation = engine.rotation().map_or_else(|| model.rotation(), |seed| Ok(Some(seed)))?;
    let mut last = Rows { point, rows: Vec::new() };
    let mut capture = writer.map(|writer| CaptureHook::new(writer, points).of(graph, rotation));
    let mut chain = Chain(vec![&mut last]);
    chain.0.extend(capture.as_mut().map(|capture| capture as &mut dyn Hook));
    let evidence = engine.run(tokens, given, &mut chain)?;
    let name = engine.provenance().engine;
    require_identical(&name, &SelfCheck::new(evidence.clone()))?;
    require_passes(&name, given.len() + 1, last.rows.len())?;
    Ok((last.rows, evidence))
}

/// Refuses a run that showed its logits more or less often than it was asked to: a figure over fewer
/// positions would look like one over all.
fn require_passes(engine: &str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    let passes = format!("{expected}: one after the prompt and one after each token that was given");
    Err(Error::new(format!("{engine} showed its logits in another number of passes"))
        .expected(passes, got)
        .hint("nothing is measured of such a run: its hooks or its passes are wrong, not the model"))
}

/// Keeps the logits of the last token of each pass.
struct Rows<'a> {
    point: &'a str,
    rows: Vec<Vec<f32>>,
}

impl Hook for Rows<'_> {
    fn wants(&self, point: &str) -> bool {
        point == self.point
    }

    fn call(&mut self, _: At<'_>, tensor: Tensor) -> Result<Tensor> {
        let vocab = *tensor.shape.last().expect("logits have axes");
        let values = tensor.clone().into_f32()?;
        self.rows.push(values[values.len() - vocab..].to_vec());
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;
    use crate::capture::open_engine;
    use crate::trace::Provenance;

    /// An engine that stops before the last tokens that it is given.
    struct Lazy(Box<dyn Engine>, usize);

    impl Engine for Lazy {
        fn provenance(&self) -> Provenance {
            self.0.provenance()
        }

        fn max_tokens(&self) -> usize {
            self.0.max_tokens()
        }

        fn generate(
            &self,
            tokens: &[u32],
            count: usize,
            choose: &mut dyn FnMut(&[f32], usize) -> u32,
            hook: &mut dyn Hook,
        ) -> Result<Vec<u32>> {
            self.0.generate(tokens, count, choose, hook)
        }

        fn run(&mut self, tokens: &[u32], forced: &[u32], hook: &mut dyn Hook) -> Result<Vec<Evidence>> {
            self.0.run(tokens, &forced[..forced.len() - self.1], hook)
        }
    }

    #[test]
    fn an_engine_that_makes_fewer_passes_than_it_was_asked_for_is_refused() {
        let bundle = Bundle::unpack().unwrap();
        let model = ModelDir::open(&bundle.model()).unwrap();
        let run = |left_out| {
            let engine = open_engine("lattice-f32", &model, None).unwrap();
            let tokens = ([1, 2].as_slice(), [3, 4].as_slice());
            rows(&mut Lazy(engine, left_out), &model, tokens, (None, &PointFilter::default()))
        };
        assert_eq!(run(0).unwrap().0.len(), 3);
        let error = run(1).unwrap_err().to_string();
        assert!(error.contains("expected: 3: one after the prompt") && error.contains("got: 2"), "{error}");
    }
}
