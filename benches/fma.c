// How many GFLOP/s one thread does in fused multiply-adds that touch no memory: the limit of any product.
// fma SECONDS
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifdef __AVX512F__
#define BYTES 64
#elif defined __AVX__
#define BYTES 32
#else
#define BYTES 16
#endif
#ifdef __aarch64__
#define KEEP(x) __asm__ volatile("" : "+w"(x))
#else
#define KEEP(x) __asm__ volatile("" : "+v"(x))
#endif
typedef float vector __attribute__((vector_size(BYTES)));
// As many as hide the latency and fit into the registers.
enum { SUMS = 12, TURNS = 1000000 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 0.2, best = 0;
    vector sums[SUMS] = {0}, factor = (vector){0} + 0.5f, term = (vector){0} + 1.0f;
    for (double end = now() + seconds; now() < end;) {
        double begin = now();
        for (int turn = 0; turn < TURNS; turn++)
#pragma GCC unroll 12
            for (int n = 0; n < SUMS; n++) {
                sums[n] = sums[n] * factor + term;
                KEEP(sums[n]);
            }
        double speed = 2.0 * (BYTES / sizeof(float)) * SUMS * TURNS / (now() - begin) / 1e9;
        best = speed > best ? speed : best;
    }
    printf("%.1f\n", best);
}
