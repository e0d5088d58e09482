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

// The sum over this lane and those before it.
template <class T>
__device__ __forceinline__ T warp_prefix_sum(T x) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, x, step);
    if (lane >= step) x += before;
  }
  return x;
}

// The sums over the 32 lanes of COUNT numbers each, COUNT a power of two: lane l returns that of x[l / (32 / COUNT)].
// Partners split the numbers between them and add the other's share to theirs, so that 16 numbers take 16 shuffles and
// not 80. Overwrites x.
template <int COUNT, int STEP = kWarp / 2, class T>
__device__ __forceinline__ T warp_sums(T* x) {
  constexpr int kHalf = COUNT / 2;
  const bool upper = (threadIdx.x & STEP) != 0;
#pragma unroll
  for (int k = 0; k < kHalf; ++k) {
    const T low = x[k], high = x[k + kHalf];
    x[k] = (upper ? high : low) + __shfl_xor_sync(kAllLanes, upper ? low : high, STEP);
  }
  if constexpr (COUNT == 1) x[0] += __shfl_xor_sync(kAllLanes, x[0], STEP);
  if constexpr (STEP > 1) return warp_sums<(kHalf > 0 ? kHalf : 1), STEP / 2>(x);
  return x[0];
}

// The sum over all threads of a block of WARPS warps, in every thread.
template <int WARPS, class T>
__device__ __forceinline__ T block_sum(T x) {
  __shared__ T sums[WARPS];
  x = warp_sum(x);
  __syncthreads();  // an earlier call's sums have been read
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  T sum = sums[0];
#pragma unroll
  for (int w = 1; w < WARPS; ++w) sum += sums[w];
  return sum;
}

}  // namespace splatrender::cuda
