// Colour of each splat as a camera sees it, forward and backward.
//
//   emission = max(0, ½ + Σ_k Y_k(ω) sh_k),   ω = (b + Wᵀt) / |b + Wᵀt|   (camera centre -> splat)
//
// A thread is one splat: in one camera going forward, through all cameras going backward, where its gradients are
// summed in registers and stored once. The coefficients are nearly all of the traffic. A warp reads and writes those of
// its 32 splats together, 32 neighbouring numbers at a time, through shared memory: there a splat's row has an odd
// stride, so that 32 threads that read their own rows find them in 32 banks. Rows of splats that no camera sees are
// not read. The warps of a block are independent but for the sums of the cameras. Nothing is saved by forward: backward
// reads the emission, which is 0 where it was clipped.
#include <type_traits>

#include "../math/sh.h"
#include "camera_sums.h"
#include "stages_cuda.h"

namespace splatrender::cuda {

// Threads of a block: the rows of their splats take 25 KB of shared memory.
template <class T>
constexpr int kShadeThreads = sizeof(T) == 4 ? 128 : 64;
constexpr int kShadeSums = 4;  // x, y, z of a camera, and one to make it a power of two

// The rows of a warp's splats as far as the degree needs them.
template <class T, int DEGREE>
struct ShRows {
  static constexpr int kCoefficients = sh_count(DEGREE), kColumns = 3 * kCoefficients, kStride = kColumns | 1;
  T numbers[kWarp * kStride];

  __device__ __forceinline__ T* own() { return numbers + threadIdx.x % kWarp * kStride; }

  // From rows in memory: those whose bit is in `wanted`.
  __device__ __forceinline__ void load(const T* rows, int64_t stride, unsigned wanted) {
    __syncwarp();  // the rows before these have been read
    const int lane = threadIdx.x % kWarp;
    int row = lane / kColumns, column = lane % kColumns;
#pragma unroll 8
    for (int k = 0; k < kColumns; ++k) {
      if (wanted >> row & 1) numbers[row * kStride + column] = rows[row * stride + column];
      row += kWarp / kColumns, column += kWarp % kColumns;
      if (column >= kColumns) column -= kColumns, ++row;
    }
    __syncwarp();
  }

  // To the first `count` rows in memory, 0 in the columns beyond.
  __device__ __forceinline__ void store(T* rows, int stride, int count) {
    __syncwarp();  // every thread has written its row
    const int lane = threadIdx.x % kWarp, rows_each = kWarp / stride, columns_each = kWarp % stride;
    int row = lane / stride, column = lane % stride;
    for (int at = lane; at < count * stride; at += kWarp) {
      rows[at] = column < kColumns ? numbers[row * kStride + column] : T(0);
      row += rows_each, column += columns_each;
      if (column >= stride) column -= stride, ++row;
    }
  }
};

template <class T>
struct ShadeView {
  Mat3<T> W;
  Vec3<T> offset;  // Wᵀt
};
template <class T>
__device__ __forceinline__ ShadeView<T> shade_view(const T* m) {
  const Mat3<T> W{{{m[0], m[1], m[2]}, {m[4], m[5], m[6]}, {m[8], m[9], m[10]}}};
  return {W, transposed_times(W, Vec3<T>{m[3], m[7], m[11]})};
}
// From the camera's centre to splat i.
template <class T>
__device__ __forceinline__ Vec3<T> ray_to(const ShadeArgs<T>& a, int64_t i, const ShadeView<T>& view) {
  return Vec3<T>{a.means[3 * i], a.means[3 * i + 1], a.means[3 * i + 2]} + view.offset;
}

template <class T, int DEGREE>
__global__ void __launch_bounds__(kShadeThreads<T>) shade_kernel(ShadeArgs<T> a) {
  constexpr int kThreads = kShadeThreads<T>;
  using Rows = ShRows<T, DEGREE>;
  __shared__ Rows shared[kThreads / kWarp];
  Rows& rows = shared[threadIdx.x / kWarp];
  const unsigned blocks = unsigned((a.N + kThreads - 1) / kThreads), c = blockIdx.x / blocks;
  const int64_t i = int64_t(blockIdx.x - c * blocks) * kThreads + threadIdx.x, at = c * a.N + i;
  const bool seen = i < a.N && a.extents[2 * at] > T(0);
  const int64_t first = i - threadIdx.x % kWarp;
  rows.load(a.sh + first * a.K * 3, int64_t(a.K) * 3, __ballot_sync(kAllLanes, seen));
  if (i >= a.N) return;
  Vec3<T> color{T(0), T(0), T(0)};
  if (seen) {
    const Vec3<T> d = ray_to(a, i, shade_view(a.viewmats + 16 * int64_t(c)));
    const T* sh = rows.own();
    T Y[kMaxSh];
    sh_basis((T(1) / square_root(dot(d, d))) * d, DEGREE, Y);
    color = {T(0.5), T(0.5), T(0.5)};
#pragma unroll
    for (int k = 0; k < Rows::kCoefficients; ++k) color += Y[k] * Vec3<T>{sh[3 * k], sh[3 * k + 1], sh[3 * k + 2]};
    color = {smax(color.x, T(0)), smax(color.y, T(0)), smax(color.z, T(0))};
  }
  T* out = a.emission + 3 * at;
  out[0] = color.x, out[1] = color.y, out[2] = color.z;
}

// A block takes a chunk of kCameraChunk splats, kShadeThreads at a time.
template <class T, int DEGREE>
__global__ void __launch_bounds__(kShadeThreads<T>, 4) shade_backward_kernel(ShadeArgs<T> a, ShadeGrads<T> g) {
  constexpr int kThreads = kShadeThreads<T>, kWarps = kThreads / kWarp;
  using Rows = ShRows<T, DEGREE>;
  __shared__ Rows shared[kWarps];
  __shared__ T sums[2][kWarps][kShadeSums];
  Rows& rows = shared[threadIdx.x / kWarp];
  const int64_t chunk = blockIdx.x, begin = chunk * kCameraChunk, stride = int64_t(a.K) * 3;
  const int64_t end = begin + kCameraChunk < a.N ? begin + kCameraChunk : a.N;
  int turn = 0;
  for (int64_t group = begin; group < end; group += kThreads) {
    const int64_t i = group + threadIdx.x, first = i - threadIdx.x % kWarp;
    bool seen_once = false;
    if (i < end)
      for (int64_t c = 0; c < a.C; ++c) seen_once = seen_once || a.extents[2 * (c * a.N + i)] > T(0);
    rows.load(a.sh + first * stride, stride, __ballot_sync(kAllLanes, seen_once));
    T* sh = rows.own();
    T g_sh[Rows::kColumns] = {};
    Vec3<T> g_mean{T(0), T(0), T(0)};
    for (int64_t c = 0; c < a.C; ++c) {
      const int64_t at = c * a.N + i;
      Vec3<T> gd{T(0), T(0), T(0)};
      if (i < end && a.extents[2 * at] > T(0)) {
        const Vec3<T> d = ray_to(a, i, shade_view(a.viewmats + 16 * c));
        const T inv = T(1) / square_root(dot(d, d));
        const Vec3<T> u = inv * d;
        // no gradient where the colour was clipped at 0
        const T *color = a.emission + 3 * at, *incoming = g.emission + 3 * at;
        const Vec3<T> go{mask_or_zero(color[0] > T(0), incoming[0]), mask_or_zero(color[1] > T(0), incoming[1]),
                         mask_or_zero(color[2] > T(0), incoming[2])};
        T Y[kMaxSh], weights[kMaxSh];
        sh_basis(u, DEGREE, Y);
#pragma unroll
        for (int k = 0; k < Rows::kCoefficients; ++k) {
          g_sh[3 * k] += Y[k] * go.x, g_sh[3 * k + 1] += Y[k] * go.y, g_sh[3 * k + 2] += Y[k] * go.z;
          weights[k] = sh[3 * k] * go.x + sh[3 * k + 1] * go.y + sh[3 * k + 2] * go.z;
        }
        const Vec3<T> gu = sh_direction_vjp(u, DEGREE, weights);
        gd = inv * (gu - dot(gu, u) * u);  // only the direction matters
        g_mean += gd;
      }
      T terms[kShadeSums] = {gd.x, gd.y, gd.z, T(0)};
      add_terms(terms, sums, turn++, group == begin, g.partial + (chunk * a.C + c) * kCameraSums);
    }
#pragma unroll
    for (int k = 0; k < Rows::kColumns; ++k) sh[k] = g_sh[k];
    const int64_t left = end - first;
    rows.store(g.sh + first * stride, int(stride), left <= 0 ? 0 : left < kWarp ? int(left) : kWarp);
    if (i >= end) continue;
    T* out = g.means + 3 * i;
    out[0] = g_mean.x, out[1] = g_mean.y, out[2] = g_mean.z;
  }
}

// One block per camera. d = mean + Wᵀ t:  gW = t gdᵀ,  gt = W gd, both linear in Σ gd.
template <class T>
__global__ void __launch_bounds__(kTotalThreads)
    shade_cameras_kernel(const double* partial, int64_t chunks, int64_t C, const T* viewmats, T* g_viewmats) {
  __shared__ double sum[3];
  const int64_t c = blockIdx.x;
  const int k = threadIdx.x, row = k / 4, column = k % 4;
  const double total = camera_total<3>(partial, chunks, C, c);
  if (k < 3) sum[k] = total;
  __syncthreads();
  if (k >= 16) return;
  const T* v = viewmats + 16 * c + 4 * row;
  double value = 0;
  if (row < 3)
    value =
        column < 3 ? double(v[3]) * sum[column] : double(v[0]) * sum[0] + double(v[1]) * sum[1] + double(v[2]) * sum[2];
  g_viewmats[16 * c + k] = T(value);
}

// Calls body with the degree as a constant.
template <class F>
Status by_degree(int degree, const F& body) {
  switch (degree) {
    case 0: return body(std::integral_constant<int, 0>());
    case 1: return body(std::integral_constant<int, 1>());
    case 2: return body(std::integral_constant<int, 2>());
    default: return body(std::integral_constant<int, 3>());
  }
}

template <class T>
Status shade(const ShadeArgs<T>& a, Context& context) {
  const int64_t blocks = a.C * divide_up(a.N, kShadeThreads<T>);
  if (blocks == 0) return {};
  return by_degree(a.degree, [&](auto degree) {
    return launch("shade_kernel", shade_kernel<T, decltype(degree)::value>, dim3(unsigned(blocks)),
                  dim3(kShadeThreads<T>), context.stream, a);
  });
}

template <class T>
Status shade_backward(const ShadeArgs<T>& a, const ShadeGrads<T>& g, Context& context) {
  const int64_t chunks = camera_chunks(a.N);
  if (chunks > 0)
    SR_TRY(by_degree(a.degree, [&](auto degree) {
      return launch("shade_backward_kernel", shade_backward_kernel<T, decltype(degree)::value>, dim3(unsigned(chunks)),
                    dim3(kShadeThreads<T>), context.stream, a, g);
    }));
  if (a.C == 0) return {};
  return launch("shade_cameras_kernel", shade_cameras_kernel<T>, dim3(unsigned(a.C)), dim3(kTotalThreads),
                context.stream, static_cast<const double*>(g.partial), chunks, a.C, a.viewmats, g.viewmats);
}

template Status shade(const ShadeArgs<float>&, Context&);
template Status shade(const ShadeArgs<double>&, Context&);
template Status shade_backward(const ShadeArgs<float>&, const ShadeGrads<float>&, Context&);
template Status shade_backward(const ShadeArgs<double>&, const ShadeGrads<double>&, Context&);

}  // namespace splatrender::cuda
