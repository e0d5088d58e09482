// Projection, forward and backward.
//
// Forward: a thread is one splat in one camera, a block 256 splats in the same camera. Rows of 2, 3 or 4 numbers are
// read and written in place: a warp's rows are one stretch of memory, whose lines the first access brings into L1
// and the others find there.
//
// Backward: a thread takes a splat through all cameras, so that its gradients are summed in registers and stored once;
// a block takes a chunk of kCameraChunk splats, kThreads at a time. Nothing is saved by forward but the extents: the
// projection is computed again.
#include "../math/project.h"
#include "camera_sums.h"
#include "stages_cuda.h"

namespace splatrender::cuda {

constexpr int kProjectThreads = 256;

template <class T>
__device__ __forceinline__ Vec3<T> row3(const T* p) {
  return {p[0], p[1], p[2]};
}
template <class T>
__device__ __forceinline__ void store3(T* p, Vec3<T> v) {
  p[0] = v.x, p[1] = v.y, p[2] = v.z;
}
template <class T>
__device__ __forceinline__ Quat<T> quat_of(const ProjectArgs<T>& a, int64_t i) {
  const T* q = a.quats + 4 * i;
  return {q[0], q[1], q[2], q[3]};
}
template <class T>
__device__ __forceinline__ Mat3<T> factor(const ProjectArgs<T>& a, int64_t i) {
  if (!a.factors) return factor_of(quat_of(a, i), row3(a.scales + 3 * i));
  const T* m = a.factors + 9 * i;
  return {{row3(m), row3(m + 3), row3(m + 6)}};
}

template <class T>
__global__ void __launch_bounds__(kProjectThreads) project_kernel(ProjectArgs<T> a) {
  const unsigned blocks = unsigned((a.N + kProjectThreads - 1) / kProjectThreads), c = blockIdx.x / blocks;
  const int64_t i = int64_t(blockIdx.x - c * blocks) * kProjectThreads + threadIdx.x;
  if (i >= a.N) return;
  const auto view = make_view<T>(a.viewmats + 16 * int64_t(c), a.intrinsics + 4 * int64_t(c), a.width, a.height);
  const Vec3<T> mean = row3(a.means + 3 * i);
  const T z = dot(view.W.r[2], mean) + view.t.z, zero(0);
  T x = zero, y = zero, depth = zero, peak = zero, ex = zero, ey = zero;
  Sym2<T> conic{zero, zero, zero};
  if (z > T(a.near_plane) && z < T(a.far_plane)) {  // a splat behind or beyond is not even read
    const auto o = project(view, mean, factor(a, i), a.amplitudes[i], T(a.eps2d), a.antialiased, Response(a.response));
    const auto extent = extent_of(o, true, T(a.width), T(a.height));
    ex = extent.x, ey = extent.y;
    if (extent.keep) x = o.x, y = o.y, conic = o.conic, depth = o.depth, peak = o.peak;
  }
  const int64_t at = c * a.N + i;
  a.means2d[2 * at] = x, a.means2d[2 * at + 1] = y;
  store3(a.conics + 3 * at, Vec3<T>{conic.xx, conic.xy, conic.yy});
  a.depths[at] = depth, a.peaks[at] = peak;
  a.extents[2 * at] = ex, a.extents[2 * at + 1] = ey;
}

template <class T>
__global__ void __launch_bounds__(kProjectThreads) project_backward_kernel(ProjectArgs<T> a, ProjectGrads<T> g) {
  constexpr int kWarps = kProjectThreads / kWarp;
  __shared__ T shared[2][kWarps][kCameraSums];
  const int64_t chunk = blockIdx.x, begin = chunk * kCameraChunk;
  const int64_t end = begin + kCameraChunk < a.N ? begin + kCameraChunk : a.N;
  const Vec3<T> none{T(0), T(0), T(0)};
  int turn = 0;
  for (int64_t first = begin; first < end; first += kProjectThreads) {
    const int64_t i = first + threadIdx.x;
    Vec3<T> g_mean = none;
    Mat3<T> g_A{{none, none, none}};
    T g_amplitude(0);
    bool seen_once = false;
    for (int64_t c = 0; c < a.C; ++c) {
      const int64_t at = c * a.N + i;
      ProjectGrad<T> r{};
      if (i < end && a.extents[2 * at] > T(0)) {
        seen_once = true;
        const auto view = make_view<T>(a.viewmats + 16 * c, a.intrinsics + 4 * c, a.width, a.height);
        const Vec3<T> mean = row3(a.means + 3 * i);
        const auto o =
            project(view, mean, factor(a, i), a.amplitudes[i], T(a.eps2d), a.antialiased, Response(a.response));
        const T* conic = g.conics + 3 * at;
        const ProjectedGrad<T> d{
            g.means2d[2 * at], g.means2d[2 * at + 1], g.depths[at], g.peaks[at], {conic[0], conic[1], conic[2]}};
        r = project_vjp(view, mean, o, d, a.antialiased, Response(a.response));
        g_mean += r.mean;
        g_A += r.A;
        g_amplitude += r.amplitude;
      }
      T terms[kCameraSums] = {
          r.W.r[0].x, r.W.r[0].y, r.W.r[0].z, r.W.r[1].x, r.W.r[1].y, r.W.r[1].z, r.W.r[2].x, r.W.r[2].y,
          r.W.r[2].z, r.t.x,      r.t.y,      r.t.z,      r.fx,       r.fy,       r.cx,       r.cy};
      add_terms(terms, shared, turn++, first == begin, g.partial + (chunk * a.C + c) * kCameraSums);
    }
    if (i >= end) continue;
    store3(g.means + 3 * i, g_mean);
    g.amplitudes[i] = g_amplitude;
    if (a.factors) {
#pragma unroll
      for (int k = 0; k < 3; ++k) store3(g.factors + 9 * i + 3 * k, g_A.r[k]);
    } else {
      Quat<T> gq{T(0), T(0), T(0), T(0)};
      Vec3<T> gs = none;
      if (seen_once) factor_of_vjp(quat_of(a, i), row3(a.scales + 3 * i), g_A, gq, gs);
      T* q = g.quats + 4 * i;
      q[0] = gq.w, q[1] = gq.x, q[2] = gq.y, q[3] = gq.z;
      store3(g.scales + 3 * i, gs);
    }
  }
}

// One block per camera.
template <class T>
__global__ void __launch_bounds__(kTotalThreads)
    project_cameras_kernel(const double* partial, int64_t chunks, int64_t C, T* viewmats, T* intrinsics) {
  const int64_t c = blockIdx.x;
  const int k = threadIdx.x;
  const T sum = T(camera_total<kCameraSums>(partial, chunks, C, c));
  T* m = viewmats + 16 * c;
  if (k < 9) {
    m[k / 3 * 4 + k % 3] = sum;
  } else if (k < 12) {
    m[(k - 9) * 4 + 3] = sum;
  } else if (k < 16) {
    intrinsics[4 * c + k - 12] = sum;
    m[k] = 0;
  }
}

template <class T>
Status project(const ProjectArgs<T>& a, Context& context) {
  const int64_t blocks = a.C * divide_up(a.N, kProjectThreads);
  if (blocks == 0) return {};
  return launch("project_kernel", project_kernel<T>, dim3(unsigned(blocks)), dim3(kProjectThreads), context.stream, a);
}

template <class T>
Status project_backward(const ProjectArgs<T>& a, const ProjectGrads<T>& g, Context& context) {
  const int64_t chunks = camera_chunks(a.N);
  if (chunks > 0)
    SR_TRY(launch("project_backward_kernel", project_backward_kernel<T>, dim3(unsigned(chunks)), dim3(kProjectThreads),
                  context.stream, a, g));
  if (a.C == 0) return {};
  return launch("project_cameras_kernel", project_cameras_kernel<T>, dim3(unsigned(a.C)), dim3(kTotalThreads),
                context.stream, static_cast<const double*>(g.partial), chunks, a.C, g.viewmats, g.intrinsics);
}

template Status project(const ProjectArgs<float>&, Context&);
template Status project(const ProjectArgs<double>&, Context&);
template Status project_backward(const ProjectArgs<float>&, const ProjectGrads<float>&, Context&);
template Status project_backward(const ProjectArgs<double>&, const ProjectGrads<double>&, Context&);

}  // namespace splatrender::cuda
