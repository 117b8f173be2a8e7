/* An engine in C with one kernel, SwiGLU, and a thread for each layer. What the kernel reads it takes from a file:
 *
 *     tokens, token ids, steps, token ids of the steps, layers, width: uint32
 *     for each step and layer: gate, up: float [tokens of the step, width]
 *
 * The third argument plants a fault: `gelu` and `swapped` in the kernel of layer 5, the others in how it is tapped. */

#include "layerdiff.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 64

struct layer {
    pthread_t thread;
    int number;
    size_t tokens, width;
    const char *fault;
    float *gate, *up, *act;
};

static void swiglu(const struct layer *l, size_t from, size_t to) {
    const char *fault = l->number == 5 ? l->fault : "none";
    for (size_t i = from; i < to; i++) {
        float g = l->gate[i], u = l->up[i];
        if (!strcmp(fault, "swapped")) {
            float t = g;
            g = u, u = t;
        }
        float gated = !strcmp(fault, "gelu") ? 0.5f * g * (1 + erff(g * 0.70710678f)) : g / (1 + expf(-g));
        l->act[i] = gated * u;
    }
}

static void *run(void *arg) {
    struct layer *l = arg;
    size_t shape[2] = {l->tokens, l->width};
    char gate[MOST], up[MOST], act[MOST];
    snprintf(gate, MOST, "model.layers.%d.mlp.gate_proj", l->number);
    snprintf(up, MOST, "model.layers.%d.mlp.up_proj", l->number);
    snprintf(act, MOST, "model.layers.%d.mlp.%s", l->number, strcmp(l->fault, "name") ? "act" : "act_fn");
    layerdiff_tensor(gate, 2, shape, LAYERDIFF_F32, l->gate);
    layerdiff_tensor(up, 2, shape, LAYERDIFF_F32, l->up);
    if (l->number % 2) { /* A token at a time, the last one first. */
        for (size_t row = l->tokens; row-- > 0;) {
            size_t one[2] = {1, l->width};
            swiglu(l, row * l->width, (row + 1) * l->width);
            if (row || strcmp(l->fault, "row"))
                layerdiff_rows(act, row, 2, one, LAYERDIFF_F32, l->act + row * l->width);
        }
    } else {
        swiglu(l, 0, l->tokens * l->width);
        layerdiff_tensor(act, 2, shape, strcmp(l->fault, "dtype") ? LAYERDIFF_F32 : 17,
                         strcmp(l->fault, "null") ? l->act : NULL);
    }
    return NULL;
}

static void numbers(FILE *file, size_t size, void *into, size_t count) {
    if (fread(into, size, count, file) != count) {
        fprintf(stderr, "the file is too short\n");
        exit(3);
    }
}

static uint32_t whole(FILE *file) {
    uint32_t n;
    numbers(file, sizeof n, &n, 1);
    return n;
}

int main(int argc, char **argv) {
    FILE *file = argc == 4 ? fopen(argv[2], "rb") : NULL;
    uint32_t tokens[MOST], steps[MOST], count, more, layers, width;
    if (!file) return 3;
    numbers(file, sizeof *tokens, tokens, count = whole(file));
    numbers(file, sizeof *steps, steps, more = whole(file));
    layers = whole(file), width = whole(file);

    if (layerdiff_begin("example-c", "1", argv[1])) fprintf(stderr, "off: %s\n", layerdiff_error());
    layerdiff_prompt("instruction-07", tokens, count);
    for (uint32_t step = 0; step <= more; step++) {
        struct layer all[MOST];
        if (step) layerdiff_step(steps[step - 1]);
        for (uint32_t i = 0; i < layers; i++) {
            struct layer *l = all + i;
            size_t n = (step ? 1 : count) * (size_t)width;
            *l = (struct layer){.number = (int)i, .tokens = n / width, .width = width, .fault = argv[3]};
            l->gate = malloc(3 * n * sizeof(float)), l->up = l->gate + n, l->act = l->up + n;
            numbers(file, sizeof(float), l->gate, 2 * n);
        }
        for (uint32_t i = 0; i < layers; i++) pthread_create(&all[i].thread, NULL, run, all + i);
        for (uint32_t i = 0; i < layers; i++) pthread_join(all[i].thread, NULL), free(all[i].gate);
    }
    printf("%s\n", layerdiff_on() ? "on" : "off");
    if (layerdiff_end()) {
        fprintf(stderr, "error: %s\n", layerdiff_error());
        return 1;
    }
    return 0;
}
