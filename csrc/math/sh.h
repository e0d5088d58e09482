// Real spherical harmonics up to degree 3 at a unit vector, with the signs of 3DGS files (Condon-Shortley phase
// included), and the gradient of a combination of them with respect to the direction.
#pragma once
#include "linalg.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

constexpr int kMaxSh = 16;
SR_INLINE constexpr int sh_count(int degree) { return (degree + 1) * (degree + 1); }

// Normalisations: sqrt of (2l+1)/(4π) (l-m)!/(l+m)!, times 2 for m != 0, written for the polynomials below.
constexpr double kSh0 = 0.28209479177387814;   // 1/2 sqrt(1/π)
constexpr double kSh1 = 0.4886025119029199;    // sqrt(3/(4π))
constexpr double kSh2a = 1.0925484305920792;   // 1/2 sqrt(15/π)
constexpr double kSh2b = 0.31539156525252005;  // 1/4 sqrt(5/π)
constexpr double kSh2c = 0.5462742152960396;   // 1/4 sqrt(15/π)
constexpr double kSh3a = 0.5900435899266435;   // 1/4 sqrt(35/(2π))
constexpr double kSh3b = 2.890611442640554;    // 1/2 sqrt(105/π)
constexpr double kSh3c = 0.4570457994644658;   // 1/4 sqrt(21/(2π))
constexpr double kSh3d = 0.3731763325901154;   // 1/4 sqrt(7/π)
constexpr double kSh3e = 1.445305721320277;    // 1/4 sqrt(105/π)

template <class S>
SR_INLINE void sh_basis(Vec3<S> d, int degree, S* Y) {
  const S x = d.x, y = d.y, z = d.z;
  Y[0] = S(kSh0);
  if (degree < 1) return;
  Y[1] = S(-kSh1) * y;
  Y[2] = S(kSh1) * z;
  Y[3] = S(-kSh1) * x;
  if (degree < 2) return;
  const S xx = x * x, yy = y * y, zz = z * z;
  Y[4] = S(kSh2a) * x * y;
  Y[5] = S(-kSh2a) * y * z;
  Y[6] = S(kSh2b) * (S(2) * zz - xx - yy);
  Y[7] = S(-kSh2a) * x * z;
  Y[8] = S(kSh2c) * (xx - yy);
  if (degree < 3) return;
  const S five = S(4) * zz - xx - yy;
  Y[9] = S(-kSh3a) * y * (S(3) * xx - yy);
  Y[10] = S(kSh3b) * x * y * z;
  Y[11] = S(-kSh3c) * y * five;
  Y[12] = S(kSh3d) * z * (S(2) * zz - S(3) * (xx + yy));
  Y[13] = S(-kSh3c) * x * five;
  Y[14] = S(kSh3e) * z * (xx - yy);
  Y[15] = S(-kSh3a) * x * (xx - S(3) * yy);
}

// Gradient in R³ of Σ_k w_k Y_k at d, Y_k read as the polynomials above.
template <class S>
SR_INLINE Vec3<S> sh_direction_vjp(Vec3<S> d, int degree, const S* w) {
  const S x = d.x, y = d.y, z = d.z;
  Vec3<S> g{S(0), S(0), S(0)};
  if (degree < 1) return g;
  g.x = S(-kSh1) * w[3];
  g.y = S(-kSh1) * w[1];
  g.z = S(kSh1) * w[2];
  if (degree < 2) return g;
  const S two = S(2);
  const S w4 = S(kSh2a) * w[4], w5 = S(-kSh2a) * w[5], w6 = two * S(kSh2b) * w[6], w7 = S(-kSh2a) * w[7],
          w8 = two * S(kSh2c) * w[8];
  g.x += w4 * y + w7 * z + (w8 - w6) * x;
  g.y += w4 * x + w5 * z - (w8 + w6) * y;
  g.z += w5 * y + w7 * x + two * w6 * z;
  if (degree < 3) return g;
  const S xx = x * x, yy = y * y, zz = z * z, three = S(3), six = S(6);
  const S w9 = S(-kSh3a) * w[9], w10 = S(kSh3b) * w[10], w11 = S(-kSh3c) * w[11], w12 = S(kSh3d) * w[12],
          w13 = S(-kSh3c) * w[13], w14 = S(kSh3e) * w[14], w15 = S(-kSh3a) * w[15];
  const S five = S(4) * zz - xx - yy;
  g.x += w9 * six * x * y + w10 * y * z - w11 * two * x * y - w12 * six * x * z + w13 * (five - two * xx) +
         w14 * two * x * z + w15 * three * (xx - yy);
  g.y += w9 * three * (xx - yy) + w10 * x * z + w11 * (five - two * yy) - w12 * six * y * z - w13 * two * x * y -
         w14 * two * y * z - w15 * six * x * y;
  g.z += w10 * x * y + w11 * S(8) * y * z + w12 * (six * zz - three * (xx + yy)) + w13 * S(8) * x * z + w14 * (xx - yy);
  return g;
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
