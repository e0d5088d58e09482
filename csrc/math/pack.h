// A pack is one SIMD register of numbers, written like a number. The formulas in math/ are templates over the
// number type: float and double on a GPU thread or in scalar code, Pack<float, L> and Pack<double, L> on the CPU.
//
// Built on the vector extension of GCC and Clang, so any CPU with such a compiler runs it; comparisons, square
// roots and exp2 use AVX-512 / AVX / SSE instructions where the translation unit is compiled for them.
// Every name lives in an inline namespace per instruction set: the same header is compiled several times into
// one library, and the linker must never mix the copies.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#ifndef SPLATRENDER_ISA
#define SPLATRENDER_ISA portable
#endif
#ifdef __CUDACC__
#define SR_INLINE __host__ __device__ __forceinline__
#else
#define SR_INLINE inline __attribute__((always_inline))
#endif

namespace splatrender {
inline namespace SPLATRENDER_ISA {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif
template <class T>
constexpr int lanes_of = kRegisterBytes / int(sizeof(T));

template <class T>
struct IntOf;
template <>
struct IntOf<float> {
  using type = int32_t;
};
template <>
struct IntOf<double> {
  using type = int64_t;
};

// Truth per lane. AVX-512 keeps it in a mask register, everything else in an integer vector of 0 and -1.
template <class T, int L>
struct Mask {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  uint32_t m;
#else
  typedef typename IntOf<T>::type V __attribute__((vector_size(L * sizeof(T))));
  V m;
#endif
  friend SR_INLINE Mask operator&(Mask a, Mask b) { return {static_cast<decltype(a.m)>(a.m & b.m)}; }
  friend SR_INLINE Mask operator|(Mask a, Mask b) { return {static_cast<decltype(a.m)>(a.m | b.m)}; }
};

template <class T, int L>
struct Pack {
  typedef T V __attribute__((vector_size(L * sizeof(T))));
  V v;

  SR_INLINE Pack() = default;
  SR_INLINE Pack(T x) : v(V{} + x) {}  // broadcast; implicit so that constants read like numbers
  struct Raw {};
  SR_INLINE Pack(V x, Raw) : v(x) {}
  static SR_INLINE Pack load(const T* p) {
    Pack r;
    std::memcpy(&r.v, p, sizeof(V));
    return r;
  }
  SR_INLINE void store(T* p) const { std::memcpy(p, &v, sizeof(V)); }
  SR_INLINE T operator[](int i) const { return v[i]; }
  SR_INLINE void set(int i, T x) { v[i] = x; }

  friend SR_INLINE Pack operator+(Pack a, Pack b) { return {a.v + b.v, Raw{}}; }
  friend SR_INLINE Pack operator-(Pack a, Pack b) { return {a.v - b.v, Raw{}}; }
  friend SR_INLINE Pack operator*(Pack a, Pack b) { return {a.v * b.v, Raw{}}; }
  friend SR_INLINE Pack operator/(Pack a, Pack b) { return {a.v / b.v, Raw{}}; }
  friend SR_INLINE Pack operator-(Pack a) { return {-a.v, Raw{}}; }
  SR_INLINE Pack& operator+=(Pack b) { return *this = *this + b; }
  SR_INLINE Pack& operator-=(Pack b) { return *this = *this - b; }
  SR_INLINE Pack& operator*=(Pack b) { return *this = *this * b; }

#if defined(__AVX512F__) && defined(__AVX512DQ__)
  template <int OP>
  static SR_INLINE Mask<T, L> compare(Pack a, Pack b) {
    if constexpr (sizeof(T) == 4)
      return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, OP)};
    else
      return {_mm512_cmp_pd_mask((__m512d)a.v, (__m512d)b.v, OP)};
  }
  friend SR_INLINE Mask<T, L> operator<(Pack a, Pack b) { return compare<_CMP_LT_OQ>(a, b); }
  friend SR_INLINE Mask<T, L> operator<=(Pack a, Pack b) { return compare<_CMP_LE_OQ>(a, b); }
  friend SR_INLINE Mask<T, L> operator>(Pack a, Pack b) { return compare<_CMP_GT_OQ>(a, b); }
  friend SR_INLINE Mask<T, L> operator>=(Pack a, Pack b) { return compare<_CMP_GE_OQ>(a, b); }
#else
  friend SR_INLINE Mask<T, L> operator<(Pack a, Pack b) { return {a.v < b.v}; }
  friend SR_INLINE Mask<T, L> operator<=(Pack a, Pack b) { return {a.v <= b.v}; }
  friend SR_INLINE Mask<T, L> operator>(Pack a, Pack b) { return {a.v > b.v}; }
  friend SR_INLINE Mask<T, L> operator>=(Pack a, Pack b) { return {a.v >= b.v}; }
#endif
};

// ---- the same small vocabulary for scalars and packs -------------------------------------------------------

SR_INLINE float select(bool m, float a, float b) { return m ? a : b; }
SR_INLINE double select(bool m, double a, double b) { return m ? a : b; }
template <class T, int L>
SR_INLINE Pack<T, L> select(Mask<T, L> m, Pack<T, L> a, Pack<T, L> b) {
  using P = Pack<T, L>;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (sizeof(T) == 4)
    return P((typename P::V)_mm512_mask_blend_ps((__mmask16)m.m, (__m512)b.v, (__m512)a.v), typename P::Raw{});
  else
    return P((typename P::V)_mm512_mask_blend_pd((__mmask8)m.m, (__m512d)b.v, (__m512d)a.v), typename P::Raw{});
#else
  return P(m.m ? a.v : b.v, typename P::Raw{});
#endif
}
// a where m holds, 0 elsewhere
SR_INLINE float mask_or_zero(bool m, float a) { return m ? a : 0.f; }
SR_INLINE double mask_or_zero(bool m, double a) { return m ? a : 0.0; }
template <class T, int L>
SR_INLINE Pack<T, L> mask_or_zero(Mask<T, L> m, Pack<T, L> a) {
  return select(m, a, Pack<T, L>(T(0)));
}

SR_INLINE bool any(bool m) { return m; }
template <class T, int L>
SR_INLINE bool any(Mask<T, L> m) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return m.m != 0;
#elif defined(__AVX__)
  if constexpr (L * sizeof(T) == 32) return !_mm256_testz_si256((__m256i)m.m, (__m256i)m.m);
#endif
#if !(defined(__AVX512F__) && defined(__AVX512DQ__))
#if defined(__SSE2__)
  if constexpr (L * sizeof(T) == 16) return _mm_movemask_epi8((__m128i)m.m) != 0;
#endif
  typename IntOf<T>::type r = 0;
  for (int i = 0; i < L; ++i) r |= m.m[i];
  return r != 0;
#endif
}
// one bit per lane, lane 0 lowest
template <class T, int L>
SR_INLINE uint32_t bits(Mask<T, L> m) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return m.m;
#else
#if defined(__AVX__)
  if constexpr (L == 8 && sizeof(T) == 4) return uint32_t(_mm256_movemask_ps((__m256)m.m));
#endif
#if defined(__SSE2__)
  if constexpr (L == 4 && sizeof(T) == 4) return uint32_t(_mm_movemask_ps((__m128)m.m));
#endif
  uint32_t r = 0;
  for (int i = 0; i < L; ++i) r |= (m.m[i] ? 1u : 0u) << i;
  return r;
#endif
}

template <class T>
SR_INLINE T smin(T a, T b) {
  return select(a < b, a, b);
}
template <class T>
SR_INLINE T smax(T a, T b) {
  return select(a > b, a, b);
}
// lanes that are NaN come out as lo
template <class T>
SR_INLINE T clamp(T x, T lo, T hi) {
  return smin(smax(x, lo), hi);
}

SR_INLINE float square_root(float x) { return std::sqrt(x); }
SR_INLINE double square_root(double x) { return std::sqrt(x); }
template <class T, int L>
SR_INLINE Pack<T, L> square_root(Pack<T, L> x) {
  using P = Pack<T, L>;
  using V [[maybe_unused]] = typename P::V;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (sizeof(T) == 4) return P((V)_mm512_sqrt_ps((__m512)x.v), typename P::Raw{});
  if constexpr (sizeof(T) == 8) return P((V)_mm512_sqrt_pd((__m512d)x.v), typename P::Raw{});
#elif defined(__AVX__)
  if constexpr (sizeof(T) == 4) return P((V)_mm256_sqrt_ps((__m256)x.v), typename P::Raw{});
  if constexpr (sizeof(T) == 8) return P((V)_mm256_sqrt_pd((__m256d)x.v), typename P::Raw{});
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4) return P((V)_mm_sqrt_ps((__m128)x.v), typename P::Raw{});
  if constexpr (sizeof(T) == 8) return P((V)_mm_sqrt_pd((__m128d)x.v), typename P::Raw{});
#endif
  P r;
  for (int i = 0; i < L; ++i) r.v[i] = std::sqrt(x.v[i]);
  return r;
}

SR_INLINE float logarithm(float x) { return std::log(x); }
SR_INLINE double logarithm(double x) { return std::log(x); }
template <class T, int L>
SR_INLINE Pack<T, L> logarithm(Pack<T, L> x) {
  Pack<T, L> r;
  for (int i = 0; i < L; ++i) r.v[i] = std::log(x.v[i]);
  return r;
}

// 2^x. Packs of float: polynomial of degree 5 on [-1/2, 1/2] with relative error 8e-8 (fitted by iteratively
// reweighted least squares), results below 2^-126 are 0 or tiny, x <= 127. Everything else: the library's exp2.
SR_INLINE float power_of_two(float x) { return std::exp2(x); }
SR_INLINE double power_of_two(double x) { return std::exp2(x); }
template <int L>
SR_INLINE Pack<double, L> power_of_two(Pack<double, L> x) {
  Pack<double, L> r;
  for (int i = 0; i < L; ++i) r.v[i] = std::exp2(x.v[i]);
  return r;
}
template <class P>
SR_INLINE P exp2_polynomial(P f) {
  P p = P(1.3276470685628348e-3f);
  p = p * f + P(9.67554132402496e-3f);
  p = p * f + P(5.5507132775407e-2f);
  p = p * f + P(2.4022119724099553e-1f);
  p = p * f + P(6.931469670622854e-1f);
  return p * f + P(1.0000000716546047f);
}
template <int L>
SR_INLINE Pack<float, L> power_of_two(Pack<float, L> x) {
  using P = Pack<float, L>;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  const __m512 whole = _mm512_roundscale_ps((__m512)x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const P p = exp2_polynomial(P((typename P::V)((__m512)x.v - whole), typename P::Raw{}));
  return P((typename P::V)_mm512_scalef_ps((__m512)p.v, whole), typename P::Raw{});
#else
  typedef int32_t VI __attribute__((vector_size(L * sizeof(float))));
  x = clamp(x, P(-126.f), P(127.f));
  const P shifted = x + P(12582912.f);  // 1.5 * 2^23: rounds to the nearest integer, which lands in the low bits
  const VI whole = (VI)shifted.v - 0x4B400000;
  const P p = exp2_polynomial(x - (shifted - P(12582912.f)));
  return P((typename P::V)((VI)p.v + (whole << 23)), typename P::Raw{});
#endif
}

// Sum over the lanes, in a fixed order.
template <class T, int L>
SR_INLINE T horizontal_sum(Pack<T, L> x) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (sizeof(T) == 4) return _mm512_reduce_add_ps((__m512)x.v);
#endif
  T s = 0;
  for (int i = 0; i < L; ++i) s += x.v[i];
  return s;
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
