// Structural similarity (Wang et al. 2004) of two windows x and y, and its vector-Jacobian product.
//
//   S = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2))
//
// With the sum u = x + y and the difference v = x - y of the two images everything splits into squares,
//
//   2 μx μy = P - Q,  μx² + μy² = P + Q,  P = μu²/2,  Q = μv²/2
//   2 σxy   = R - Z,  σx² + σy² = R + Z,  R = σu²/2,  Z = σv²/2
//
// so four windowed means (u, v, u², v²) are enough and 1 - S, which is what a loss adds up, never cancels:
//
//   1 - l = 2Q/(P+Q+C1),  1 - c = 2Z/(R+Z+C2),  S = l c,  1 - S = (1 - l) + l (1 - c)
#pragma once
#include "number.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

constexpr int kSsimRadius = 5;         // the window of 11x11 pixels
constexpr double kSsimSigma = 1.5;     // and its Gaussian, both of the paper and of 3DGS
constexpr double kSsimC1 = 1e-4;       // (0.01)², for images in 0..1
constexpr double kSsimC2 = 9e-4;       // (0.03)²

template <class S>
struct SsimMeans {
  S u, v, uu, vv;  // windowed means of u, v, u², v²
};
// d(1 - S)/dx of the pixel q in the window of the pixel p is weight(p - q) (constant + u_q sum + v_q difference).
template <class S>
struct SsimSlopes {
  S constant, sum, difference;
};

// Returns 1 - S.
template <class S>
SR_INLINE S dissimilarity(const SsimMeans<S>& m, SsimSlopes<S>& slopes) {
  const S zero(0), one(1), two(2), half(0.5), c1(kSsimC1), c2(kSsimC2);
  const S P = half * m.u * m.u, Q = half * m.v * m.v;
  // not negative but for rounding, which counts where an image is bright and flat
  const S R = smax(half * m.uu - P, zero), Z = smax(half * m.vv - Q, zero);
  const S B1 = P + Q + c1, B2 = R + Z + c2;
  const S inv = one / (B1 * B2), inv1 = inv * B2, inv2 = inv * B1;
  const S unlike1 = two * Q * inv1, unlike2 = two * Z * inv2;  // 1 - l, 1 - c
  const S l = one - unlike1, c = one - unlike2;
  // dS/dP = c (1 - l)/B1,  dS/dQ = -c (1 + l)/B1,  dS/dR = l (1 - c)/B2,  dS/dZ = -l (1 + c)/B2
  const S by_P = -(c * unlike1 * inv1), by_Q = c * (one + l) * inv1;
  const S by_R = -(l * unlike2 * inv2), by_Z = l * (one + c) * inv2;
  // R = mean(u²)/2 - P and P = mean(u)²/2; u² brings 2 u_q/2
  slopes = {m.u * (by_P - by_R) + m.v * (by_Q - by_Z), by_R, by_Z};
  return unlike1 + l * unlike2;
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
