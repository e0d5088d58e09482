// Before any walk over the lists: splats in units of log2, and which tiles start first.
#include "blend_tile.cuh"

namespace splatrender::cuda {

// One thread per splat and camera.
template <class T>
__global__ void __launch_bounds__(256) footprint_kernel(BlendArgs<T> a, Footprint<T>* footprints) {
  const int64_t i = item();
  if (i >= a.C * a.N) return;
  const T* q = a.conics + 3 * i;
  const T k = T(-0.5 * kLog2E);
  footprints[i] = {{a.means2d[2 * i], a.means2d[2 * i + 1], k * q[0], k * (q[1] + q[1])},
                   {k * q[2], log_two(a.peaks[i]), T(0), T(0)}};
}

// The tiles of all cameras by falling length of their lists, in classes of powers of two: the heaviest start first, so
// that none is left alone at the end. One block; the order within a class does not matter to any result. Lanes of one
// class take their places together: most tiles of an image are in two or three classes.
template <class T>
__global__ void __launch_bounds__(1024) tile_order_kernel(BlendArgs<T> a, int64_t tiles, int32_t* order) {
  constexpr int kClasses = 33;
  __shared__ int next[kClasses + 1];  // the last for threads that have no tile
  const int lane = threadIdx.x % kWarp;
  const auto take_place = [&](int64_t t) {
    const int n = t < tiles ? a.tile_offsets[t + 1] - a.tile_offsets[t] : 0;
    const int weight_class = t >= tiles ? kClasses : n > 0 ? __clz(n) : 32;
    const unsigned peers = __match_any_sync(kAllLanes, weight_class);
    const int leader = __ffs(int(peers)) - 1;
    const int first = lane == leader ? atomicAdd(&next[weight_class], __popc(peers)) : 0;
    return __shfl_sync(kAllLanes, first, leader) + __popc(peers & ((1u << lane) - 1));
  };
  if (threadIdx.x <= kClasses) next[threadIdx.x] = 0;
  __syncthreads();
  for (int64_t first = 0; first < tiles; first += blockDim.x) take_place(first + threadIdx.x);  // counts them
  __syncthreads();
  if (threadIdx.x == 0) {
    int sum = 0;
    for (int k = 0; k < kClasses; ++k) {
      const int count = next[k];
      next[k] = sum;
      sum += count;
    }
  }
  __syncthreads();
  for (int64_t first = 0; first < tiles; first += blockDim.x) {
    const int64_t t = first + threadIdx.x;
    const int place = take_place(t);
    if (t < tiles) order[place] = int32_t(t);
  }
}

template <class T>
Status prepare(const BlendArgs<T>& a, Context& context, Prepared<T>& p) {
  p.tiles = a.C * divide_up(a.width, kTile) * divide_up(a.height, kTile);
  Footprint<T>* footprints = context.scratch<Footprint<T>>(a.C * a.N);
  int32_t* order = context.scratch<int32_t>(p.tiles);
  p.footprints = footprints, p.order = order;
  SR_TRY(launch_over("footprint_kernel", footprint_kernel<T>, a.C * a.N, context.stream, a, footprints));
  if (p.tiles == 0) return {};
  return launch("tile_order_kernel", tile_order_kernel<T>, dim3(1), dim3(1024), context.stream, a, p.tiles, order);
}
template Status prepare(const BlendArgs<float>&, Context&, Prepared<float>&);
template Status prepare(const BlendArgs<double>&, Context&, Prepared<double>&);

}  // namespace splatrender::cuda
