// Between rows in memory (one splat after another) and packs (one splat per lane).
#pragma once
#include "../math/linalg.h"

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
// Sum of the first `count` lanes, in double, in lane order.
template <class S>
SR_INLINE double lane_sum(S s, int count) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += double(s[i]);
  return sum;
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
