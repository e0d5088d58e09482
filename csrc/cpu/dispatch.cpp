// Chooses the instruction set once, at first use.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace splatrender {

Kernels make_kernels_portable();
#ifdef SPLATRENDER_X86
Kernels make_kernels_avx2();
Kernels make_kernels_avx512();
#endif

static Kernels choose() {
  const char* wish = std::getenv("SPLATRENDER_ISA");
  const std::string isa = wish ? wish : "";
#ifdef SPLATRENDER_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  if (avx512 && (isa.empty() || isa == "avx512")) return make_kernels_avx512();
  if (avx2 && (isa.empty() || isa == "avx2")) return make_kernels_avx2();
#endif
  if (isa.empty() || isa == "portable") return make_kernels_portable();
  throw std::runtime_error("SPLATRENDER_ISA: expected portable, avx2 or avx512, and one that this CPU has; got " + isa);
}

const Kernels& kernels() {
  static const Kernels chosen = choose();
  return chosen;
}

}  // namespace splatrender
