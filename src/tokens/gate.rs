//! The gate: what an engine must reach.

use super::choice::Choices;
use super::position::Position;
use super::report::Record;
use super::statistics::Summary;
use crate::error::{Error, Result, nearest};
use serde::{Deserialize, Serialize};
use std::path::Path;

const PROFILES: &str = include_str!("profiles.toml");

/// A file of profiles.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profiles {
    profile: Vec<Profile>,
}

/// A named set of criteria.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Profile {
    pub name: String,
    /// The engines that it is for when none is named.
    #[serde(default)]
    pub engines: Vec<String>,
    criterion: Vec<Limit>,
}

/// One criterion as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    pub(super) metric: Metric,
    /// How many tokens of each prompt count.
    pub(super) first: Option<usize>,
    pub(super) at_least: Option<f64>,
    pub(super) at_most: Option<f64>,
}

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Metric {
    GreedyMatch,
    ExactPrompts,
    MeanKl,
    P99Kl,
    MaxKl,
    Top1,
    Top5,
    PerplexityRatio,
    ChoiceAccuracy,
    ChoiceFlips,
}

/// One criterion with what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Criterion {
    /// Such as `greedy_match, first 10 tokens`.
    pub name: String,
    /// None where nothing was measured.
    #[serde(with = "crate::number::option")]
    pub value: Option<f64>,
    /// Such as `at least 0.99`.
    pub limit: String,
    /// None where nothing was measured.
    pub pass: Option<bool>,
    #[serde(flatten)]
    pub(super) of: Limit,
}

/// What came of all criteria.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Gate {
    pub profile: String,
    pub criteria: Vec<Criterion>,
}

/// The profile that `named` names, bundled or in a file; else the bundled one for this engine.
pub fn profile(named: Option<&str>, engine: &str) -> Result<Profile> {
    let bundled = parse(PROFILES)?;
    let Some(name) = named else {
        let own = bundled.into_iter().find(|p| p.engines.iter().any(|e| e == engine));
        return own.ok_or_else(|| Error::new(format!("no profile is for {engine}: name one with --profile")));
    };
    if let Some(known) = bundled.iter().find(|p| p.name == name) {
        return Ok(known.clone());
    }
    let path = Path::new(name);
    if !path.exists() {
        let known: Vec<&str> = bundled.iter().map(|p| p.name.as_str()).collect();
        let near = nearest(name, known.iter().copied());
        let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
        return Err(Error::new(format!("no profile `{name}`"))
            .hint(format!("{near}known: {}, or a TOML file with one [[profile]]", known.join(", "))));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read the profile", path, &e))?;
    match <[Profile; 1]>::try_from(parse(&text).map_err(|e| e.at(path))?) {
        Ok([only]) => Ok(only),
        Err(all) => Err(Error::new("a file names one profile")
            .expected("one [[profile]]", all.len())
            .at(path)
            .hint("put each profile into a file of its own")),
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Profile>> {
    let hint = "such as:\n    [[profile]]\n    name = \"mine\"\n    [[profile.criterion]]\n    metric = \"mean_kl\"\n    first = 100\n    at_most = 0.01";
    let profiles: Profiles =
        toml::from_str(text).map_err(|e| Error::new(format!("malformed profile: {e}")).hint(hint))?;
    for profile in &profiles.profile {
        for limit in &profile.criterion {
            let numbers = [limit.at_least, limit.at_most];
            let bad = numbers.iter().flatten().any(|n| !n.is_finite());
            if bad || numbers.iter().flatten().count() != 1 || limit.first == Some(0) {
                return Err(Error::new(format!("malformed criterion in profile `{}`", profile.name))
                    .expected(
                        "one of at_least and at_most, a finite number; first from 1 on",
                        format!("{limit:?}"),
                    )
                    .hint(hint));
            }
        }
        if profile.criterion.is_empty() {
            return Err(Error::new(format!("profile `{}` has no criterion", profile.name)).hint(hint));
        }
    }
    Ok(profiles.profile)
}

impl Profile {
    /// Measures the criteria.
    pub fn judge(&self, records: &[Record], choices: Option<&Choices>) -> Gate {
        let criteria = self.criterion.iter().map(|limit| limit.judge(records, choices)).collect();
        Gate { profile: self.name.clone(), criteria }
    }

    /// The criteria that a run of `tokens` tokens a prompt, with or without questions, cannot measure, with
    /// what each needs.
    pub fn unmeasurable(&self, tokens: usize, questions: bool) -> Vec<String> {
        let lacking = |limit: &Limit| {
            limit.lacks(tokens, questions).map(|needs| format!("{} needs {needs}", limit.name()))
        };
        self.criterion.iter().filter_map(lacking).collect()
    }
}

impl Limit {
    fn judge(&self, records: &[Record], choices: Option<&Choices>) -> Criterion {
        let value = self.metric.value(self.first.unwrap_or(usize::MAX), records, choices);
        // NaN fails: it is not within any limit.
        let within = |v: f64| match (self.at_least, self.at_most) {
            (Some(limit), _) => v >= limit,
            (None, limit) => limit.is_some_and(|limit| v <= limit),
        };
        let limit = match (self.at_least, self.at_most) {
            (Some(limit), _) => format!("at least {limit}"),
            (None, limit) => format!("at most {}", limit.unwrap_or(f64::NAN)),
        };
        Criterion { name: self.name(), value, limit, pass: value.map(within), of: self.clone() }
    }

    fn name(&self) -> String {
        let name = serde_json::to_value(self.metric).ok();
        let name = name.as_ref().and_then(|n| n.as_str()).unwrap_or_default().to_owned();
        name + &self.first.map_or_else(String::new, |n| format!(", first {n} tokens"))
    }

    /// What a run of so many tokens would have to have besides; none if it can measure this.
    fn lacks(&self, tokens: usize, questions: bool) -> Option<String> {
        if !self.metric.is_of_tokens() {
            return (!questions).then(|| "questions: leave out --choices none".to_owned());
        }
        self.first.filter(|first| *first > tokens).map(|first| format!("--tokens {first}"))
    }
}

impl Metric {
    fn is_of_tokens(self) -> bool {
        !matches!(self, Self::ChoiceAccuracy | Self::ChoiceFlips)
    }

    /// The figure over the first `first` tokens of each prompt; none where nothing was measured.
    fn value(self, first: usize, records: &[Record], choices: Option<&Choices>) -> Option<f64> {
        // A criterion on the first hundred tokens says nothing about a run of ten.
        let short = |r: &Record| r.positions.len() < first || r.greedy.reference.len() < first;
        if first < usize::MAX && self.is_of_tokens() && records.iter().any(short) {
            return None;
        }
        let positions = || records.iter().flat_map(move |r| r.positions.iter().take(first));
        let count = positions().count();
        let share = |of: &dyn Fn(&Position) -> f64| {
            (count > 0).then(|| positions().map(of).sum::<f64>() / count as f64)
        };
        let kl = || Summary::of(&positions().map(|p| p.kl).collect::<Vec<f64>>());
        match self {
            Self::GreedyMatch => {
                let all: usize = records.iter().map(|r| r.greedy.reference.len().min(first)).sum();
                let same: usize = records.iter().map(|r| r.greedy.matches(first)).sum();
                (all > 0).then(|| same as f64 / all as f64)
            }
            Self::ExactPrompts => {
                let exact =
                    records.iter().filter(|r| r.greedy.prefix() >= r.greedy.reference.len().min(first));
                (!records.is_empty()).then(|| exact.count() as f64 / records.len() as f64)
            }
            Self::MeanKl => kl().map(|s| s.mean),
            Self::P99Kl => kl().map(|s| s.p99),
            Self::MaxKl => kl().map(|s| s.max),
            Self::Top1 => share(&|p| f64::from(u8::from(p.top1))),
            Self::Top5 => share(&|p| p.top5 as f64 / super::position::TOP as f64),
            Self::PerplexityRatio => share(&|p| p.reference - p.candidate).map(f64::exp),
            Self::ChoiceAccuracy => choices.map(|c| c.candidate.value()),
            Self::ChoiceFlips => choices.map(|c| (c.lost + c.won) as f64 / c.candidate.count as f64),
        }
    }
}

impl Gate {
    /// True if all passed, false if one failed, none if one was not measured and none failed.
    pub fn passes(&self) -> Option<bool> {
        if self.criteria.iter().any(|c| c.pass == Some(false)) {
            return Some(false);
        }
        self.criteria.iter().all(|c| c.pass == Some(true)).then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_profiles_are_the_ones_that_were_asked_for() {
        let f16 = profile(None, "lattice-f16").unwrap();
        assert_eq!(f16.name, "fp16");
        let limits: Vec<_> =
            f16.criterion.iter().map(|c| (c.metric, c.first, c.at_least, c.at_most)).collect();
        assert_eq!(
            limits,
            [
                (Metric::GreedyMatch, Some(10), Some(0.99), None),
                (Metric::MeanKl, Some(100), None, Some(0.01))
            ]
        );
        assert_eq!(profile(None, "lattice-q4").unwrap().name, "q4");
        assert!(profile(Some("fp61"), "x").unwrap_err().to_string().contains("did you mean `fp16`"));
    }

    #[test]
    fn what_was_not_measured_does_not_pass() {
        let gate = profile(Some("fp16"), "x").unwrap().judge(&[], None);
        assert_eq!(gate.passes(), None);
        assert!(gate.criteria.iter().all(|c| c.pass.is_none() && c.value.is_none()));
    }

    #[test]
    fn what_a_short_run_cannot_measure_is_said_with_what_it_needs() {
        let of = |tokens, questions| profile(Some("fp16"), "x").unwrap().unmeasurable(tokens, questions);
        assert_eq!(of(100, false), [""; 0]);
        assert_eq!(of(99, true), ["mean_kl, first 100 tokens needs --tokens 100"]);
        assert_eq!(of(9, true).len(), 2);
        let text = "[[profile]]\nname = 'a'\n[[profile.criterion]]\nmetric = 'choice_flips'\nat_most = 0.1";
        let choices = parse(text).unwrap().remove(0);
        assert_eq!(choices.unmeasurable(1, true), [""; 0]);
        assert_eq!(
            choices.unmeasurable(1, false),
            ["choice_flips needs questions: leave out --choices none"]
        );
    }

    #[test]
    fn a_malformed_profile_is_refused() {
        for bad in [
            "[[profile]]\nname = 'a'\ncriterion = []",
            "[[profile]]\nname = 'a'\n[[profile.criterion]]\nmetric = 'mean_kl'",
            "[[profile]]\nname = 'a'\n[[profile.criterion]]\nmetric = 'mean_kl'\nat_most = nan",
            "[[profile]]\nname = 'a'\n[[profile.criterion]]\nmetric = 'kl'\nat_most = 1.0",
            "[[profile]]\nname = 'a'\n[[profile.criterion]]\nmetric = 'mean_kl'\nat_most = 1.0\nat_least = 0.0",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
