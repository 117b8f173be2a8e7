//! `layerdiff faults list`.

use super::super::{Ui, print_json, print_text};
use crate::bundle::Bundle;
use crate::checkpoint::ModelDir;
use crate::cli::FaultsListArgs;
use crate::error::Result;
use crate::faults::{Fault, Weight, catalogue, sites};
use crate::model::Graph;
use crate::report::Outcome;
use serde_json::json;
use std::collections::BTreeSet;

pub(super) fn run(args: &FaultsListArgs, ui: Ui) -> Result<Outcome> {
    let bundle = Bundle::unpack()?;
    let model = ModelDir::open(&args.model.clone().unwrap_or_else(|| bundle.model()))?;
    let graph = model.graph();
    if ui.json {
        let row = |fault: &Fault| {
            json!({
                "name": fault.name, "right": fault.right, "wrong": fault.wrong, "weight": fault.weight.name(),
                "components": components(fault, graph), "sites": sites(fault, graph).len(),
                "quantized_only": fault.quantized, "source": fault.source,
                "called": fault.names(),
            })
        };
        print_json(&json!({ "outcome": "pass", "faults": catalogue().map(row).collect::<Vec<_>>() }))?;
    } else {
        let rows = catalogue().map(|fault| {
            format!(
                "{:<25} {:<8} {} → {}\n{:34} at {}; from {}",
                fault.name,
                fault.weight.name(),
                fault.right,
                fault.wrong,
                "",
                components(fault, graph).into_iter().collect::<Vec<_>>().join(", "),
                fault.source
            )
        });
        print_text(&format!("{}\n\n{}", rows.collect::<Vec<_>>().join("\n"), Weight::LEGEND))?;
    }
    Ok(Outcome::Pass)
}

/// The names within a layer of the components that a fault lives at.
fn components<'a>(fault: &Fault, graph: &'a Graph) -> BTreeSet<&'a str> {
    sites(fault, graph).iter().flat_map(|site| site.components.iter().map(|c| c.name())).collect()
}
