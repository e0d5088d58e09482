// A pack is one SIMD register of numbers, written like a number: Pack<float, L> and Pack<double, L> are what the
// formulas in math/ compute with on the CPU.
//
// Built on the vector extension of GCC and Clang, so any CPU with such a compiler runs it; comparisons, square
// roots and exp2 use AVX-512 / AVX / SSE instructions where the translation unit is compiled for them.
#pragma once
#include <cstring>
#include <limits>

#include "number.h"
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
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
  SR_INLINE Pack(T x)
      : v(x - V{}) {
  }  // broadcast (x + 0 would not fold: it turns -0 into 0); implicit, so that constants read like numbers
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
template <class T, int L>
SR_INLINE Pack<T, L> mask_or_zero(Mask<T, L> m, Pack<T, L> a) {
  return select(m, a, Pack<T, L>(T(0)));
}

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

#if defined(__AVX__)
template <int L>
SR_INLINE Pack<float, L> smin(Pack<float, L> a, Pack<float, L> b) {
  using P = Pack<float, L>;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return P((typename P::V)_mm512_min_ps((__m512)a.v, (__m512)b.v), typename P::Raw{});
#else
  return P((typename P::V)_mm256_min_ps((__m256)a.v, (__m256)b.v), typename P::Raw{});
#endif
}
template <int L>
SR_INLINE Pack<float, L> smax(Pack<float, L> a, Pack<float, L> b) {
  using P = Pack<float, L>;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return P((typename P::V)_mm512_max_ps((__m512)a.v, (__m512)b.v), typename P::Raw{});
#else
  return P((typename P::V)_mm256_max_ps((__m256)a.v, (__m256)b.v), typename P::Raw{});
#endif
}
#endif
template <class T, int L>
SR_INLINE Pack<T, L> magnitude(Pack<T, L> x) {
  using I = typename IntOf<T>::type;
  typedef I Bits __attribute__((vector_size(L * sizeof(T))));
  return {typename Pack<T, L>::V(Bits(x.v) & std::numeric_limits<I>::max()), typename Pack<T, L>::Raw{}};
}
// a b + c, rounded once where the CPU can. Written out where two places must agree to the last bit.
template <class T, int L>
SR_INLINE Pack<T, L> multiply_add(Pack<T, L> a, Pack<T, L> b, Pack<T, L> c) {
  using P [[maybe_unused]] = Pack<T, L>;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (sizeof(T) == 4)
    return P((typename P::V)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v), typename P::Raw{});
  else
    return P((typename P::V)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v), typename P::Raw{});
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return P((typename P::V)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v), typename P::Raw{});
  else
    return P((typename P::V)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v), typename P::Raw{});
#else
  return a * b + c;
#endif
}

// 1 / x to the last bit or two.
template <class T, int L>
SR_INLINE Pack<T, L> reciprocal(Pack<T, L> x) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (sizeof(T) == 4) {  // a guess good to 14 bits and one Newton step: a third of a division's time
    const __m512 guess = _mm512_rcp14_ps((__m512)x.v);
    const __m512 error = _mm512_fnmadd_ps((__m512)x.v, guess, _mm512_set1_ps(1.f));
    return {(typename Pack<T, L>::V)_mm512_fmadd_ps(guess, error, guess), typename Pack<T, L>::Raw{}};
  }
#endif
  return Pack<T, L>(T(1)) / x;
}

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

// log2(x) for normal x > 0. Packs of float: x = 2^n m with m in [√½, √2), log2 m by the series of the inverse
// hyperbolic tangent in (m-1)/(m+1), absolute error about 1e-7. Everything else: the library's log2.
template <int L>
SR_INLINE Pack<double, L> log_two(Pack<double, L> x) {
  Pack<double, L> r;
  for (int i = 0; i < L; ++i) r.v[i] = std::log2(x.v[i]);
  return r;
}
template <int L>
SR_INLINE Pack<float, L> log_two(Pack<float, L> x) {
  using P = Pack<float, L>;
  typedef int32_t VI __attribute__((vector_size(L * sizeof(float))));
  const VI n = ((VI)x.v - 0x3F3504F3) >> 23;  // 0x3F3504F3 is √½
  const P m((typename P::V)((VI)x.v - (n << 23)), typename P::Raw{});
  const P s = (m - P(1.f)) / (m + P(1.f)), s2 = s * s;
  P p = P(0.3205989f);  // 2 log2(e) / 9
  p = p * s2 + P(0.4121985832f);
  p = p * s2 + P(0.5770780164f);
  p = p * s2 + P(0.961796694f);
  p = p * s2 + P(2.885390082f);
  return P(__builtin_convertvector(n, typename P::V), typename P::Raw{}) + s * p;
}

// ab - cd without cancellation beyond the last bit (Kahan), by fused multiply-add or, without it, in double.
template <class T, int L>
SR_INLINE Pack<T, L> difference_of_products(Pack<T, L> a, Pack<T, L> b, Pack<T, L> c, Pack<T, L> d) {
  using P = Pack<T, L>;
  if constexpr (sizeof(T) == 4) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    const __m512 w = _mm512_mul_ps((__m512)c.v, (__m512)d.v);
    const __m512 e = _mm512_fnmadd_ps((__m512)c.v, (__m512)d.v, w);
    return P((typename P::V)_mm512_add_ps(_mm512_fmsub_ps((__m512)a.v, (__m512)b.v, w), e), typename P::Raw{});
#elif defined(__AVX2__)
    const __m256 w = _mm256_mul_ps((__m256)c.v, (__m256)d.v);
    const __m256 e = _mm256_fnmadd_ps((__m256)c.v, (__m256)d.v, w);
    return P((typename P::V)_mm256_add_ps(_mm256_fmsub_ps((__m256)a.v, (__m256)b.v, w), e), typename P::Raw{});
#endif
  }
  P r;
  for (int i = 0; i < L; ++i) r.v[i] = difference_of_products(a.v[i], b.v[i], c.v[i], d.v[i]);
  return r;
}

// 2^x. Packs of float: polynomial of degree 5 on [-1/2, 1/2] with relative error 8e-8 (fitted by iteratively
// reweighted least squares), results below 2^-126 are 0 or tiny, x <= 127. Everything else: the library's exp2.
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

template <class T, int L>
constexpr double kLeastExponent<Pack<T, L>> = kLeastExponent<T>;

// 2^x and 1 - 2^x for x <= 0, as of numbers: with x = n + f, 2^x = 2^n + 2^n q and
// 1 - 2^x = (1 - 2^n) - 2^n q, where q = 2^f - 1 is a polynomial without constant term (relative error 1e-7).
template <int L>
SR_INLINE PowerOfTwo<Pack<double, L>> power_and_complement(Pack<double, L> x) {
  PowerOfTwo<Pack<double, L>> r;
  for (int i = 0; i < L; ++i) {
    const PowerOfTwo<double> one = power_and_complement(double(x.v[i]));
    r.power.v[i] = one.power, r.complement.v[i] = one.complement;
  }
  return r;
}
template <int L>
SR_INLINE PowerOfTwo<Pack<float, L>> power_and_complement(Pack<float, L> x) {
  using P = Pack<float, L>;
  typedef int32_t VI __attribute__((vector_size(L * sizeof(float))));
  x = clamp(x, P(kLeastExponent<P>), P(0.f));
  const P shifted = x + P(12582912.f);
  const VI whole = (VI)shifted.v - 0x4B400000;
  const P f = x - (shifted - P(12582912.f));
  P q = P(1.5252733804e-5f);
  q = q * f + P(1.5403530394e-4f);
  q = q * f + P(1.3333558146e-3f);
  q = q * f + P(9.6181291076e-3f);
  q = q * f + P(5.5504108665e-2f);
  q = q * f + P(2.4022650696e-1f);
  q = q * f + P(6.9314718056e-1f);
  q = q * f;
  const P scale((typename P::V)((whole + 127) << 23), typename P::Raw{});
  return {scale + scale * q, (P(1.f) - scale) - scale * q};
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

// out[i] = sum over the lanes of x[i], i < n. Eight packs of float at a time share one tree of additions.
template <class T, int L>
SR_INLINE void horizontal_sums(const Pack<T, L>* x, int n, T* out) {
  int i = 0;
#if defined(__AVX__)
  if constexpr (sizeof(T) == 4) {
    for (; i + 8 <= n; i += 8) {
      __m256 h[8];
      for (int k = 0; k < 8; ++k) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
        const __m512 v = (__m512)x[i + k].v;
        h[k] = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
#else
        h[k] = (__m256)x[i + k].v;
#endif
      }
      for (int k = 0; k < 4; ++k) h[k] = _mm256_hadd_ps(h[2 * k], h[2 * k + 1]);
      for (int k = 0; k < 2; ++k) h[k] = _mm256_hadd_ps(h[2 * k], h[2 * k + 1]);
      const __m256 lo = _mm256_permute2f128_ps(h[0], h[1], 0x20), hi = _mm256_permute2f128_ps(h[0], h[1], 0x31);
      _mm256_storeu_ps(out + i, _mm256_add_ps(lo, hi));
    }
  }
#endif
  for (; i < n; ++i) out[i] = horizontal_sum(x[i]);
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
