// Between rows in memory (one splat after another) and packs (one splat per lane).
#pragma once
#include "../math/linalg.h"
#include "../math/pack.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

// Column `column` of rows first..first+count-1; missing lanes repeat the last row, so that no lane computes garbage.
template <class S, class T>
SR_INLINE S load_column(const T* rows, int64_t stride, int64_t first, int count, int column) {
  S s;
  for (int i = 0; i < lanes_of<T>; ++i) s.set(i, rows[(first + (i < count ? i : count - 1)) * stride + column]);
  return s;
}
template <class S, class T>
SR_INLINE Vec3<S> load_vec3(const T* rows, int64_t stride, int64_t first, int count, int column = 0) {
  return {load_column<S>(rows, stride, first, count, column), load_column<S>(rows, stride, first, count, column + 1),
          load_column<S>(rows, stride, first, count, column + 2)};
}
template <class S, class T>
SR_INLINE Mat3<S> load_mat3(const T* rows, int64_t first, int count) {
  return {{load_vec3<S>(rows, 9, first, count, 0), load_vec3<S>(rows, 9, first, count, 3),
           load_vec3<S>(rows, 9, first, count, 6)}};
}
template <class S, class T>
SR_INLINE void store_column(T* rows, int64_t stride, int64_t first, int count, int column, S s) {
  for (int i = 0; i < count; ++i) rows[(first + i) * stride + column] = s[i];
}
template <class S, class T>
SR_INLINE void store_vec3(T* rows, int64_t stride, int64_t first, int count, int column, Vec3<S> v) {
  store_column(rows, stride, first, count, column, v.x);
  store_column(rows, stride, first, count, column + 1, v.y);
  store_column(rows, stride, first, count, column + 2, v.z);
}
// True in the first n lanes.
template <class S, class T>
SR_INLINE auto first_lanes(int n) {
  alignas(64) T index[lanes_of<T>];
  for (int i = 0; i < lanes_of<T>; ++i) index[i] = T(i);
  return S::load(index) < S(T(n));
}
// Sum of all lanes, in double, in lane order.
template <class S, class T>
SR_INLINE double lane_sum(S s) {
  double sum = 0;
  for (int i = 0; i < lanes_of<T>; ++i) sum += double(s[i]);
  return sum;
}

// out[j][i] = in[i][j] for a 4x4 block.
template <class T>
SR_INLINE void transpose4(const T* in, int64_t in_stride, T* out, int64_t out_stride) {
  typedef T V __attribute__((vector_size(4 * sizeof(T))));
  V r[4];
  for (int i = 0; i < 4; ++i) std::memcpy(&r[i], in + i * in_stride, sizeof(V));
  const V a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
  const V c = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7), d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  r[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5), r[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  r[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5), r[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
  for (int i = 0; i < 4; ++i) std::memcpy(out + i * out_stride, &r[i], sizeof(V));
}
// Prefetches the rows of the next pack while this one is worked on: lanes are filled column by column, which the
// hardware does not recognise as a walk through memory.
template <int WRITE, class T>
SR_INLINE void prefetch_rows(const T* rows, int64_t stride) {
  for (int64_t k = 0; k < lanes_of<T> * stride; k += 64 / sizeof(T)) __builtin_prefetch(rows + k, WRITE);
}
// Rows of splats to lanes, lanes[column * L + lane] = rows[lane * stride + column], and back. Long rows only
// (spherical harmonics); missing lanes repeat the last row on the way in and are left out on the way back.
template <class T>
SR_INLINE void rows_to_lanes(const T* rows, int64_t stride, int n, int columns, T* lanes) {
  constexpr int L = lanes_of<T>;
  int done = 0;
  if (n == L && L % 4 == 0)
    for (; done + 4 <= columns; done += 4)
      for (int lane = 0; lane < L; lane += 4)
        transpose4(rows + lane * stride + done, stride, lanes + done * L + lane, L);
  for (int column = done; column < columns; ++column)
    for (int lane = 0; lane < L; ++lane) lanes[column * L + lane] = rows[(lane < n ? lane : n - 1) * stride + column];
}
template <class T>
SR_INLINE void lanes_to_rows(const T* lanes, int columns, int n, T* rows, int64_t stride) {
  constexpr int L = lanes_of<T>;
  int done = 0;
  if (n == L && L % 4 == 0)
    for (; done + 4 <= columns; done += 4)
      for (int lane = 0; lane < L; lane += 4)
        transpose4(lanes + done * L + lane, L, rows + lane * stride + done, stride);
  for (int column = done; column < columns; ++column)
    for (int lane = 0; lane < n; ++lane) rows[lane * stride + column] = lanes[column * L + lane];
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
