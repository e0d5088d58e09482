// Numbers as the formulas in math/ see them: a small vocabulary over float and double. pack.h adds the same words for
// SIMD registers; a formula is a template over the number type and finds the right ones by its argument.
//
// On a CUDA thread (and in its emulation) float takes the instructions of the GPU: fused multiply-add and the special
// function unit's 2^x instead of the library's.
// Every name lives in an inline namespace per instruction set: the same header is compiled several times into
// one library, and the linker must never mix the copies.
#pragma once
#include <cmath>
#include <cstdint>

#ifndef SPLATRENDER_ISA
#define SPLATRENDER_ISA portable
#endif
#ifdef __CUDACC__
#define SR_INLINE __host__ __device__ __forceinline__
#else
#define SR_INLINE inline __attribute__((always_inline))
#endif
#if defined(__CUDACC__) || defined(SPLATRENDER_EMULATED)
#define SR_GPU 1
#else
#define SR_GPU 0
#endif

namespace splatrender {
inline namespace SPLATRENDER_ISA {

SR_INLINE float select(bool m, float a, float b) { return m ? a : b; }
SR_INLINE double select(bool m, double a, double b) { return m ? a : b; }
// a where m holds, 0 elsewhere
SR_INLINE float mask_or_zero(bool m, float a) { return m ? a : 0.f; }
SR_INLINE double mask_or_zero(bool m, double a) { return m ? a : 0.0; }
SR_INLINE bool any(bool m) { return m; }

// Smaller and larger of two; the second where one is NaN, as the instructions do.
template <class T>
SR_INLINE T smin(T a, T b) {
  return select(a < b, a, b);
}
template <class T>
SR_INLINE T smax(T a, T b) {
  return select(a > b, a, b);
}
#ifdef __CUDA_ARCH__  // one instruction instead of two
SR_INLINE float smin(float a, float b) { return fminf(a, b); }
SR_INLINE float smax(float a, float b) { return fmaxf(a, b); }
#endif
// lanes that are NaN come out as lo
template <class T>
SR_INLINE T clamp(T x, T lo, T hi) {
  return smin(smax(x, lo), hi);
}

SR_INLINE float magnitude(float x) { return std::fabs(x); }
SR_INLINE double magnitude(double x) { return std::fabs(x); }

// a b + c, rounded once. Written out where two places must agree to the last bit.
SR_INLINE float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
SR_INLINE double multiply_add(double a, double b, double c) { return std::fma(a, b, c); }

// 1 / x to the last bit or two.
SR_INLINE float reciprocal(float x) { return 1.f / x; }
SR_INLINE double reciprocal(double x) { return 1.0 / x; }

SR_INLINE float square_root(float x) { return std::sqrt(x); }
SR_INLINE double square_root(double x) { return std::sqrt(x); }

// Factor from log2 to the exponent of a Gaussian: 2 ln x = kTwoLn2 log2 x.
constexpr double kTwoLn2 = 1.3862943611198906;

// log2(x) for normal x > 0.
SR_INLINE float log_two(float x) { return std::log2(x); }
SR_INLINE double log_two(double x) { return std::log2(x); }

// ab - cd without cancellation beyond the last bit (Kahan), by fused multiply-add or, without it, in double.
SR_INLINE double difference_of_products(double a, double b, double c, double d) {
  const double w = c * d;
  return std::fma(a, b, -w) + std::fma(-c, d, w);
}
SR_INLINE float difference_of_products(float a, float b, float c, float d) {
#if SR_GPU
  const float w = c * d;
  return std::fma(a, b, -w) + std::fma(-c, d, w);
#else
  return float(double(a) * double(b) - double(c) * double(d));
#endif
}

// 2^x.
SR_INLINE float power_of_two(float x) { return std::exp2(x); }
SR_INLINE double power_of_two(double x) { return std::exp2(x); }

// Exponents below this one count as this one in power_and_complement. Its power is nothing beside 1, but two of them
// and the transmittance at which a pixel is full (1e-4) still multiply to a normal number: what a walk front to back
// multiplies, the walk back divides out again, without 0/0.
template <class S>
constexpr double kLeastExponent = sizeof(S) == 4 ? -56 : -454;

// 2^x and 1 - 2^x for x <= 0, both to full relative precision down to kLeastExponent.
template <class S>
struct PowerOfTwo {
  S power, complement;
};
SR_INLINE PowerOfTwo<float> power_and_complement(float x) {
  x = smax(x, float(kLeastExponent<float>));
#if SR_GPU
  // 1 - 2^x cancels where x is small: there its series, whose next term is below 1e-8 of the sum for x > -1/4
  const float power = std::exp2(x);
  float series = -1.3333558146e-3f;
  series = std::fma(series, x, -9.6181291076e-3f);
  series = std::fma(series, x, -5.5504108665e-2f);
  series = std::fma(series, x, -2.4022650696e-1f);
  series = std::fma(series, x, -6.9314718056e-1f);
  return {power, select(x > -0.25f, series * x, 1.f - power)};
#else
  return {std::exp2(x), -std::expm1(x * 0.693147180559945309f)};
#endif
}
SR_INLINE PowerOfTwo<double> power_and_complement(double x) {
  x = smax(x, kLeastExponent<double>);
  return {std::exp2(x), -std::expm1(x * 0.693147180559945309)};
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
