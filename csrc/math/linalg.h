// 3-vectors and 3x3 matrices over any number type, row-major. Only what the formulas need.
#pragma once
#include "number.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

template <class S>
struct Vec3 {
  S x, y, z;
  friend SR_INLINE Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
  friend SR_INLINE Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
  friend SR_INLINE Vec3 operator*(S s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
  SR_INLINE Vec3& operator+=(Vec3 b) { return *this = *this + b; }
};
template <class S>
SR_INLINE S dot(Vec3<S> a, Vec3<S> b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}
template <class S>
SR_INLINE Vec3<S> cross(Vec3<S> a, Vec3<S> b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <class S>
struct Mat3 {
  Vec3<S> r[3];  // rows
  friend SR_INLINE Mat3 operator+(const Mat3& a, const Mat3& b) {
    return {{a.r[0] + b.r[0], a.r[1] + b.r[1], a.r[2] + b.r[2]}};
  }
  SR_INLINE Mat3& operator+=(const Mat3& b) { return *this = *this + b; }
};
template <class S>
SR_INLINE Vec3<S> operator*(const Mat3<S>& m, Vec3<S> v) {
  return {dot(m.r[0], v), dot(m.r[1], v), dot(m.r[2], v)};
}
template <class S>
SR_INLINE Vec3<S> transposed_times(const Mat3<S>& m, Vec3<S> v) {
  return v.x * m.r[0] + v.y * m.r[1] + v.z * m.r[2];
}
template <class S>
SR_INLINE Mat3<S> operator*(const Mat3<S>& a, const Mat3<S>& b) {
  return {{transposed_times(b, a.r[0]), transposed_times(b, a.r[1]), transposed_times(b, a.r[2])}};
}
template <class S>
SR_INLINE Mat3<S> transpose(const Mat3<S>& m) {
  return {{{m.r[0].x, m.r[1].x, m.r[2].x}, {m.r[0].y, m.r[1].y, m.r[2].y}, {m.r[0].z, m.r[1].z, m.r[2].z}}};
}
template <class S>
SR_INLINE Mat3<S> outer(Vec3<S> a, Vec3<S> b) {
  return {{a.x * b, a.y * b, a.z * b}};
}
template <class S>
SR_INLINE Mat3<S> inverse(const Mat3<S>& m) {
  const Vec3<S> c0 = cross(m.r[1], m.r[2]), c1 = cross(m.r[2], m.r[0]), c2 = cross(m.r[0], m.r[1]);
  const S d = S(1) / dot(m.r[0], c0);
  return transpose(Mat3<S>{{d * c0, d * c1, d * c2}});
}

// Symmetric 2x2.
template <class S>
struct Sym2 {
  S xx, xy, yy;
};
template <class S>
SR_INLINE S determinant(Sym2<S> m) {
  return m.xx * m.yy - m.xy * m.xy;
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
