// CUDA on the host, as far as the kernels of this project need it: grid, block, shared memory, barriers, atomics.
//
// Blocks run one after the other. The threads of a block are fibers: each runs until it meets a barrier or ends, then the next one.
// A barrier lets nobody pass before every thread of the block has come to it, and stops the program where some come to another barrier
// or have ended (undefined on a device). CUDA_ORDER (0 forwards, 1 backwards, 2 shuffled anew at every barrier) is the order in which
// threads run between two barriers: results that depend on it show a missing barrier. Shared memory is filled with garbage before
// each block.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <numeric>
#include <algorithm>
#include <random>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
// all shared variables lie in one section, so that it can be filled
#define __shared__ static __attribute__((section("cuda_shared")))
#define __syncthreads() cuda_on_host::barrier(__LINE__)
#define KERNEL_LAUNCH(kernel, grid, block, stream, ...) cuda_on_host::launch((grid), (block), [=] { kernel(__VA_ARGS__); })

typedef void* cudaStream_t;
struct HostIndex { unsigned x, y, z; };
extern "C" char __start_cuda_shared[], __stop_cuda_shared[];

namespace cuda_on_host {

constexpr size_t STACK = 1 << 16;
#ifdef __x86_64__
// saves the registers a function must keep and goes on with another stack
asm(R"(
.text
.local cuda_on_host_switch
cuda_on_host_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
)");
extern "C" void cuda_on_host_switch(void** from, void* to) asm("cuda_on_host_switch");
#endif

struct Fiber {
    std::vector<char> stack = std::vector<char>(STACK);
#ifdef __x86_64__
    void* at = nullptr;
#else
    ucontext_t at;
#endif
    int line = 0;  // the barrier it waits at; -1 when it has ended
};

static std::vector<Fiber*> fibers;
static Fiber* running = nullptr;
#ifdef __x86_64__
static void* scheduler;
#else
static ucontext_t scheduler;
#endif
static HostIndex thread_index, block_index, block_size, grid_size;
static const std::function<void()>* body;
static int order = 0;
static std::mt19937 coin(1);
static long launches = 0, barriers = 0;

static void back() {
#ifdef __x86_64__
    cuda_on_host_switch(&running->at, scheduler);
#else
    swapcontext(&running->at, &scheduler);
#endif
}

static void entry() {
    (*body)();
    running->line = -1;
    back();
    abort();
}

static void barrier(int line) {
    running->line = line;
    back();
}

static void start(Fiber& f) {
    f.line = 0;
#ifdef __x86_64__
    uintptr_t top = ((uintptr_t)f.stack.data() + STACK) & ~(uintptr_t)15;
    void** sp = (void**)(top - 16);  // at entry() the stack pointer is 8 past a multiple of 16, as after a call
    *sp = (void*)entry;
    f.at = sp - 6;
    memset(f.at, 0, 48);
#else
    getcontext(&f.at);
    f.at.uc_stack.ss_sp = f.stack.data();
    f.at.uc_stack.ss_size = STACK;
    makecontext(&f.at, entry, 0);
#endif
}

static void run_block(unsigned threads) {
    memset(__start_cuda_shared, 0xa5, __stop_cuda_shared - __start_cuda_shared);
    while (fibers.size() < threads) fibers.push_back(new Fiber);
    std::vector<unsigned> turn(threads);
    std::iota(turn.begin(), turn.end(), 0u);
    if (order == 1) std::reverse(turn.begin(), turn.end());
    for (unsigned t = 0; t < threads; t++) start(*fibers[t]);
    for (;;) {
        if (order == 2) std::shuffle(turn.begin(), turn.end(), coin);
        for (unsigned t : turn) {
            running = fibers[t];
            if (running->line == -1) continue;
            thread_index = {t, 0, 0};
#ifdef __x86_64__
            cuda_on_host_switch(&scheduler, running->at);
#else
            swapcontext(&scheduler, &running->at);
#endif
        }
        const int line = fibers[0]->line;
        for (unsigned t = 0; t < threads; t++)
            if (fibers[t]->line != line) {
                fprintf(stderr, "block %u: thread 0 is at barrier %d, thread %u at %d (-1: ended)\n", block_index.x, line, t, fibers[t]->line);
                exit(70);
            }
        if (line == -1) return;
        barriers++;
    }
}

static void launch(unsigned grid, unsigned block, const std::function<void()>& what) {
    body = &what;
    grid_size = {grid, 1, 1};
    block_size = {block, 1, 1};
    launches++;
    for (unsigned b = 0; b < grid; b++) {
        block_index = {b, 0, 0};
        run_block(block);
    }
}

}  // namespace cuda_on_host

#define threadIdx (cuda_on_host::thread_index)
#define blockIdx (cuda_on_host::block_index)
#define blockDim (cuda_on_host::block_size)
#define gridDim (cuda_on_host::grid_size)

template <class T> static T atomicAdd(T* at, T value) { const T old = *at; *at = old + value; return old; }
template <class T> static T atomicMax(T* at, T value) { const T old = *at; *at = old > value ? old : value; return old; }
static int cudaMemsetAsync(void* at, int value, size_t size, cudaStream_t) { memset(at, value, size); return 0; }
