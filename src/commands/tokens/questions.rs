//! Questions as prompts.

use crate::checkpoint::ModelDir;
use crate::cli::TokenArgs;
use crate::error::{Error, Result};
use crate::prompt::{Prompt, tokenize};
use crate::tokens::{ChoiceResult, Question, bundled_questions, read_questions, template};
use std::path::{Path, PathBuf};

/// A question with its prompt.
pub(in crate::commands) struct Asked {
    pub question: Question,
    pub prompt: Prompt,
    /// The tokens that stand for " A" to " D" after the prompt.
    pub letters: [u32; 4],
}

impl Asked {
    /// True for what was answered to this very prompt.
    pub fn is_of(&self, known: &ChoiceResult) -> bool {
        known.answer == self.question.answer
            && known.token_ids == self.prompt.token_ids
            && known.letters == self.letters
    }
}

/// Where the questions are from, how many examples precede each, and the questions.
pub(in crate::commands) struct Exam {
    pub source: String,
    pub shots: usize,
    /// What a reader should know about how they are asked.
    pub note: Option<String>,
    pub asked: Vec<Asked>,
}

/// How many examples precede a question where there are some, as in the figures that are published.
const SHOTS: usize = 5;

impl Exam {
    /// The questions that were asked for.
    pub fn new(args: &TokenArgs, model: &ModelDir) -> Result<Self> {
        let (source, questions) = match args.choices.as_deref() {
            Some("none") => {
                return Ok(Self { source: String::new(), shots: 0, note: None, asked: Vec::new() });
            }
            Some(path) => {
                let of_archive = split(Path::new(path), "test");
                (path.to_owned(), read_questions(of_archive.as_deref().unwrap_or(Path::new(path)))?)
            }
            None => ("60 bundled questions, none of them MMLU's".to_owned(), bundled_questions()?),
        };
        let from = args.shots_from.clone().or_else(|| split(Path::new(args.choices.as_deref()?), "dev"));
        let examples = from.as_deref().map(read_questions).transpose()?.unwrap_or_default();
        let (shots, note) = shots(args, from.is_some())?;
        let shots_of = |question: &Question| -> Vec<Question> {
            let same = examples.iter().filter(|shot| shot.subject == question.subject);
            same.take(shots).cloned().collect()
        };
        if let Some((few, found)) =
            questions.iter().map(|q| (q, shots_of(q).len())).find(|(_, found)| *found < shots)
        {
            return Err(Error::new(format!("too few examples of subject `{}`", few.subject))
                .expected(format!("{shots}"), found)
                .at(from.as_deref().unwrap_or(Path::new("")))
                .hint("ask for fewer with --shots, or for none with --shots 0"));
        }
        let mut asked = Vec::new();
        for (number, question) in (1..).zip(questions) {
            let text = template(&question, &shots_of(&question));
            let id = format!("question-{number:04}");
            asked.push(ask(id, &text, question, model)?);
        }
        Ok(Self { source, shots, note, asked })
    }

    /// The prompts.
    pub fn prompts(&self) -> Vec<Prompt> {
        self.asked.iter().map(|asked| asked.prompt.clone()).collect()
    }
}

/// How many examples precede each question, and what is to be said of that.
fn shots(args: &TokenArgs, examples: bool) -> Result<(usize, Option<String>)> {
    match (args.shots, args.choices.as_deref()) {
        (shots, _) if examples => Ok((shots.unwrap_or(SHOTS), None)),
        (Some(wanted @ 1..), choices) => {
            let error = Error::new("there are no examples to put before the questions")
                .expected(
                    format!("{wanted} of each subject"),
                    "none: no --shots-from, and no dev in --choices",
                )
                .hint("name MMLU's dev split with --shots-from, or ask without examples: --shots 0");
            Err(choices.into_iter().fold(error, Error::at))
        }
        (None, Some(_)) => {
            let note = "the questions are asked 0-shot: no --shots-from, and no dev in --choices";
            Ok((0, Some(note.to_owned())))
        }
        _ => Ok((0, None)),
    }
}

/// The directory of a split in MMLU's archive: `test/anatomy_test.csv`, `dev/anatomy_dev.csv`.
fn split(archive: &Path, name: &str) -> Option<PathBuf> {
    let whole = archive.join("test").is_dir();
    Some(archive.join(name)).filter(|dir| whole && dir.is_dir())
}

/// The tokens of context and answer are those of both together, as lm-evaluation-harness has them. Where the
/// four answers begin with the same tokens, these belong to the prompt: they add the same to all four.
fn ask(id: String, text: &str, question: Question, model: &ModelDir) -> Result<Asked> {
    let whole = |letter: char| {
        let prompt = Prompt {
            id: id.clone(),
            category: None,
            text: Some(format!("{text} {letter}")),
            token_ids: Vec::new(),
            step_token_ids: Vec::new(),
        };
        let mut prompts = [prompt];
        tokenize(&mut prompts, model.path(), model.graph().dim("vocab"))?;
        let [prompt] = prompts;
        Ok(prompt.token_ids)
    };
    let all: Vec<Vec<u32>> = ['A', 'B', 'C', 'D'].into_iter().map(whole).collect::<Result<_>>()?;
    let (last, first) = all[0].split_last().unwrap_or((&0, &[]));
    let letters: Vec<u32> =
        all.iter().filter(|t| t[..t.len() - 1] == *first).map(|t| t[t.len() - 1]).collect();
    let distinct = letters.iter().collect::<std::collections::HashSet<_>>().len() == 4;
    let [_, b, c, d] = letters[..] else { return Err(unfit(model)) };
    if first.is_empty() || !distinct {
        return Err(unfit(model));
    }
    let prompt = Prompt {
        id,
        category: None,
        text: Some(text.to_owned()),
        token_ids: first.to_vec(),
        step_token_ids: Vec::new(),
    };
    Ok(Asked { question, prompt, letters: [*last, b, c, d] })
}

fn unfit(model: &ModelDir) -> Error {
    Error::new("the four answers do not differ in one token")
        .expected("` A` to ` D` that end in four different tokens", "others")
        .at(model.path())
        .hint("leave the questions out with `--choices none`")
}
