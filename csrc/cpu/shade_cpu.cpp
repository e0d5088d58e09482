// Colour of each splat as a camera sees it, forward and backward: a pack of splats at a time.
//
//   emission = max(0, ½ + Σ_k Y_k(ω) sh_k),   ω = (b + Wᵀt) / |b + Wᵀt|   (camera centre -> splat)
#include "../math/sh.h"
#include "kernels.h"
#include "splat_lanes.h"
#include "stage_table.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {
namespace {

template <class S, class T>
SR_INLINE Mat3<S> broadcast_rotation(const T* m) {
  return {{{S(m[0]), S(m[1]), S(m[2])}, {S(m[4]), S(m[5]), S(m[6])}, {S(m[8]), S(m[9]), S(m[10])}}};
}

// Coefficients of a pack of splats, transposed through a small buffer: coefficient k of channel ch is pack 3k+ch.
template <class S, class T>
SR_INLINE void load_sh(const ShadeArgs<T>& a, int64_t i, int n, int count, S* out) {
  alignas(64) T buffer[3 * kMaxSh * lanes_of<T>];
  const int64_t stride = int64_t(a.K) * 3;
  prefetch_rows<0>(a.sh + (i + lanes_of<T>)*stride, stride);
  rows_to_lanes(a.sh + i * stride, stride, n, 3 * count, buffer);
  for (int k = 0; k < 3 * count; ++k) out[k] = S::load(buffer + k * lanes_of<T>);
}

template <class T>
void shade_chunk(const ShadeArgs<T>& a, int64_t c, int64_t begin, int64_t end) {
  using S = Pack<T, lanes_of<T>>;
  const S zero(T(0));
  const T* m = a.viewmats + 16 * c;
  const Mat3<S> W = broadcast_rotation<S>(m);
  const Vec3<S> offset = transposed_times(W, Vec3<S>{S(m[3]), S(m[7]), S(m[11])});
  const int count = sh_count(a.degree);
  for (int64_t i = begin; i < end; i += lanes_of<T>) {
    const int n = int(end - i < lanes_of<T> ? end - i : lanes_of<T>);
    const int64_t at = c * a.N + i;
    const auto seen = load_column<S>(a.extents, 2, at, n, 0) > zero;
    Vec3<S> color{zero, zero, zero};
    if (any(seen)) {
      S sh[3 * kMaxSh], Y[kMaxSh];
      load_sh<S>(a, i, n, count, sh);
      const Vec3<S> d = load_vec3<S>(a.means, 3, i, n) + offset;
      sh_basis((S(T(1)) / square_root(dot(d, d))) * d, a.degree, Y);
      const S half(T(0.5));
      color = {half, half, half};
      for (int k = 0; k < count; ++k) color += Y[k] * Vec3<S>{sh[3 * k], sh[3 * k + 1], sh[3 * k + 2]};
      color = {mask_or_zero(seen, smax(color.x, zero)), mask_or_zero(seen, smax(color.y, zero)),
               mask_or_zero(seen, smax(color.z, zero))};
    }
    store_vec3(a.emission, 3, at, n, 0, color);
  }
}

template <class T>
void shade_loop(const ShadeArgs<T>& a) {
  const int64_t chunks = project_chunks(a.N);
  parallel_for(chunks * a.C, [&](int64_t job) {
    const int64_t begin = job % chunks * kProjectChunk;
    shade_chunk(a, job / chunks, begin, begin + kProjectChunk < a.N ? begin + kProjectChunk : a.N);
  });
}

template <class T>
void shade_backward_chunk(const ShadeArgs<T>& a, const ShadeGrads<T>& g, int64_t chunk) {
  using S = Pack<T, lanes_of<T>>;
  const S zero(T(0));
  const int count = sh_count(a.degree);
  const int64_t begin = chunk * kProjectChunk, end = begin + kProjectChunk < a.N ? begin + kProjectChunk : a.N;
  for (int64_t k = 0; k < a.C * 16; ++k) g.partial[chunk * a.C * 16 + k] = 0;
  const int64_t stride = int64_t(a.K) * 3;
  for (int64_t i = begin; i < end; i += lanes_of<T>) {
    const int n = int(end - i < lanes_of<T> ? end - i : lanes_of<T>);
    const auto valid = first_lanes<S, T>(n);
    S g_sh[3 * kMaxSh], sh[3 * kMaxSh];
    Vec3<S> g_mean{zero, zero, zero};
    bool loaded = false;
    for (int64_t c = 0; c < a.C; ++c) {
      const int64_t at = c * a.N + i;
      const auto seen = (load_column<S>(a.extents, 2, at, n, 0) > zero) & valid;
      if (!any(seen)) continue;
      if (!loaded) {
        load_sh<S>(a, i, n, count, sh);
        for (int k = 0; k < 3 * count; ++k) g_sh[k] = zero;
        loaded = true;
      }
      const T* m = a.viewmats + 16 * c;
      const Mat3<S> W = broadcast_rotation<S>(m);
      const Vec3<S> t{S(m[3]), S(m[7]), S(m[11])};
      // Lanes that are not seen get a direction along z: one that is not defined would outlive its zero gradient.
      const Vec3<S> path = load_vec3<S>(a.means, 3, i, n) + transposed_times(W, t);
      const Vec3<S> d{mask_or_zero(seen, path.x), mask_or_zero(seen, path.y), select(seen, path.z, S(T(1)))};
      const S inv = S(T(1)) / square_root(dot(d, d));
      const Vec3<S> u = inv * d;
      S Y[kMaxSh], weights[kMaxSh];
      sh_basis(u, a.degree, Y);
      // no gradient where the colour was clipped at 0
      const Vec3<S> color = load_vec3<S>(a.emission, 3, at, n), d_color = load_vec3<S>(g.emission, 3, at, n);
      const Vec3<S> go{mask_or_zero(seen & (color.x > zero), d_color.x),
                       mask_or_zero(seen & (color.y > zero), d_color.y),
                       mask_or_zero(seen & (color.z > zero), d_color.z)};
      for (int k = 0; k < count; ++k) {
        g_sh[3 * k] += Y[k] * go.x, g_sh[3 * k + 1] += Y[k] * go.y, g_sh[3 * k + 2] += Y[k] * go.z;
        weights[k] = sh[3 * k] * go.x + sh[3 * k + 1] * go.y + sh[3 * k + 2] * go.z;
      }
      const Vec3<S> gu = sh_direction_vjp(u, a.degree, weights);
      Vec3<S> gd = inv * (gu - dot(gu, u) * u);  // only the direction matters
      gd = {mask_or_zero(seen, gd.x), mask_or_zero(seen, gd.y), mask_or_zero(seen, gd.z)};
      g_mean += gd;
      // d = mean + Wᵀ t:  gW = t gdᵀ,  gt = W gd, both linear in Σ gd
      double* sum = g.partial + (chunk * a.C + c) * 16;
      sum[0] += lane_sum<S, T>(gd.x), sum[1] += lane_sum<S, T>(gd.y), sum[2] += lane_sum<S, T>(gd.z);
    }
    store_vec3(g.means, 3, i, n, 0, g_mean);
    const int written = loaded ? 3 * count : 0;
    alignas(64) T buffer[3 * kMaxSh * lanes_of<T>];
    for (int k = 0; k < written; ++k) g_sh[k].store(buffer + k * lanes_of<T>);
    prefetch_rows<1>(g.sh + (i + lanes_of<T>)*stride, stride);
    lanes_to_rows(buffer, written, n, g.sh + i * stride, stride);
    for (int lane = 0; lane < n; ++lane)
      for (int k = written; k < 3 * a.K; ++k) g.sh[(i + lane) * stride + k] = 0;
  }
}

template <class T>
void shade_backward_loop(const ShadeArgs<T>& a, const ShadeGrads<T>& g) {
  const int64_t chunks = project_chunks(a.N);
  parallel_for(chunks, [&](int64_t chunk) { shade_backward_chunk(a, g, chunk); });
  for (int64_t c = 0; c < a.C; ++c) {
    double sum[3] = {};
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int k = 0; k < 3; ++k) sum[k] += g.partial[(chunk * a.C + c) * 16 + k];
    const T* v = a.viewmats + 16 * c;
    T* m = g.viewmats + 16 * c;
    for (int row = 0; row < 3; ++row) {
      for (int col = 0; col < 3; ++col) m[4 * row + col] = T(double(v[4 * row + 3]) * sum[col]);
      m[4 * row + 3] =
          T(double(v[4 * row]) * sum[0] + double(v[4 * row + 1]) * sum[1] + double(v[4 * row + 2]) * sum[2]);
    }
    for (int col = 0; col < 4; ++col) m[12 + col] = 0;
  }
}

}  // namespace

template <class T>
void fill_shade(Stages<T>& s) {
  s.shade = shade_loop<T>;
  s.shade_backward = shade_backward_loop<T>;
}
template void fill_shade<float>(Stages<float>&);
template void fill_shade<double>(Stages<double>&);

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
