// Small kernels for tests of the emulation: each primitive, and each kind of mistake.
#pragma once
#include <cstdint>

#include "../../csrc/cuda/context.h"

namespace toys {

struct Sizes {
  unsigned grid[3], block[3];
};
// A kernel over one array that it reads and one that it writes; the types are those of Python's struct module.
struct Toy {
  const char* name;
  char in_type, out_type;
  splatrender::cuda::Status (*run)(const void* in, void* out, int64_t n, Sizes sizes);
};
extern const Toy kToys[];
extern const int kToyCount;

}  // namespace toys
