// Gradients of the cameras: sums over all splats, in a fixed order and without atomics.
//
// A block takes a chunk of kCameraChunk splats and leaves its sums in partial [chunks, C, 16]; one block per camera
// then adds the chunks. Lanes add in the number type, everything beyond a warp in double.
#pragma once
#include "stages_cuda.h"
#include "warp.h"

namespace splatrender::cuda {

constexpr int kCameraSums = 16;  // numbers of a camera in partial

// Adds `terms` of all threads of the block to sums[0..COUNT-1], or puts them there. All threads call it; `turn` counts
// the calls, which take turns with the two halves of `shared`, so that one barrier a call is enough.
template <int COUNT, int WARPS, class T>
__device__ __forceinline__ void add_terms(T (&terms)[COUNT], T (&shared)[2][WARPS][COUNT], int turn, bool first,
                                          double* sums) {
  constexpr int kLanesEach = kWarp / COUNT;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  T(&mine)[WARPS][COUNT] = shared[turn & 1];
  const T sum = warp_sums<COUNT>(terms);
  if (lane % kLanesEach == 0) mine[warp][lane / kLanesEach] = sum;
  __syncthreads();
  if (threadIdx.x >= COUNT) return;
  double total = first ? 0.0 : sums[threadIdx.x];
#pragma unroll
  for (int w = 0; w < WARPS; ++w) total += double(mine[w][threadIdx.x]);
  sums[threadIdx.x] = total;
}

// The sums over all chunks for camera c: column k < COUNT in thread k, 0 in the other threads. A block of
// kTotalThreads, 16 columns wide: a row of threads takes every 64th chunk.
constexpr int kTotalRows = 64, kTotalThreads = kTotalRows * kCameraSums;
template <int COUNT>
__device__ __forceinline__ double camera_total(const double* partial, int64_t chunks, int64_t C, int64_t c) {
  __shared__ double sums[kTotalRows][kCameraSums];
  const int column = threadIdx.x % kCameraSums, row = threadIdx.x / kCameraSums;
  double sum = 0;
  if (column < COUNT) {
#pragma unroll 8
    for (int64_t chunk = row; chunk < chunks; chunk += kTotalRows)
      sum += partial[(chunk * C + c) * kCameraSums + column];
  }
  sums[row][column] = sum;
  __syncthreads();
  sum = 0;
  if (row == 0)
    for (int r = 0; r < kTotalRows; ++r) sum += sums[r][column];
  return sum;
}

}  // namespace splatrender::cuda
