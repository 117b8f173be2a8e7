//! A Python that is missing, or does not do its work.

use crate::world::{CAPTURE_TORCH, World, refused};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_missing_python_is_answered_with_how_to_install_it() {
    refused!(World::new(), CAPTURE_TORCH);
}

#[test]
fn a_python_without_layerdiff_hooks_is_answered_with_how_to_install_it() {
    let world = World::new();
    world.python("/usr/bin/python3: No module named layerdiff_hooks", 1);
    refused!(world, CAPTURE_TORCH);
}

#[test]
fn a_python_without_torch_is_answered_with_how_to_install_it() {
    let world = World::new();
    world.python(
        "Traceback (most recent call last):\n  File \"x.py\", line 1, in <module>\nModuleNotFoundError: No module named 'torch'",
        1,
    );
    refused!(world, CAPTURE_TORCH);
}

#[test]
fn what_the_python_side_says_is_passed_on() {
    let world = World::new();
    world.python(
        "{\"event\": \"start\"}\nerror: no room for a shard of 5 bytes\nhint: capture fewer points",
        2,
    );
    refused!(world, CAPTURE_TORCH);
}

#[test]
fn what_the_python_side_says_is_passed_on_by_run() {
    let world = World::new();
    world.python("error: the checkpoint has no key\n  expected: a\nhint: download it again", 2);
    refused!(world, "run --model @@ --reference torch --python @python --out @report");
}

#[test]
fn a_python_that_dies_is_reported_with_its_last_words() {
    let world = World::new();
    world.python("something went wrong", 3);
    refused!(world, CAPTURE_TORCH);
}

#[test]
fn a_python_that_says_nothing_and_writes_nothing_is_not_believed() {
    let world = World::new();
    world.python("", 0);
    refused!(world, CAPTURE_TORCH);
}

#[test]
fn a_python_that_floods_stderr_does_not_hang() {
    let world = World::new();
    world.file("python", "#!/bin/sh\nhead -c 40000000 /dev/zero | tr '\\0' 'x' >&2\nexit 4\n");
    std::fs::set_permissions(world.path("python"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = world.run(CAPTURE_TORCH);
    assert_eq!(run.code, 2);
    assert!(run.stderr.len() < 4096, "{} bytes on stderr", run.stderr.len());
}
