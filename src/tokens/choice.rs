//! Questions with four answers, in MMLU's format.
//!
//! The prompt is that of lm-evaluation-harness's task `mmlu` (its `multiple_choice` template with
//! `first_n` few-shot examples from the development split):
//!
//! ```text
//! The following are multiple choice questions (with answers) about {subject}.
//!
//! {question}
//! A. {choice}
//! B. {choice}
//! C. {choice}
//! D. {choice}
//! Answer:
//! ```
//!
//! and the answer is the likeliest of " A", " B", " C", " D" after it. Implementations of MMLU differ and even
//! order models differently: Hendrycks' original compares the logits of "A" to "D" alone, HELM generates text.

use super::distribution::Distribution;
use super::statistics::{Share, mcnemar};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct Question {
    #[serde(default)]
    pub subject: String,
    pub question: String,
    pub choices: [String; 4],
    /// 0 to 3.
    #[serde(deserialize_with = "answer")]
    pub answer: usize,
}

const LETTERS: [char; 4] = ['A', 'B', 'C', 'D'];

/// A number from 0 to 3, or a letter from A to D.
fn answer<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Answer {
        Number(usize),
        Letter(String),
    }
    let found = match Answer::deserialize(deserializer)? {
        Answer::Number(n) => Some(n).filter(|n| *n < 4),
        Answer::Letter(text) => LETTERS.iter().position(|l| text.trim() == l.to_string()),
    };
    found.ok_or_else(|| serde::de::Error::custom("expected an answer from 0 to 3, or from A to D"))
}

/// The bundled questions: our own, over MMLU's groups of subjects.
pub fn bundled_questions() -> Result<Vec<Question>> {
    parse_jsonl(include_str!("../../prompts/choices.jsonl"))
}

/// Reads questions: a JSONL file (`subject`, `question`, `choices`, `answer`: the form of the Hugging Face
/// dataset), a CSV file (question, four choices, letter: the form of the original archive; the subject is in
/// its name, `anatomy_test.csv`), or a directory of such files.
pub fn read_questions(path: &Path) -> Result<Vec<Question>> {
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        let read = |e: std::io::Error| Error::io("read the questions", path, &e);
        files.clear();
        for entry in std::fs::read_dir(path).map_err(read)? {
            files.push(entry.map_err(read)?.path());
        }
        files.retain(|f| f.extension().is_some_and(|e| e == "csv" || e == "jsonl"));
        files.sort();
    }
    let mut all = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|e| Error::io("read the questions", file, &e))?;
        let csv = file.extension().is_some_and(|e| e == "csv");
        let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let found = if csv { parse_csv(&text, stem) } else { parse_jsonl(&text) };
        all.extend(found.map_err(|e| e.at(file))?);
    }
    if all.is_empty() {
        return Err(Error::new("there is no question")
            .at(path)
            .hint("name a JSONL or CSV file in MMLU's format"));
    }
    Ok(all)
}

fn parse_jsonl(text: &str) -> Result<Vec<Question>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| {
            Error::new(format!("line {} of the questions is malformed: {e}", number + 1)).hint(
                r#"each line is an object such as {"subject": "anatomy", "question": "…", "choices": ["…", "…", "…", "…"], "answer": 0}"#,
            )
        })
    };
    lines.map(parse).collect()
}

fn parse_csv(text: &str, stem: &str) -> Result<Vec<Question>> {
    let known = ["_test", "_dev", "_val"];
    let subject = known.iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem);
    let malformed = |number: usize, got: String| {
        Error::new(format!("record {number} of the questions is malformed"))
            .expected("question, four choices, a letter from A to D", got)
    };
    let mut questions = Vec::new();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    for (number, record) in (1..).zip(reader.records()) {
        let record = record.map_err(|e| malformed(number, e.to_string()))?;
        let fields: Vec<&str> = record.iter().collect();
        let [question, a, b, c, d, letter] = fields[..] else {
            return Err(malformed(number, format!("{} fields", fields.len())));
        };
        let answer = LETTERS.iter().position(|l| letter.trim() == l.to_string());
        questions.push(Question {
            subject: subject.to_owned(),
            question: question.to_owned(),
            choices: [a, b, c, d].map(str::to_owned),
            answer: answer.ok_or_else(|| malformed(number, letter.to_owned()))?,
        });
    }
    Ok(questions)
}

/// The prompt of a question, after `shots` of its subject with their answers.
pub fn template(question: &Question, shots: &[Question]) -> String {
    let subject = question.subject.replace('_', " ");
    let about = if subject.is_empty() { String::new() } else { format!(" about {subject}") };
    let mut text = format!("The following are multiple choice questions (with answers){about}.\n\n");
    for shot in shots {
        text.extend([asked(shot).as_str(), " ", &LETTERS[shot.answer].to_string(), "\n\n"]);
    }
    text + &asked(question)
}

fn asked(question: &Question) -> String {
    let choices: Vec<String> =
        LETTERS.iter().zip(&question.choices).map(|(letter, choice)| format!("{letter}. {choice}")).collect();
    format!("{}\n{}\nAnswer:", question.question.trim(), choices.join("\n"))
}

/// What both sides make of one question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ChoiceResult {
    pub id: String,
    pub subject: String,
    pub answer: usize,
    /// The prompt, examples included, and the tokens of the four letters.
    pub token_ids: Vec<u32>,
    pub letters: [u32; 4],
    /// Logarithms of the probabilities of the four letters.
    #[serde(with = "crate::number::list")]
    pub reference: [f64; 4],
    #[serde(with = "crate::number::list")]
    pub candidate: [f64; 4],
}

impl ChoiceResult {
    /// From the logits after the prompt; `letters` are the tokens of " A" to " D".
    pub fn new(
        (id, token_ids): (&str, &[u32]),
        question: &Question,
        (reference, candidate): (&[f32], &[f32]),
        letters: &[u32; 4],
    ) -> Result<Self> {
        let of = |logits: &[f32]| {
            let distribution = Distribution::new(logits, 1.0)?;
            Ok(letters.map(|token| distribution.log_probability(token)))
        };
        let at = |e: Error| Error::new(format!("question `{id}`: {e}"));
        Ok(Self {
            id: id.to_owned(),
            subject: question.subject.clone(),
            answer: question.answer,
            token_ids: token_ids.to_vec(),
            letters: *letters,
            reference: of(reference).map_err(at)?,
            candidate: of(candidate).map_err(at)?,
        })
    }

    /// The likeliest letters of both sides; of equals the first.
    pub fn answers(&self) -> [usize; 2] {
        [&self.reference, &self.candidate].map(|letters| {
            let best = letters.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            best.map_or(0, |(i, _)| i)
        })
    }
}

/// All questions together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choices {
    /// Where the questions are from.
    pub source: String,
    /// Examples before each question.
    pub shots: usize,
    /// What a reader should know about how they were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Right answers of the reference.
    pub reference: Share,
    /// Right answers of the candidate.
    pub candidate: Share,
    /// Right in the reference, wrong in the candidate.
    pub lost: usize,
    /// Wrong in the reference, right in the candidate.
    pub won: usize,
    /// Another letter, right or wrong.
    pub changed: usize,
    /// McNemar's exact test of `lost` against `won`.
    pub p_value: f64,
}

impl Choices {
    /// Counts the answers.
    pub fn new(source: &str, shots: usize, results: &[ChoiceResult]) -> Self {
        let count = |of: &dyn Fn(&ChoiceResult, [usize; 2]) -> bool| {
            results.iter().filter(|r| of(r, r.answers())).count()
        };
        let (lost, won) = (
            count(&|r, [reference, candidate]| reference == r.answer && candidate != r.answer),
            count(&|r, [reference, candidate]| reference != r.answer && candidate == r.answer),
        );
        Self {
            source: source.to_owned(),
            shots,
            note: None,
            reference: Share::new(count(&|r, [reference, _]| reference == r.answer), results.len()),
            candidate: Share::new(count(&|r, [_, candidate]| candidate == r.answer), results.len()),
            lost,
            won,
            changed: count(&|_, [reference, candidate]| reference != candidate),
            p_value: mcnemar(lost, won),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_mmlu_read_the_same() {
        let csv = "\"What is 1, and 1?\",1,2,3,4,B\n\"Say \"\"yes\"\"\",no,yes,maybe,\"never,\",B\n";
        let json = r#"{"question": "What is 1, and 1?", "subject": "abstract_algebra", "choices": ["1", "2", "3", "4"], "answer": 1}
{"question": "Say \"yes\"", "subject": "abstract_algebra", "choices": ["no", "yes", "maybe", "never,"], "answer": "B"}"#;
        let read = parse_csv(csv, "abstract_algebra_test").unwrap();
        assert_eq!(read, parse_jsonl(json).unwrap());
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn the_prompt_is_that_of_the_harness() {
        let question = |text: &str, answer| Question {
            subject: "high_school_physics".into(),
            question: text.into(),
            choices: ["a", "b", "c", "d"].map(str::to_owned),
            answer,
        };
        assert_eq!(
            template(&question("Why? ", 0), &[question("How?", 2)]),
            "The following are multiple choice questions (with answers) about high school physics.\n\n\
             How?\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\nWhy?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
        );
    }

    #[test]
    fn malformed_questions_are_refused_with_their_number() {
        for (csv, what) in [("a,b,c\n", "3 fields"), ("q,1,2,3,4,E\n", "E")] {
            let error = parse_csv(csv, "x").unwrap_err().to_string();
            assert!(error.contains("record 1") && error.contains(what), "{error}");
        }
        let error = parse_jsonl(r#"{"question": "q", "choices": ["1", "2", "3", "4"], "answer": 4}"#);
        assert!(error.unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn an_answer_that_cannot_come_reads_back_as_it_was() {
        let never = [-0.5, f64::NEG_INFINITY, -1.0, -2.0];
        let result = ChoiceResult {
            id: "q".into(),
            subject: String::new(),
            answer: 0,
            token_ids: vec![1],
            letters: [0; 4],
            reference: never,
            candidate: never,
        };
        let text = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<ChoiceResult>(&text).unwrap(), result);
        assert!(serde_json::from_str::<ChoiceResult>(&text.replace("-0.5,", "")).is_err());
    }

    #[test]
    fn flips_are_counted_in_both_directions() {
        let result = |answer, reference: usize, candidate: usize| {
            let at = |i: usize| {
                let mut all = [-2.0; 4];
                all[i] = -0.1;
                all
            };
            ChoiceResult {
                id: "q".into(),
                subject: String::new(),
                answer,
                token_ids: Vec::new(),
                letters: [0; 4],
                reference: at(reference),
                candidate: at(candidate),
            }
        };
        let all = [result(0, 0, 0), result(0, 0, 1), result(0, 1, 0), result(0, 1, 2), result(0, 0, 3)];
        let choices = Choices::new("here", 0, &all);
        assert_eq!((choices.lost, choices.won, choices.changed), (2, 1, 4));
        assert_eq!((choices.reference.of, choices.candidate.of), (3, 2));
        assert_eq!(choices.p_value, 1.0);
    }
}
