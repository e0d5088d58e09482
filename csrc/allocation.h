// The message of an allocation that failed on a GPU. No torch and no CUDA here.
#pragma once
#include <cstdint>
#include <sstream>
#include <string>

#include "cuda/context.h"

namespace splatrender {

constexpr int kCudaOutOfMemory = 2;  // cudaErrorMemoryAllocation

// `fault` is the error that CUDA's runtime still reports after the allocation: an earlier kernel that read or wrote out
// of bounds makes every later call fail, cudaMalloc included, and is then the reason. Without a fault memory is not
// enough.
inline std::string allocation_failure(int64_t bytes, const std::string& device, const std::string& reason,
                                      const cuda::Status& fault) {
  std::ostringstream s;
  if (fault.failed() && fault.code != kCudaOutOfMemory) {
    s << "CUDA error " << fault.code << " (" << fault.what << ") on " << device
      << ", raised by an earlier kernel and found at an allocation; CUDA_LAUNCH_BLOCKING=1 finds the kernel";
  } else {
    s << "CUDA out of memory. Tried to allocate " << double(bytes) / (1 << 20) << " MiB on " << device << " (" << reason
      << ")";
  }
  return s.str();
}

}  // namespace splatrender
