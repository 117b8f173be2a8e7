//! The folded part of the page: who computed what, with what.

use super::super::Report;
use super::super::escape::{code, plain};
use crate::trace::Provenance;

/// Both sides and the command.
pub(super) fn provenance(report: &Report) -> Vec<String> {
    let origin = &report.provenance;
    let command: Vec<&str> = origin.command.iter().map(String::as_str).collect();
    vec![
        String::new(),
        "<details><summary>Provenance</summary>".to_owned(),
        String::new(),
        format!("- reference: {}", side(&origin.reference)),
        format!("- candidate: {}", side(&origin.candidate)),
        format!("- layerdiff {}: {}", plain(&origin.layerdiff), code(&command.join(" "))),
        format!("- architecture {}, prompt {}", plain(&report.architecture), code(&report.prompt_id)),
        String::new(),
        "</details>".to_owned(),
    ]
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
