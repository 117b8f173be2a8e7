//! An engine with two kernels, the rotary tables of Qwen3.5, in two threads: `engine MODEL THETA TOKENS`.

use std::{env, error::Error, thread};

fn main() -> Result<(), Box<dyn Error>> {
    let [model, theta, tokens] = env::args().skip(1).collect::<Vec<_>>().try_into().expect("three arguments");
    let (theta, tokens): (f32, usize) = (theta.parse()?, tokens.parse()?);
    let tap = layerdiff::tap::Tap::from_env("engine", env!("CARGO_PKG_VERSION"), model)?;
    thread::scope(|threads| {
        for (name, function) in [("cos", f32::cos as fn(f32) -> f32), ("sin", f32::sin)] {
            let tap = &tap;
            threads.spawn(move || {
                let table = table(theta, tokens, function);
                tap.tensor(&format!("model.rotary_emb.{name}"), &[tokens, WIDTH], &table);
            });
        }
    });
    tap.finish()?;
    Ok(())
}

/// Half the numbers of a head that are rotated.
const WIDTH: usize = 8;

fn table(theta: f32, tokens: usize, function: fn(f32) -> f32) -> Vec<f32> {
    let frequency = |i: usize| theta.powf(-(i as f32) / WIDTH as f32);
    (0..tokens).flat_map(|t| (0..WIDTH).map(move |i| function(t as f32 * frequency(i)))).collect()
}
