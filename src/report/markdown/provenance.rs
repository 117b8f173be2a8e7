//! The folded part of the page: who computed what, with what.

use super::super::escape::{code, plain};
use super::super::{Report, ReportSet};
use super::{cut, folded, named};
use crate::trace::Provenance;

/// Both sides and the command.
pub(super) fn provenance(report: &Report, chars: usize) -> Vec<String> {
    let origin = &report.provenance;
    let lines = vec![
        format!("- reference: {}", side(&origin.reference, chars)),
        format!("- candidate: {}", side(&origin.candidate, chars)),
        command(&origin.layerdiff, &origin.command, chars),
        format!(
            "- architecture {}, prompt {}",
            plain(&cut(&report.architecture, chars)),
            named(&report.prompt_id)
        ),
    ];
    folded("Provenance", false, lines)
}

/// The version and the command line.
pub(crate) fn command(version: &str, command: &[String], chars: usize) -> String {
    format!("- layerdiff {}: {}", plain(&cut(version, chars)), code(&cut(&command.join(" "), chars)))
}

/// The side that all engines share and the command; each engine's own report tells of its side.
pub(super) fn provenance_set(set: &ReportSet, chars: usize) -> Vec<String> {
    let reference = set.reference.iter().map(|r| format!("- reference: {}", side(r, chars)));
    folded("Provenance", false, reference.chain([command(&set.layerdiff, &set.command, chars)]).collect())
}

fn side(origin: &Provenance, chars: usize) -> String {
    let said = |text: &str| plain(&cut(text, chars));
    let hash = |name: &str, hash: &Option<String>| match hash {
        Some(hash) => {
            let digits = hash.strip_prefix("sha256:").unwrap_or(hash);
            format!("{name} {}", code(&digits.chars().take(12).collect::<String>()))
        }
        None => format!("{name} unknown"),
    };
    let mut parts = vec![
        format!("{} {}", said(&origin.engine), said(&origin.engine_version)),
        said(&[origin.path.as_str(), &origin.dtype].join(", ")),
    ];
    parts.extend(origin.attention_implementation.iter().map(|a| format!("{} attention", said(a))));
    parts.extend([
        hash("weights", &origin.hashes.weights),
        hash("tokenizer", &origin.hashes.tokenizer),
        hash("config", &origin.hashes.config),
        said(&origin.host),
    ]);
    if origin.hashes.adapter.is_some() {
        parts.push(hash("adapter", &origin.hashes.adapter));
    }
    parts.extend(origin.threads.map(|n| format!("{n} {}", if n == 1 { "thread" } else { "threads" })));
    let split = origin.parallel.as_ref();
    parts.extend(split.map(|p| format!("split over {} processes by {}", p.processes, said(&p.backend))));
    if !origin.cpu_features.is_empty() {
        parts.push(format!("CPU features {}", said(&origin.cpu_features.join(" "))));
    }
    let libraries: Vec<String> =
        origin.libraries.iter().map(|(name, version)| format!("{name} {version}")).collect();
    parts.push(said(&libraries.join("; ")));
    parts.retain(|part| !part.trim().is_empty());
    parts.join("; ")
}
