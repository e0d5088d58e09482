// Types that the host side and the kernels of a stage share: how a call went, and what it may use. No CUDA here.
#pragma once
#include <cstdint>

namespace splatrender::cuda {

// How a launch or a copy went. `what` is null when all is well, else CUDA's (or the emulator's) own words.
struct Status {
  const char* kernel = nullptr;
  const char* what = nullptr;
  int code = 0;
  bool failed() const { return what != nullptr; }
};
// Leaves the function with the first failure.
#define SR_TRY(expression)                                                                          \
  do {                                                                                              \
    if (const ::splatrender::cuda::Status status_ = (expression); status_.failed()) return status_; \
  } while (false)

// Resources of the caller that a stage may use: its stream, and memory that lives until the stage returns. Freeing it
// then is safe although kernels still run: torch's allocator hands it out again on the same stream only.
struct Context {
  void* stream = nullptr;
  void* owner = nullptr;
  void* (*allocate)(void* owner, int64_t bytes) = nullptr;

  template <class T>
  T* scratch(int64_t count) {
    return static_cast<T*>(allocate(owner, (count > 0 ? count : 1) * int64_t(sizeof(T))));
  }
};

}  // namespace splatrender::cuda
