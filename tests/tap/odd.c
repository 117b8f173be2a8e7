/* An engine in C that does what engines do at times: it forks, goes to another directory, or tells the tap something
 * that cannot be. The first argument is its model's directory, the second what it does. */

#define _POSIX_C_SOURCE 200809L

#include "layerdiff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOKENS 4
#define WIDTH 256

static const char *const act = "model.layers.3.mlp.act";
static const size_t shape[2] = {TOKENS, WIDTH};
static const uint32_t tokens[TOKENS] = {41, 81, 512, 16};

static void same(float value, float *out) {
    for (size_t i = 0; i < TOKENS * WIDTH; i++) out[i] = value;
}

/* What the process says of its trace, by the name of the process. */
static int end(const char *who) {
    int failed = layerdiff_end();
    printf("%s: %d %s\n", who, failed, failed ? layerdiff_error() : "");
    fflush(stdout);
    return failed;
}

/* A child that calls the tap as if it were its own, and then has one of its own. */
static void fork_one(const char *model, float *values) {
    pid_t child = fork();
    if (child) {
        waitpid(child, NULL, 0);
        return;
    }
    same(7, values);
    layerdiff_prompt("of-the-child", tokens, TOKENS);
    layerdiff_tensor(act, 2, shape, LAYERDIFF_F32, values);
    printf("child: %d\n", layerdiff_begin("odd", "1", model));
    end("child");
    setenv("LAYERDIFF_TRACE", "own", 1);
    layerdiff_begin("odd", "1", model);
    layerdiff_prompt("own", tokens, TOKENS);
    layerdiff_tensor(act, 2, shape, LAYERDIFF_F32, values);
    end("child");
    _exit(0);
}

int main(int argc, char **argv) {
    static float values[TOKENS * WIDTH];
    const size_t wide[2] = {TOKENS, (size_t)1 << 40}, far[2] = {SIZE_MAX, 1};
    const char *nowhere = (const char *)8;
    if (argc != 3) return 3;
    const char *model = argv[1], *what = argv[2];
    same(1, values);

    if (!strcmp(what, "nowhere")) { /* Only where the tap is off. */
        printf("begin: %d\n", layerdiff_begin(NULL, nowhere, nowhere));
        layerdiff_prompt(nowhere, (const uint32_t *)nowhere, TOKENS);
        layerdiff_quantized(nowhere);
        layerdiff_tensor(nowhere, 2, (const size_t *)nowhere, LAYERDIFF_F32, nowhere);
        return end("parent");
    }
    if (!strcmp(what, "null-begin")) {
        int failed = layerdiff_begin(NULL, NULL, NULL);
        printf("begin: %d %s\n", failed, failed ? layerdiff_error() : "");
        return failed;
    }
    if (layerdiff_begin("odd", "1", model)) fprintf(stderr, "off: %s\n", layerdiff_error());
    layerdiff_prompt("instruction-07", tokens, TOKENS);
    if (!strcmp(what, "wide"))
        layerdiff_tensor(act, 2, wide, LAYERDIFF_F32, NULL);
    else if (!strcmp(what, "mask"))
        layerdiff_tensor(act, 2, shape, LAYERDIFF_MASK, NULL);
    else if (!strcmp(what, "null"))
        layerdiff_tensor(act, 2, shape, LAYERDIFF_F32, NULL);
    else if (!strcmp(what, "far"))
        layerdiff_strided(act, 2, shape, far, LAYERDIFF_F32, values);
    if (!strcmp(what, "fork")) fork_one(model, values);
    layerdiff_tensor(act, 2, shape, LAYERDIFF_F32, values);
    if (!strcmp(what, "chdir") && chdir("elsewhere")) return 3;
    return end("parent");
}
