//! The candidate's side: what it makes of the reference's tokens, and what it generates itself.

use super::dump::{Dumps, Said, rows};
use super::leftovers::sweep;
use super::questions::Asked;
use super::reference::{Reference, SETTINGS, check_dir};
use crate::checkpoint::ModelDir;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::NoHook;
use crate::parameters::Parameters;
use crate::progress;
use crate::prompt::{Prompt, refuse_too_long};
use crate::tokens::{
    ChoiceResult, Distribution, Divergence, Greedy, Logits, Position, Record, Sampler, Setting, compare,
};
use crate::trace::{Provenance, Trace};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::path::Path;
use tokenizers::Tokenizer;

/// Where the traces of a candidate go, beside its records.
const TRACES: &str = "traces";

/// Both sides of a candidate's run.
pub(super) struct Bench<'a> {
    pub model: &'a ModelDir,
    /// The weights that the reference ran on.
    pub parameters: &'a Parameters,
    pub reference: &'a Reference,
    pub setting: Setting,
    /// Whether a trace of each prompt is left beside its record.
    pub keep: bool,
    pub quiet: bool,
}

impl Bench<'_> {
    /// The records of all prompts and the answers to all questions; those that are there already are not
    /// made again.
    pub fn run(
        &self,
        engine: &mut dyn Engine,
        name: &str,
        questions: &[&Asked],
    ) -> Result<(Vec<Record>, Vec<ChoiceResult>, Provenance)> {
        let provenance = engine.provenance();
        let dir = self.reference.records(name);
        check_dir(
            &dir,
            &json!({"layerdiff": env!("CARGO_PKG_VERSION"), "candidate": provenance, "setting": self.setting}),
        )?;
        let _lock = sweep(&dir.join(SETTINGS), &[&dir, &dir.join(TRACES)]);
        self.check_lengths(engine, questions)?;
        let dumps = Dumps {
            model: self.model,
            dir: self.keep.then(|| dir.join(TRACES)),
            points: &self.reference.points,
            tokenizer: Tokenizer::from_file(self.model.path().join("tokenizer.json")).ok(),
        };
        let prompts = &self.reference.prompts;
        let bar = progress::bar(name, (prompts.len() + questions.len()) as u64, self.quiet);
        let mut records = Vec::new();
        for prompt in prompts {
            bar.set_message(prompt.id.clone());
            let file = dir.join(format!("{}.record.json", prompt.id));
            records.push(known_or(
                &file,
                |known: &Record| {
                    let of = known.prompt == prompt.id && known.greedy.reference == prompt.step_token_ids;
                    of && dumps.has(prompt)
                },
                || self.record(engine, prompt, &dumps),
            )?);
            bar.inc(1);
        }
        let mut answers = Vec::new();
        for asked in questions {
            bar.set_message(asked.prompt.id.clone());
            let file = dir.join(format!("{}.answer.json", asked.prompt.id));
            answers.push(known_or(
                &file,
                |known: &ChoiceResult| asked.is_of(known),
                || self.answer(engine, asked),
            )?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok((records, answers, provenance))
    }

    /// The longest that there is must fit before the first is run.
    fn check_lengths(&self, engine: &dyn Engine, questions: &[&Asked]) -> Result<()> {
        let prompts = self.reference.prompts.iter().map(|p| (p, p.token_ids.len() + self.setting.tokens));
        let all = prompts.chain(questions.iter().map(|q| (&q.prompt, q.prompt.token_ids.len())));
        refuse_too_long(all, ("engine", engine.max_tokens()), ("generated ones", "--tokens"))
    }

    fn record(&self, engine: &mut dyn Engine, prompt: &Prompt, dumps: &Dumps<'_>) -> Result<Record> {
        let at = |e: Error| Error::new(format!("prompt `{}`: {e}", prompt.id));
        let (forced, count) = (&prompt.step_token_ids, prompt.step_token_ids.len());
        let Said { rows, greedy: candidate, self_check } = dumps.make(engine, prompt)?;
        let greedy_trace = self.reference.greedy(prompt)?;
        let double_trace = self.reference.double(prompt)?;
        let reference = self.logits(&greedy_trace)?;
        let double = self.logits(&double_trace)?;
        let sampler = Sampler::new(self.setting.temperature, self.setting.seed, &prompt.id);
        let sampled =
            engine.generate(&prompt.token_ids, count, &mut |l, step| sampler.draw(l, step), &mut NoHook)?;
        let mut greedy = Greedy { reference: forced.clone(), candidate, divergence: None };
        let parts = Some(greedy.prefix()).filter(|place| *place < count);
        let mut positions: Vec<Position> = Vec::new();
        let mut floor = Vec::new();
        for (place, (row, token)) in rows.iter().zip(forced).enumerate() {
            let (reference, double) = (reference.at(prompt, place)?, double.at(prompt, place)?);
            let both =
                |other| compare((&reference, other), *token, place, (&self.setting, &sampler)).map_err(at);
            positions.push(both(row)?);
            let least = both(&double)?;
            floor.push(least.kl);
            if parts == Some(place) {
                let top = |logits: &[f32]| Distribution::new(logits, 1.0).map(|d| d.top(5));
                greedy.divergence = Some(Divergence {
                    position: place,
                    reference: top(&reference)?,
                    candidate: top(row)?,
                    floor: Some(least.logit_error),
                });
            }
        }
        let sampled = [self.reference.sampled(prompt)?, sampled];
        Ok(Record {
            prompt: prompt.id.clone(),
            prompt_tokens: prompt.token_ids.len(),
            greedy,
            positions,
            sampled,
            floor,
            self_check,
        })
    }

    fn answer(&self, engine: &mut dyn Engine, asked: &Asked) -> Result<ChoiceResult> {
        let tokens = (asked.prompt.token_ids.as_slice(), [].as_slice());
        let (rows, _) = rows(engine, self.model, tokens, (None, &self.reference.points))?;
        let trace = self.reference.question(&asked.prompt)?;
        let reference = self.logits(&trace)?.at(&asked.prompt, 0)?;
        ChoiceResult::new(
            (&asked.prompt.id, &asked.prompt.token_ids),
            &asked.question,
            (&reference, &rows[0]),
            &asked.letters,
        )
    }

    fn logits<'b>(&'b self, trace: &'b Trace) -> Result<Logits<'b>> {
        Logits::new(trace, self.model.graph(), Some(self.parameters))
    }
}

/// What a file holds, if it is what is wanted; else what is made now, which is then written there.
fn known_or<T: Serialize + DeserializeOwned>(
    file: &Path,
    wanted: impl Fn(&T) -> bool,
    make: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if let Ok(text) = std::fs::read_to_string(file)
        && let Ok(known) = serde_json::from_str(&text)
        && wanted(&known)
    {
        return Ok(known);
    }
    let made = make()?;
    let text = serde_json::to_string(&made).map_err(|e| Error::new(format!("cannot write a record: {e}")))?;
    crate::files::write_whole("a dump", file, text.as_bytes())?;
    Ok(made)
}
