// The CUDA side of every stage: the same argument structs as on the CPU, whose pointers are device memory. Every
// function queues its kernels on the context's stream and returns; only bin_count waits, for the number of pairs.
#pragma once
#include "../stages.h"
#include "context.h"

namespace splatrender::cuda {

// Splats of a block going backward, and of a partial sum for the cameras. Fewer than on the CPU: a GPU is filled from
// some ten thousand splats on.
constexpr int64_t kCameraChunk = 256;
constexpr int64_t camera_chunks(int64_t N) { return (N + kCameraChunk - 1) / kCameraChunk; }

template <class T>
Status project(const ProjectArgs<T>&, Context&);
template <class T>
Status project_backward(const ProjectArgs<T>&, const ProjectGrads<T>&, Context&);
template <class T>
Status shade(const ShadeArgs<T>&, Context&);
template <class T>
Status shade_backward(const ShadeArgs<T>&, const ShadeGrads<T>&, Context&);

// Results of bin_count for bin_fill, in scratch memory of the context.
struct BinState {
  int64_t pairs = 0;
  const int32_t* order = nullptr;   // [C*N] splats by depth
  const int64_t* places = nullptr;  // [C*N] where the pairs of order[i] begin before they are sorted by tile
};
template <class T>
Status bin_count(const BinArgs<T>&, Context&, BinState&);  // fills splat_offsets
template <class T>
Status bin_fill(const BinArgs<T>&, Context&, const BinState&);

template <class T>
Status blend(const BlendArgs<T>&, Context&);
template <class T>
Status blend_backward(const BlendArgs<T>&, const BlendGrads<T>&, Context&);
template <class T>
Status flow_statistics(const FlowArgs<T>&, Context&);
template <class T>
Status loss(const LossArgs<T>&, Context&);
Status adam(const AdamArgs&, Context&);

}  // namespace splatrender::cuda
