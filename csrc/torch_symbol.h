// Finds C functions of torch that the extension is not linked against, so that one binary serves every torch >= 2.10:
// the functions for CUDA streams differ between versions, and a build of torch without CUDA has none of them.
#pragma once
#include <dlfcn.h>

namespace splatrender {

// The address of a C function of torch, or null where this torch does not have it.
//
// RTLD_DEFAULT finds what the libraries that the extension needs export: libtorch_cpu.so at least. torch loads
// libtorch_cuda.so with RTLD_LOCAL, which hides it from RTLD_DEFAULT, and an extension that was linked against a build
// of torch without CUDA does not need that library. RTLD_NOLOAD returns the copy that torch has loaded, and loads
// none.
inline void* torch_symbol(const char* name) {
  if (void* found = dlsym(RTLD_DEFAULT, name)) return found;
  void* cuda = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  return cuda ? dlsym(cuda, name) : nullptr;
}

}  // namespace splatrender
