// Threads and scratch memory for the loops in cpu/. Declared here, defined once in parallel.cpp: a loop compiled
// for AVX-512 must not leave inline copies of shared library code behind that an older CPU would then run.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace splatrender {

int worker_count();
// Calls body(context, worker) for worker = 0..workers-1, possibly at the same time.
void run_workers(int workers, void (*body)(void*, int), void* context);

// body(i) for i in [0, n), handed out one by one so that uneven work spreads; any order, any thread.
template <class F>
inline __attribute__((always_inline)) void parallel_for(int64_t n, const F& body) {
  struct Context {
    const F* body;
    std::atomic<int64_t> next;
    int64_t n;
  } context{&body, {0}, n};
  const int64_t workers = n < worker_count() ? n : worker_count();
  if (workers <= 1) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
  run_workers(
      int(workers),
      [](void* p, int) {
        auto& c = *static_cast<Context*>(p);
        for (int64_t i; (i = c.next.fetch_add(1)) < c.n;) (*c.body)(i);
      },
      &context);
}

// A block of memory aligned to 64 bytes that only grows. Throws std::bad_alloc when there is none left.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* reserve(size_t bytes);
  template <class T>
  T* get(size_t count) {
    return static_cast<T*>(reserve(count * sizeof(T)));
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace splatrender
