//! From a token to its layers: the job of `run` on the text up to the token where two engines part.

use super::super::{Ui, run};
use super::Candidate;
use crate::checkpoint::ModelDir;
use crate::cli::{InputArgs, ModelArg, PromptArg, PythonArg, RunArgs};
use crate::error::{Error, Result};
use crate::prompt::Prompt;
use crate::tokens::{LayerLink, Record, WorstPrompt};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use tokenizers::Tokenizer;

/// How many characters of a text are shown.
const SHOWN: usize = 120;

/// What is needed to look into a prompt.
pub(super) struct Link<'a> {
    pub model: &'a ModelDir,
    /// With the reference's tokens.
    pub prompts: &'a [Prompt],
    pub python: Option<&'a Path>,
    pub ui: Ui,
}

impl Link<'_> {
    /// Both texts of a prompt, and the layers at the token where they part.
    pub fn look(&self, record: &Record, candidate: &Candidate<'_>) -> Result<WorstPrompt> {
        let path = self.model.path().join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path)
            .map_err(|e| Error::new(format!("cannot read the tokenizer: {e}")).at(&path))?;
        let text = |ids: &[u32]| tokenizer.decode(ids, false).unwrap_or_default();
        let prompt = self.prompts.iter().find(|p| p.id == record.prompt);
        let prompt = prompt.ok_or_else(|| Error::new(format!("no prompt `{}`", record.prompt)))?;
        let greedy = &record.greedy;
        let place = greedy.prefix();
        let top = |likeliest: &[(u32, f64)]| likeliest.iter().map(|(id, p)| (text(&[*id]), *p)).collect();
        let [reference, other] = match &greedy.divergence {
            Some(d) => [top(&d.reference), top(&d.candidate)],
            None => [Vec::new(), Vec::new()],
        };
        Ok(WorstPrompt {
            id: record.prompt.clone(),
            prompt: end(&text(&prompt.token_ids)),
            common: end(&text(&greedy.reference[..place])),
            reference: start(&text(&greedy.reference[place..])),
            candidate: start(&text(&greedy.candidate[place..])),
            greedy: greedy.clone(),
            top: [reference, other],
            // The tokens' own figures must not be lost with it.
            layers: Some(self.layers(prompt, place, candidate).unwrap_or_else(|e| LayerLink::failed(&e))),
        })
    }

    /// Runs everything before the token as the prompt, and what decides on it as one decode step: the
    /// figures of that step are of this token alone.
    fn layers(&self, prompt: &Prompt, place: usize, candidate: &Candidate<'_>) -> Result<LayerLink> {
        let before = [prompt.token_ids.as_slice(), &prompt.step_token_ids[..place]].concat();
        let (tokens, step) = match before.as_slice() {
            [first @ .., last] if !first.is_empty() => (first, vec![*last]),
            all => (all, Vec::new()),
        };
        let mut file = tempfile::NamedTempFile::new()
            .map_err(|e| Error::io("create a temporary file", std::env::temp_dir(), &e))?;
        let line = json!({"id": prompt.id, "token_ids": tokens, "step_token_ids": step});
        writeln!(file, "{line}").map_err(|e| Error::io("write the prompt", file.path(), &e))?;
        let prompts = Some(file.path().to_path_buf());
        let python = PythonArg { file: self.python.map(Path::to_path_buf) };
        let input = InputArgs::every_point(prompts, PromptArg { ids: Vec::new() }, step.len(), python);
        let model = ModelArg { dir: Some(self.model.path().to_path_buf()) };
        let args = RunArgs::against_torch(model, candidate.name, candidate.path, input);
        let open = |name: &str, model: &ModelDir, path: Option<&str>| candidate.open(name, model, path);
        let only = run::judge(&args, &open, self.ui)?.pop().map(|(_, report)| report);
        Ok(LayerLink::new(&only.ok_or_else(|| Error::new("no engine was run"))??))
    }
}

fn end(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(SHOWN);
    text.chars().skip(skipped).collect()
}

fn start(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
