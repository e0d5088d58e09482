// Projection, forward and backward: a pack of splats at a time, threads over chunks of splats.
#include "../math/project.h"
#include "kernels.h"
#include "splat_lanes.h"
#include "stage_table.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {
namespace {

template <class S, class T>
SR_INLINE Quat<S> load_quat(const T* quats, int64_t first, int count) {
  return {load_column<S>(quats, 4, first, count, 0), load_column<S>(quats, 4, first, count, 1),
          load_column<S>(quats, 4, first, count, 2), load_column<S>(quats, 4, first, count, 3)};
}
template <class S, class T>
SR_INLINE Mat3<S> load_factor(const ProjectArgs<T>& a, int64_t first, int count) {
  if (a.factors) return load_mat3<S>(a.factors, first, count);
  return factor_of(load_quat<S>(a.quats, first, count), load_vec3<S>(a.scales, 3, first, count));
}

template <class T>
void project_chunk(const ProjectArgs<T>& a, int64_t c, int64_t begin, int64_t end) {
  using S = Pack<T, lanes_of<T>>;
  const Response response = Response(a.response);
  const auto view = make_view<S>(a.viewmats + 16 * c, a.intrinsics + 4 * c, a.width, a.height);
  const S zero(T(0)), near_plane(T(a.near_plane)), far_plane(T(a.far_plane));
  for (int64_t i = begin; i < end; i += lanes_of<T>) {
    const int n = int(end - i < lanes_of<T> ? end - i : lanes_of<T>);
    const Vec3<S> mean = load_vec3<S>(a.means, 3, i, n);
    // splats behind or beyond are neither computed nor stored: one dot product decides for a whole pack
    const S z = dot(view.W.r[2], mean) + view.t.z;
    auto keep = (z > near_plane) & (z < far_plane);
    const int64_t at = c * a.N + i;
    S x = zero, y = zero, kxx = zero, kxy = zero, kyy = zero, depth = zero, peak = zero, ex = zero, ey = zero;
    if (any(keep)) {
      const S amplitude = load_column<S>(a.amplitudes, 1, i, n, 0);
      const auto o = project(view, mean, load_factor<S>(a, i, n), amplitude, S(T(a.eps2d)), a.antialiased, response);
      const auto extent = extent_of(o, keep, S(T(a.width)), S(T(a.height)));
      keep = extent.keep, ex = extent.x, ey = extent.y;
      x = mask_or_zero(keep, o.x), y = mask_or_zero(keep, o.y);
      kxx = mask_or_zero(keep, o.conic.xx), kxy = mask_or_zero(keep, o.conic.xy);
      kyy = mask_or_zero(keep, o.conic.yy);
      depth = mask_or_zero(keep, o.depth), peak = mask_or_zero(keep, o.peak);
    }
    store_column(a.means2d, 2, at, n, 0, x), store_column(a.means2d, 2, at, n, 1, y);
    store_column(a.conics, 3, at, n, 0, kxx), store_column(a.conics, 3, at, n, 1, kxy);
    store_column(a.conics, 3, at, n, 2, kyy);
    store_column(a.depths, 1, at, n, 0, depth), store_column(a.peaks, 1, at, n, 0, peak);
    store_column(a.extents, 2, at, n, 0, ex), store_column(a.extents, 2, at, n, 1, ey);
  }
}

template <class T>
void project_loop(const ProjectArgs<T>& a) {
  const int64_t chunks = project_chunks(a.N);
  parallel_for(chunks * a.C, [&](int64_t job) {
    const int64_t c = job / chunks, begin = job % chunks * kProjectChunk;
    project_chunk(a, c, begin, begin + kProjectChunk < a.N ? begin + kProjectChunk : a.N);
  });
}

template <class S, class T>
SR_INLINE ProjectedGrad<S> load_grad(const ProjectGrads<T>& g, int64_t at, int n) {
  ProjectedGrad<S> d;
  d.x = load_column<S>(g.means2d, 2, at, n, 0), d.y = load_column<S>(g.means2d, 2, at, n, 1);
  d.conic = {load_column<S>(g.conics, 3, at, n, 0), load_column<S>(g.conics, 3, at, n, 1),
             load_column<S>(g.conics, 3, at, n, 2)};
  d.depth = load_column<S>(g.depths, 1, at, n, 0), d.peak = load_column<S>(g.peaks, 1, at, n, 0);
  return d;
}
// Adds the gradients of one camera, W (9), t (3) and intrinsics (4), to its sums [16, lanes].
template <class S, class Mask, class T>
SR_INLINE void add_camera_terms(const ProjectGrad<S>& r, Mask seen, T* sums) {
  const S terms[16] = {r.W.r[0].x, r.W.r[0].y, r.W.r[0].z, r.W.r[1].x, r.W.r[1].y, r.W.r[1].z, r.W.r[2].x, r.W.r[2].y,
                       r.W.r[2].z, r.t.x,      r.t.y,      r.t.z,      r.fx,       r.fy,       r.cx,       r.cy};
  for (int k = 0; k < 16; ++k) {
    T* sum = sums + k * lanes_of<T>;
    (S::load(sum) + mask_or_zero(seen, terms[k])).store(sum);
  }
}
// Gradients of quaternions and scales from those of the factors; 0 for splats that no camera sees.
template <class S, class Mask, class T>
SR_INLINE void store_rotation_and_scale(const ProjectArgs<T>& a, const ProjectGrads<T>& g, int64_t i, int n,
                                        const Mat3<S>& g_A, bool loaded, Mask seen) {
  const S zero(T(0));
  Quat<S> gq{zero, zero, zero, zero};
  Vec3<S> gs{zero, zero, zero};
  if (loaded) factor_of_vjp(load_quat<S>(a.quats, i, n), load_vec3<S>(a.scales, 3, i, n), g_A, gq, gs);
  const auto put = [&](T* rows, int64_t stride, int column, S s) {
    store_column(rows, stride, i, n, column, mask_or_zero(seen, s));
  };
  put(g.quats, 4, 0, gq.w), put(g.quats, 4, 1, gq.x), put(g.quats, 4, 2, gq.y), put(g.quats, 4, 3, gq.z);
  put(g.scales, 3, 0, gs.x), put(g.scales, 3, 1, gs.y), put(g.scales, 3, 2, gs.z);
}

template <class T>
void project_backward_chunk(const ProjectArgs<T>& a, const ProjectGrads<T>& g, int64_t chunk) {
  using S = Pack<T, lanes_of<T>>;
  const Response response = Response(a.response);
  const int64_t begin = chunk * kProjectChunk, end = begin + kProjectChunk < a.N ? begin + kProjectChunk : a.N;
  const S zero(T(0));
  // sums for the cameras, one per lane until the chunk is done: [C, 16, lanes]
  static thread_local Scratch memory;
  T* sums = memory.template get<T>(a.C * 16 * lanes_of<T>);
  for (int64_t k = 0; k < a.C * 16 * lanes_of<T>; ++k) sums[k] = 0;
  for (int64_t i = begin; i < end; i += lanes_of<T>) {
    const int n = int(end - i < lanes_of<T> ? end - i : lanes_of<T>);
    const auto valid = first_lanes<S, T>(n);
    Vec3<S> g_mean{zero, zero, zero};
    Mat3<S> g_A{{g_mean, g_mean, g_mean}};
    S g_amplitude = zero;
    Vec3<S> mean{};
    Mat3<S> A{};
    S amplitude{};
    bool loaded = false;
    auto seen_once = zero > zero;
    for (int64_t c = 0; c < a.C; ++c) {
      const int64_t at = c * a.N + i;
      const auto seen = (load_column<S>(a.extents, 2, at, n, 0) > zero) & valid;
      if (!any(seen)) continue;
      seen_once = seen_once | seen;
      if (!loaded) {
        mean = load_vec3<S>(a.means, 3, i, n);
        A = load_factor<S>(a, i, n);
        amplitude = load_column<S>(a.amplitudes, 1, i, n, 0);
        loaded = true;
      }
      const auto view = make_view<S>(a.viewmats + 16 * c, a.intrinsics + 4 * c, a.width, a.height);
      auto o = project(view, mean, A, amplitude, S(T(a.eps2d)), a.antialiased, response);
      // Culled lanes may hold infinities; their incoming gradient is 0, and what they yield is masked below.
      const ProjectedGrad<S> d = load_grad<S>(g, at, n);
      const auto r = project_vjp(view, mean, o, d, a.antialiased, response);
      const auto keep = [&](S s) { return mask_or_zero(seen, s); };
      const auto keep3 = [&](Vec3<S> v) { return Vec3<S>{keep(v.x), keep(v.y), keep(v.z)}; };
      g_mean += keep3(r.mean);
      for (int k = 0; k < 3; ++k) g_A.r[k] += keep3(r.A.r[k]);
      g_amplitude += keep(r.amplitude);
      add_camera_terms(r, seen, sums + c * 16 * lanes_of<T>);
    }
    store_vec3(g.means, 3, i, n, 0, g_mean);
    store_column(g.amplitudes, 1, i, n, 0, g_amplitude);
    if (a.factors) {
      for (int k = 0; k < 3; ++k) store_vec3(g.factors, 9, i, n, 3 * k, g_A.r[k]);
    } else {
      store_rotation_and_scale(a, g, i, n, g_A, loaded, seen_once);
    }
  }
  for (int64_t k = 0; k < a.C * 16; ++k)
    g.partial[chunk * a.C * 16 + k] = lane_sum<S, T>(S::load(sums + k * lanes_of<T>));
}

template <class T>
void project_backward_loop(const ProjectArgs<T>& a, const ProjectGrads<T>& g) {
  const int64_t chunks = project_chunks(a.N);
  parallel_for(chunks, [&](int64_t chunk) { project_backward_chunk(a, g, chunk); });
  for (int64_t c = 0; c < a.C; ++c) {
    double sum[16] = {};
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int k = 0; k < 16; ++k) sum[k] += g.partial[(chunk * a.C + c) * 16 + k];
    T* m = g.viewmats + 16 * c;
    for (int row = 0; row < 3; ++row) {
      for (int col = 0; col < 3; ++col) m[4 * row + col] = T(sum[3 * row + col]);
      m[4 * row + 3] = T(sum[9 + row]);
    }
    for (int col = 0; col < 4; ++col) m[12 + col] = 0;
    for (int k = 0; k < 4; ++k) g.intrinsics[4 * c + k] = T(sum[12 + k]);
  }
}

}  // namespace

template <class T>
void fill_project(Stages<T>& s) {
  s.project = project_loop<T>;
  s.project_backward = project_backward_loop<T>;
}
template void fill_project<float>(Stages<float>&);
template void fill_project<double>(Stages<double>&);

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
