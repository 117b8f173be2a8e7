//! A tap that is off costs nothing.

use layerdiff::tap::Tap;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what the current thread allocates.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator; a counter of the thread, which allocates nothing, is all there is
// beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ended = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

/// All that an engine calls.
fn calls(tap: &Tap, values: &[f32]) {
    tap.prompt("a", &[1, 2]);
    for _ in 0..1000 {
        tap.tensor("model.norm", &[2, 8], values);
        tap.rows("model.norm", 0, &[2, 8], values);
        tap.strided("model.norm", &[2, 8], &[8, 1], values);
        tap.tensor_with("model.norm", &[2, 8], || -> Vec<f32> { unreachable!("the tap is off") });
        tap.step(3);
    }
    tap.quantized(None);
}

#[test]
fn a_tap_that_is_off_allocates_nothing_and_computes_nothing() {
    let values = vec![1.0; 16];
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![0_u8; 10]))), 1, "the counter counts");
    assert_eq!(allocations(|| calls(layerdiff::tap::global(), &values)), 0);
    let tap = Tap::off();
    assert_eq!(allocations(|| calls(&tap, &values)), 0);
    assert_eq!(allocations(|| tap.finish().unwrap()), 0);
}
