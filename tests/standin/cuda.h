// The parts of CUDA that the kernels of numpyvit/backend/kernels use, run on the host, one thread at a
// time. The threads of a block are fibers. Each runs until it waits for its block or its warp, and
// continues when all of their threads wait too. So a barrier that is missing, or that not all threads
// reach, shows as a wrong result or as an error.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <setjmp.h>
#include <ucontext.h>
#include <vector>

struct dim3 { unsigned x, y, z; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;
#define __global__
#define __device__ static
#define __forceinline__ inline
#define __shared__ static
#define __restrict__

enum State { READY, AT_BLOCK, AT_WARP, DONE };
struct Fiber { ucontext_t context; jmp_buf place; State state; bool begun; char stack[1 << 16]; };
static std::vector<std::unique_ptr<Fiber>> fibers;       // kept between launches, because making one is slow
static jmp_buf scheduler;                                // jumps take a tenth of the time of swapcontext, a system call
static unsigned current;
static void (*body)(void **);
static void **arguments;
static double exchange[1024];

static void wait_as(State state) {
    fibers[current]->state = state;
    if (!_setjmp(fibers[current]->place)) _longjmp(scheduler, 1);
}
static void start() {
    for (;;) {
        body(arguments);
        wait_as(DONE);
    }
}
static __attribute__((noinline)) void resume(unsigned i) {
    current = i, threadIdx = {i, 0, 0};
    if (_setjmp(scheduler)) return;
    if (fibers[i]->begun) _longjmp(fibers[i]->place, 1);
    fibers[i]->begun = true;
    setcontext(&fibers[i]->context);
}
static void __syncthreads() { wait_as(AT_BLOCK); }
static void __syncwarp() { wait_as(AT_WARP); }

template <class T> static T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    if (mask != 0xffffffffu) { fprintf(stderr, "the mask must be that of a whole warp\n"); abort(); }
    exchange[current] = (double)value;
    wait_as(AT_WARP);
    T other = (T)exchange[current ^ lanes];
    wait_as(AT_WARP);
    return other;
}

// If all unfinished threads wait in this state, let them continue. Returns 1 if there were any.
static int release(unsigned from, unsigned to, State state) {
    for (unsigned i = from; i < to; i++)
        if (fibers[i]->state != state && fibers[i]->state != DONE) return 0;
    int any = 0;
    for (unsigned i = from; i < to; i++)
        if (fibers[i]->state == state) { fibers[i]->state = READY; any = 1; }
    return any;
}

// Runs a kernel. Returns 0, or 1 if threads wait for others that never arrive. alone: the kernel never waits.
static int run(unsigned blocks, unsigned threads, bool alone, void (*kernel)(void **), void **args) {
    body = kernel, arguments = args;
    gridDim = {blocks, 1, 1}, blockDim = {threads, 1, 1};
    for (blockIdx = {0, 0, 0}; blockIdx.x < blocks; blockIdx.x++) {
        for (threadIdx = {0, 0, 0}; alone && threadIdx.x < threads; threadIdx.x++) body(arguments);
        if (alone) continue;
        for (unsigned i = 0; i < threads; i++) {
            if (i == fibers.size()) {
                fibers.push_back(std::make_unique<Fiber>());
                Fiber &f = *fibers[i];
                getcontext(&f.context);
                f.context.uc_stack.ss_sp = f.stack, f.context.uc_stack.ss_size = sizeof f.stack;
                makecontext(&f.context, start, 0);
            }
            fibers[i]->state = READY;
        }
        for (;;) {
            int ran = 0, left = 0;
            for (unsigned i = 0; i < threads; i++)
                if (fibers[i]->state == READY) resume(i), ran = 1;
            for (unsigned i = 0; i < threads; i++) left += fibers[i]->state != DONE;
            if (!left) break;
            int go = release(0, threads, AT_BLOCK);
            for (unsigned w = 0; w < threads; w += 32) go |= release(w, w + 32 < threads ? w + 32 : threads, AT_WARP);
            if (!ran && !go) {
                fibers.clear();                          // they have stopped inside the kernel
                return 1;
            }
        }
    }
    return 0;
}
