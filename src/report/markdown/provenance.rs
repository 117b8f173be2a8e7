//! The folded part of the page: who computed what, with what.

use super::super::escape::{code, plain};
use super::super::{Report, ReportSet};
use crate::trace::Provenance;

/// Both sides and the command.
pub(super) fn provenance(report: &Report) -> Vec<String> {
    let origin = &report.provenance;
    folded([
        format!("- reference: {}", side(&origin.reference)),
        format!("- candidate: {}", side(&origin.candidate)),
        format!("- layerdiff {}: {}", plain(&origin.layerdiff), code(&origin.command.join(" "))),
        format!("- architecture {}, prompt {}", plain(&report.architecture), code(&report.prompt_id)),
    ])
}

/// The side that all engines share and the command; each engine's own report tells of its side.
pub(super) fn provenance_set(set: &ReportSet) -> Vec<String> {
    let reference = set.reference.iter().map(|r| format!("- reference: {}", side(r)));
    let command = format!("- layerdiff {}: {}", plain(&set.layerdiff), code(&set.command.join(" ")));
    folded(reference.chain([command]))
}

fn folded(items: impl IntoIterator<Item = String>) -> Vec<String> {
    let opening = ["", "<details><summary>Provenance</summary>", ""].map(str::to_owned);
    let closing = ["", "</details>"].map(str::to_owned);
    opening.into_iter().chain(items).chain(closing).collect()
}

fn side(origin: &Provenance) -> String {
    let hash = |name: &str, hash: &Option<String>| match hash {
        Some(hash) => {
            let digits = hash.strip_prefix("sha256:").unwrap_or(hash);
            format!("{name} {}", code(&digits.chars().take(12).collect::<String>()))
        }
        None => format!("{name} unknown"),
    };
    let mut parts = vec![
        format!("{} {}", plain(&origin.engine), plain(&origin.engine_version)),
        plain(&[origin.path.as_str(), &origin.dtype].join(", ")),
    ];
    parts.extend(origin.attention_implementation.iter().map(|a| format!("{} attention", plain(a))));
    parts.extend([
        hash("weights", &origin.hashes.weights),
        hash("tokenizer", &origin.hashes.tokenizer),
        hash("config", &origin.hashes.config),
        plain(&origin.host),
    ]);
    if origin.hashes.adapter.is_some() {
        parts.push(hash("adapter", &origin.hashes.adapter));
    }
    parts.extend(origin.threads.map(|n| format!("{n} {}", if n == 1 { "thread" } else { "threads" })));
    if !origin.cpu_features.is_empty() {
        parts.push(format!("CPU features {}", plain(&origin.cpu_features.join(" "))));
    }
    parts.extend(origin.libraries.iter().map(|(name, version)| plain(&format!("{name} {version}"))));
    parts.retain(|part| !part.trim().is_empty());
    parts.join("; ")
}
