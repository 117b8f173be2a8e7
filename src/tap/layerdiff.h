/* layerdiff's tap: how a kernel in C, C++, Objective-C or Swift writes a trace. C99.
 *
 *     layerdiff_begin("my-engine", "0.1", model_dir);                              // off unless LAYERDIFF_TRACE is set
 *     layerdiff_prompt("a", token_ids, 4);
 *     layerdiff_tensor("model.layers.3.mlp.act", 2, shape, LAYERDIFF_F32, act);    // in any thread
 *     if (layerdiff_end()) fprintf(stderr, "%s\n", layerdiff_error());
 *
 * The library is made in layerdiff's source, as target/release/liblayerdiff.a, or .so or .dylib with cdylib:
 *
 *     cargo rustc --release --lib --no-default-features --features c --crate-type staticlib
 *
 * The tap is on if the environment variable LAYERDIFF_TRACE names a directory to make. Off, each call is the load
 * of a flag, and no pointer is looked at. `layerdiff inspect TRACE` lists the points of a model, and their shapes,
 * from any trace of it.
 *
 * Pointers may be used until the call returns, and not after. Texts are UTF-8 and end in a zero byte. All functions may
 * be called from all threads; begin, prompt, step and end when no kernel of another step is running.
 *
 * A trace belongs to the process that began it. In a child that it forks nothing is recorded, and layerdiff_end
 * returns 1; such a child may then begin a trace of its own, elsewhere. */

#ifndef LAYERDIFF_H
#define LAYERDIFF_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Types of elements. F16 and BF16 are 16 bits each; a MASK is a byte each, 1 where a token may look, else 0. */
enum layerdiff_dtype {
    LAYERDIFF_F32 = 0,
    LAYERDIFF_F16 = 1,
    LAYERDIFF_BF16 = 2,
    LAYERDIFF_F64 = 3,
    LAYERDIFF_MASK = 4
};

/* Turns the tap on, if LAYERDIFF_TRACE is set. `model_dir` has config.json, which says what the points are, and the
 * weights, whose hash makes replay possible. If LAYERDIFF_PROMPTS names a trace, or a JSONL file of prompts with
 * token_ids, the first of them has begun. Returns 0, or 1 if no trace could be written: see layerdiff_error. The
 * tap is then off, unless a trace had begun already, and the engine may go on. */
int layerdiff_begin(const char *engine, const char *version, const char *model_dir);

/* 1 if the tap is on, else 0: to fetch a buffer from a device only then. */
int layerdiff_on(void);

/* Says that the engine computes with other weights than those in model_dir, such as quantized ones. With
 * `dequantized_dir`, which may be NULL, it names an f32 checkpoint with the same numbers. */
void layerdiff_quantized(const char *dequantized_dir);

/* Begins a prompt of `count` tokens; what follows is its prefill, step 0. `id` has letters, digits, - _ and . only. */
void layerdiff_prompt(const char *id, const uint32_t *token_ids, size_t count);

/* Begins the next decode step, which is given this token. */
void layerdiff_step(uint32_t token_id);

/* Records the tensor at a point. `shape` has `rank` sizes, without a batch; `data` has as many elements as they
 * multiply to, row-major, aligned to their type. An error is kept, and layerdiff_end returns it. */
void layerdiff_tensor(const char *point, size_t rank, const size_t *shape, int dtype, const void *data);

/* Records rows of a tensor, from `first_row` of its outermost axis on; `shape` is theirs. By layerdiff_end each row
 * must have been recorded once. */
void layerdiff_rows(const char *point, size_t first_row, size_t rank, const size_t *shape, int dtype,
                    const void *data);

/* Records a tensor whose elements lie otherwise: `strides` are distances in elements along each axis of `shape`,
 * from the first on; NULL for row-major. */
void layerdiff_strided(const char *point, size_t rank, const size_t *shape, const size_t *strides, int dtype,
                       const void *data);

/* Writes the trace and turns the tap off. Returns 0 if the trace is there, or none was asked for; 1 if there is none,
 * also because layerdiff_begin failed. */
int layerdiff_end(void);

/* Why this thread's last layerdiff_begin or layerdiff_end returned 1; valid until the next of this thread's that does.
 * Empty if none has. */
const char *layerdiff_error(void);

#ifdef __cplusplus
}
#endif

#endif
