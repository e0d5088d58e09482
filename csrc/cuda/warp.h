// Sums over the lanes of a warp and over the threads of a block, in a fixed order.
#pragma once
#include "runtime.h"

namespace splatrender::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

// The sum over the 32 lanes, in every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

}  // namespace splatrender::cuda
