// Switching stacks: a few instructions on x86-64, ucontext elsewhere, and what the sanitizers want to know of it.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>
#include <vector>
#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT
#endif
#ifdef SIMT_UCONTEXT
#include <ucontext.h>
#endif
#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

namespace simt {
namespace {

#ifdef SIMT_UCONTEXT

struct Stack {
  ucontext_t context;
};
void begin(Stack& s, char* low, size_t bytes, void (*body)()) {
  getcontext(&s.context);
  s.context.uc_stack.ss_sp = low;
  s.context.uc_stack.ss_size = bytes;
  s.context.uc_link = nullptr;
  makecontext(&s.context, body, 0);
}
void change(Stack& from, Stack& to) { swapcontext(&from.context, &to.context); }

#else

struct Stack {
  void* top = nullptr;  // the six saved registers and the return address
};
// Saves what a function must keep, changes stacks, and returns into the other one.
__attribute__((naked, noinline)) void change_stack(void** /*save*/, void* /*load*/) {
  asm("pushq %rbp\n\t"
      "pushq %rbx\n\t"
      "pushq %r12\n\t"
      "pushq %r13\n\t"
      "pushq %r14\n\t"
      "pushq %r15\n\t"
      "movq %rsp, (%rdi)\n\t"
      "movq %rsi, %rsp\n\t"
      "popq %r15\n\t"
      "popq %r14\n\t"
      "popq %r13\n\t"
      "popq %r12\n\t"
      "popq %rbx\n\t"
      "popq %rbp\n\t"
      "ret");
}
void begin(Stack& s, char* low, size_t bytes, void (*body)()) {
  auto* p = reinterpret_cast<uintptr_t*>(low + bytes);
  *--p = 0;  // the body's return address: it never returns
  *--p = reinterpret_cast<uintptr_t>(body);
  for (int i = 0; i < 6; ++i) *--p = 0;
  s.top = p;
}
void change(Stack& from, Stack& to) { change_stack(&from.top, to.top); }

#endif

struct Fiber {
  Stack stack;
  char* low = nullptr;
  size_t bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* tsan = nullptr;        // ThreadSanitizer's
};

}  // namespace

struct FiberSet::State {
  std::vector<Fiber> fibers;
  Fiber launcher;
  char* memory = nullptr;
  size_t stride = 0, guard = 0;
  void (*body)() = nullptr;
  int current = -1;  // -1: the launching stack
  char begun = 0, ended = 0;

  Fiber& at(int fiber) { return fiber < 0 ? launcher : fibers[size_t(fiber)]; }
  // To another fiber, or with -1 to the launching stack; `last`: this one is not entered again.
  void go(int to, [[maybe_unused]] bool last) {
    Fiber &here = at(current), &there = at(to);
    current = to;
#ifdef SIMT_TSAN
    __tsan_switch_to_fiber(there.tsan, 1);  // 1: orders nothing
#endif
#ifdef SIMT_ASAN
    __sanitizer_start_switch_fiber(last ? nullptr : &here.fake_stack, there.low, there.bytes);
#endif
    change(here.stack, there.stack);
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(here.fake_stack, nullptr, nullptr);
#endif
  }
};

FiberSet::FiberSet(int count, size_t stack_bytes, size_t guard_bytes, void (*body)()) : state_(new State) {
  State& s = *state_;
  s.stride = stack_bytes + guard_bytes;
  s.guard = guard_bytes;
  s.body = body;
  s.fibers.resize(size_t(count));
  void* const memory = mmap(
      nullptr, s.stride * size_t(count), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  s.memory = static_cast<char*>(memory);
  for (size_t i = 0; i < size_t(count); ++i) {
    Fiber& f = s.fibers[i];
    mprotect(s.memory + i * s.stride, guard_bytes, PROT_NONE);  // an overflow is a fault, not a neighbour's data
    f.low = s.memory + i * s.stride + guard_bytes;
    f.bytes = stack_bytes - i % 32 * 512;  // tops at the same distance would share few sets of the cache
#ifdef SIMT_TSAN
    f.tsan = __tsan_create_fiber(0);
#endif
  }
}
FiberSet::~FiberSet() {
  State& s = *state_;
#ifdef SIMT_TSAN
  for (Fiber& f : s.fibers) __tsan_destroy_fiber(f.tsan);
#endif
  munmap(s.memory, s.stride * s.fibers.size());
}

int FiberSet::count() const { return int(state_->fibers.size()); }

void FiberSet::restart(int count) {
  State& s = *state_;
  for (int i = 0; i < count; ++i) {
    Fiber& f = s.fibers[size_t(i)];
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(f.low, f.bytes);  // abandoned frames
#endif
    begin(f.stack, f.low, f.bytes, s.body);
  }
  s.current = -1;
#ifdef SIMT_TSAN
  s.launcher.tsan = __tsan_get_current_fiber();
#endif
  release_order(&s.begun);
}
void FiberSet::enter(int fiber) {
  const bool launching = state_->current < 0;
  state_->go(fiber, false);
  if (launching) acquire_order(&state_->ended);
}
void FiberSet::first_entry() {
#ifdef SIMT_ASAN
  const void* low = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &low, &bytes);
  if (!state_->launcher.low) {  // the first fiber of all comes from there
    state_->launcher.low = const_cast<char*>(static_cast<const char*>(low));
    state_->launcher.bytes = bytes;
  }
#endif
  acquire_order(&state_->begun);
}
void FiberSet::finish_and_enter(int fiber) {
  release_order(&state_->ended);
  state_->go(fiber, true);
}
void FiberSet::leave(bool finished) {
  release_order(&state_->ended);
  state_->go(-1, finished);
}

#ifdef SIMT_TSAN
void release_order(void* address) { __tsan_release(address); }
void acquire_order(void* address) { __tsan_acquire(address); }
#else
void release_order(void*) {}
void acquire_order(void*) {}
#endif

}  // namespace simt
