//! Disturbances of the running engine.

use super::*;

/// Disturbs one point of the running engine.
struct Plant<'a>(Option<&'a str>, f32);

/// How much the disturbance adds to each number, unless a test says otherwise.
const SHIFT: f32 = 0.05;

impl Hook for Plant<'_> {
    fn wants(&self, point: &str) -> bool {
        self.0 == Some(point)
    }

    fn call(&mut self, _at: At<'_>, mut tensor: Tensor) -> Result<Tensor> {
        match &mut tensor.values {
            Values::F32(values) => values.iter_mut().for_each(|v| *v += self.1),
            // The last token loses sight of the first.
            Values::U8(values) => {
                let row = values.len() - tensor.shape[1];
                values[row] = 0;
            }
        }
        Ok(tensor)
    }
}

/// The bundled model in the serial f32 engine.
struct Lattice {
    model: ModelDir,
    engine: Box<dyn engine::Engine>,
}

impl Lattice {
    fn open() -> Self {
        let model = ModelDir::open(&common::bundled_model()).unwrap();
        let engine = engine::open("lattice-f32", model.path(), model.graph(), Some("serial")).unwrap();
        Self { model, engine }
    }

    /// Captures a pass with a disturbance at `point`.
    fn capture(&mut self, point: Option<&str>, target: &Path) {
        self.capture_shifted(point, SHIFT, target);
    }

    fn capture_shifted(&mut self, point: Option<&str>, shift: f32, target: &Path) {
        let mut options = Draft::tiny().options;
        options.config = self.model.config().as_json().clone();
        let mut writer = TraceWriter::create(target, options).unwrap();
        let tokens = [5, 7, 11, 13];
        writer.start_prompt(&prompt("p", &tokens));
        let points = PointFilter::default();
        let mut hook = CaptureHook::new(&mut writer, &points);
        self.engine.run(&tokens, &[], &mut Chain(vec![&mut Plant(point, shift), &mut hook])).unwrap();
        writer.finish(None).unwrap();
    }

    /// Two captures, the second with a disturbance.
    fn traces(&mut self, point: Option<&str>) -> Traces {
        let traces = Traces { root: tempfile::tempdir().unwrap() };
        self.capture(None, &traces.path("reference"));
        self.capture(point, &traces.path("candidate"));
        traces
    }
}

/// All points that depend on `point`.
fn downstream<'a>(graph: &'a Graph, point: &'a str) -> Vec<&'a str> {
    let mut found = vec![point];
    for component in graph.components() {
        if component.inputs.iter().any(|i| found.contains(&i.as_str())) {
            found.push(&component.point);
        }
    }
    found.split_off(1)
}

#[test]
fn two_runs_of_one_engine_are_equal_and_pass() {
    let traces = Lattice::open().traces(None);
    assert_eq!(traces.compare(&[]).outcome(), (0, "pass"));
    let bytes = |name: &str| common::tree(&traces.path(name)).into_values().collect::<Vec<_>>();
    assert_eq!(bytes("reference"), bytes("candidate"));
}

#[test]
fn a_disturbance_of_any_layer_is_found_at_its_output_and_inherited_by_all_that_follows() {
    let mut lattice = Lattice::open();
    let graph = lattice.model.graph().clone();
    for layer in 0..graph.layer_types().len() {
        let point = format!("model.layers.{layer}");
        let report = lattice.traces(Some(&point)).blame(&point);
        let after = downstream(&graph, &point);
        for component in graph.components().iter().filter(|c| c.point != point) {
            let state = report.state(&component.point);
            if after.contains(&component.point.as_str()) {
                assert!(
                    ["inherited", "absorbed"].contains(&state),
                    "{layer}: {} is {state}",
                    component.point
                );
            } else {
                assert_eq!(state, "explained", "{layer}: {}", component.point);
            }
        }
        assert_eq!(report.state("lm_head"), "inherited");
    }
}

#[test]
fn a_disturbance_of_any_component_is_the_first_fault() {
    let mut lattice = Lattice::open();
    let graph = lattice.model.graph().clone();
    // One layer of each type, and what is outside.
    let full = graph.layer_types().iter().position(|t| t == "full_attention");
    let linear = graph.layer_types().iter().rposition(|t| t == "linear_attention");
    for component in
        graph.components().iter().filter(|c| c.layer.is_none() || c.layer == full || c.layer == linear)
    {
        let report = lattice.traces(Some(&component.point)).compare(&[]);
        assert_eq!(report.outcome(), (1, "fault"), "{}", component.point);
        assert_eq!(report.json["first_fault"]["point"], component.point);
    }
}

#[test]
fn a_fault_between_the_points_that_were_asked_for_is_seen_at_the_next_of_them() {
    let traces = Lattice::open().traces(Some("model.layers.2.mlp.act"));
    let report = traces.compare(&["--points", "model.layers.[0-9]"]);
    report.blames("model.layers.2");
    let reasoning = report.json["verdict"]["reasoning"].to_string();
    assert!(reasoning.contains("upstream") && reasoning.contains("model.layers.1 "), "{reasoning}");
    traces.compare(&["--points", "model.layers.*.down_proj"]).blames("model.layers.2.mlp.down_proj");
    let report = traces.compare(&["--points", "model.norm"]);
    report.blames("model.norm");
    assert!(report.json["verdict"]["reasoning"].to_string().contains("Nothing upstream"));
}

#[test]
fn a_candidate_is_not_its_own_floor() {
    let traces = Lattice::open().traces(Some("model.layers.2"));
    assert_eq!(traces.compare(&["--floor", "candidate"]).outcome(), (2, "invalid"));
}

#[test]
fn a_floor_of_the_same_disturbance_excuses_it_and_a_floor_of_another_does_not() {
    let mut lattice = Lattice::open();
    let traces = Traces { root: tempfile::tempdir().unwrap() };
    let shift = SHIFT / 100.0;
    lattice.capture(None, &traces.path("reference"));
    lattice.capture_shifted(Some("model.layers.2"), shift, &traces.path("candidate"));
    for (point, name) in [("model.layers.2", "same"), ("model.layers.4", "other")] {
        lattice.capture_shifted(Some(point), shift, &traces.path(name));
        let manifest = traces.path(name).join("manifest.json");
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, text.replacen("\"dtype\":\"float32\"", "\"dtype\":\"float64\"", 1))
            .unwrap();
    }
    assert_eq!(traces.compare(&["--floor", "same"]).outcome(), (0, "pass"));
    traces.compare(&["--floor", "other"]).blames("model.layers.2");
}

#[test]
fn a_trace_s_graph_is_that_of_its_own_configuration() {
    let traces = Traces::planted(|_| ());
    let trace = Trace::open(&traces.path("reference")).unwrap();
    let config = ModelConfig::new(trace.manifest().config.clone()).unwrap();
    let points: Vec<String> =
        Graph::for_config(&config).unwrap().components().iter().map(|c| c.point.clone()).collect();
    assert_eq!(points, trace.entries().iter().map(|e| e.point.clone()).collect::<Vec<_>>());
}
