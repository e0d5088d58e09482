// Projection of one splat into one camera (EWA: Zwicker et al. 2001, "EWA volume splatting"), and its
// vector-Jacobian product. Written once; S is float, double or a pack of them.
//
//   p = W b + t              camera coordinates of the mean b         M = W A      factor in camera coordinates
//   J = d(u, v)/dp           pinhole Jacobian at p                    B = J M      factor of the footprint, 2x3
//   S0 = B Bᵀ,  S = S0 + eps2d I                                      conic = S⁻¹
//   peak = comp · opacity                                             response gaussian
//   peak = comp · extinction · √(2π) |p| / |M⁻¹ p|                    response beer_lambert: optical depth of the
//                                                                     bump along the ray through its centre
//   comp = sqrt(max(det S0 / det S, 0.005²)) when antialiased (Yu et al. 2024, "Mip-Splatting"), else 1
#pragma once
#include "linalg.h"
#include "thresholds.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

enum class Response : int { gaussian = 0, beer_lambert = 1 };

// J is taken at most this fraction of the image beyond its border: further out the affine approximation fails.
constexpr double kBorder = 0.15;
// Floor of the antialiasing ratio: keeps the square root differentiable for splats much smaller than a pixel.
constexpr double kMinCompensation2 = 0.005 * 0.005;
constexpr double kSqrt2Pi = 2.5066282746310002;
// Determinants of footprints [px⁴] and peaks between which conics and exponents are finite: beyond, a splat is culled.
constexpr double kSmall = 1e-30, kHuge = 1e30;

// One camera, broadcast to the number type.
template <class S>
struct PinholeView {
  Mat3<S> W;
  Vec3<S> t;
  S fx, fy, cx, cy;
  S lo_x, hi_x, lo_y, hi_y;  // where x/z and y/z are clamped in J
};
template <class S, class T>
SR_INLINE PinholeView<S> make_view(const T* viewmat, const T* intrinsics, int width, int height) {
  const T* m = viewmat;
  const T fx = intrinsics[0], fy = intrinsics[1], cx = intrinsics[2], cy = intrinsics[3];
  const T bx = T(kBorder) * T(width), by = T(kBorder) * T(height);
  return {{{{S(m[0]), S(m[1]), S(m[2])}, {S(m[4]), S(m[5]), S(m[6])}, {S(m[8]), S(m[9]), S(m[10])}}},
          {S(m[3]), S(m[7]), S(m[11])},
          S(fx),
          S(fy),
          S(cx),
          S(cy),
          S(-(cx + bx) / fx),
          S((T(width) - cx + bx) / fx),
          S(-(cy + by) / fy),
          S((T(height) - cy + by) / fy)};
}

// ---- the factor from quaternion (wxyz, any norm) and scales ------------------------------------------------

template <class S>
struct Quat {
  S w, x, y, z;
};
template <class S>
SR_INLINE Mat3<S> rotation(Quat<S> q) {  // q of unit length
  const S two = S(2), one = S(1);
  return {{{one - two * (q.y * q.y + q.z * q.z), two * (q.x * q.y - q.w * q.z), two * (q.x * q.z + q.w * q.y)},
           {two * (q.x * q.y + q.w * q.z), one - two * (q.x * q.x + q.z * q.z), two * (q.y * q.z - q.w * q.x)},
           {two * (q.x * q.z - q.w * q.y), two * (q.y * q.z + q.w * q.x), one - two * (q.x * q.x + q.y * q.y)}}};
}
template <class S>
SR_INLINE S inverse_norm(Quat<S> q) {
  return S(1) / square_root(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z);
}
template <class S>
SR_INLINE Quat<S> scaled(Quat<S> q, S s) {
  return {s * q.w, s * q.x, s * q.y, s * q.z};
}
template <class S>
SR_INLINE Mat3<S> factor_of(Quat<S> q, Vec3<S> s) {
  const Mat3<S> R = rotation(scaled(q, inverse_norm(q)));
  Mat3<S> A;
  for (int i = 0; i < 3; ++i) A.r[i] = {R.r[i].x * s.x, R.r[i].y * s.y, R.r[i].z * s.z};
  return A;
}
template <class S>
SR_INLINE void factor_of_vjp(Quat<S> q, Vec3<S> s, const Mat3<S>& gA, Quat<S>& gq, Vec3<S>& gs) {
  const S inv = inverse_norm(q);
  const Quat<S> u = scaled(q, inv);
  const Mat3<S> R = rotation(u);
  Mat3<S> g;  // gradient to R
  gs = {S(0), S(0), S(0)};
  for (int i = 0; i < 3; ++i) {
    g.r[i] = {gA.r[i].x * s.x, gA.r[i].y * s.y, gA.r[i].z * s.z};
    gs += Vec3<S>{gA.r[i].x * R.r[i].x, gA.r[i].y * R.r[i].y, gA.r[i].z * R.r[i].z};
  }
  const S two = S(2);
  const S d21 = g.r[2].y - g.r[1].z, d02 = g.r[0].z - g.r[2].x, d10 = g.r[1].x - g.r[0].y;
  const S s21 = g.r[2].y + g.r[1].z, s02 = g.r[0].z + g.r[2].x, s10 = g.r[1].x + g.r[0].y;
  Quat<S> gu;
  gu.w = two * (u.x * d21 + u.y * d02 + u.z * d10);
  gu.x = two * (u.w * d21 + u.y * s10 + u.z * s02) - S(4) * u.x * (g.r[1].y + g.r[2].z);
  gu.y = two * (u.w * d02 + u.x * s10 + u.z * s21) - S(4) * u.y * (g.r[0].x + g.r[2].z);
  gu.z = two * (u.w * d10 + u.x * s02 + u.y * s21) - S(4) * u.z * (g.r[0].x + g.r[1].y);
  const S along = gu.w * u.w + gu.x * u.x + gu.y * u.y + gu.z * u.z;  // the norm of q has no effect
  gq = {inv * (gu.w - along * u.w), inv * (gu.x - along * u.x), inv * (gu.y - along * u.y), inv * (gu.z - along * u.z)};
}

// ---- forward -----------------------------------------------------------------------------------------------

template <class S>
struct Projected {
  S x, y, depth, peak;
  Sym2<S> conic, cov;
  // kept for the vector-Jacobian product
  Vec3<S> p;
  Mat3<S> A, M;
  Vec3<S> B0, B1;  // rows of B = J M
  S inv_z, u, v;   // u, v: clamped x/z and y/z
  S det0, det, comp, length;
};

template <class S>
SR_INLINE Projected<S> project(const PinholeView<S>& view, Vec3<S> mean, const Mat3<S>& A, S amplitude, S eps2d,
                               bool antialiased, Response response) {
  Projected<S> o;
  o.p = view.W * mean + view.t;
  o.depth = o.p.z;
  o.inv_z = S(1) / o.p.z;
  o.A = A;
  o.M = view.W * A;
  const S xn = o.p.x * o.inv_z, yn = o.p.y * o.inv_z;
  o.x = view.fx * xn + view.cx;
  o.y = view.fy * yn + view.cy;
  o.u = clamp(xn, view.lo_x, view.hi_x);
  o.v = clamp(yn, view.lo_y, view.hi_y);
  const S jx = view.fx * o.inv_z, jy = view.fy * o.inv_z;
  o.B0 = jx * (o.M.r[0] - o.u * o.M.r[2]);
  o.B1 = jy * (o.M.r[1] - o.v * o.M.r[2]);
  const Sym2<S> S0 = {dot(o.B0, o.B0), dot(o.B0, o.B1), dot(o.B1, o.B1)};
  const Vec3<S> c = cross(o.B0, o.B1);  // Lagrange: |B0|²|B1|² - (B0·B1)² = |B0×B1|², without cancellation
  o.det0 = dot(c, c);
  o.cov = {S0.xx + eps2d, S0.xy, S0.yy + eps2d};
  o.det = o.det0 + eps2d * (S0.xx + S0.yy + eps2d);
  const S inv = S(1) / o.det;
  o.conic = {o.cov.yy * inv, -o.cov.xy * inv, o.cov.xx * inv};
  o.comp = antialiased ? square_root(smax(o.det0 * inv, S(kMinCompensation2))) : S(1);
  o.length = S(1);
  if (response == Response::beer_lambert) {
    const Vec3<S> q = inverse(o.M) * o.p;
    o.length = S(kSqrt2Pi) * square_root(dot(o.p, o.p) / dot(q, q));
  }
  o.peak = o.comp * amplitude * o.length;
  return o;
}

// Half-widths [px] of the bounding rectangle of the ellipse on which the response falls to the cut-off, 0 where the
// splat is culled: its conic or peak is not finite, its peak is below the cut-off, or the rectangle misses the image.
// `keep` holds where the splat is between the near and the far plane; the result's where it is not culled.
constexpr double kLeastExtent = 1e-6;  // a splat that just touches the cut-off is still marked as visible
template <class S, class Mask>
struct Extent {
  S x, y;
  Mask keep;
};
template <class S, class Mask>
SR_INLINE Extent<S, Mask> extent_of(const Projected<S>& o, Mask keep, S width, S height) {
  const S zero(0), small(kSmall), huge(kHuge);
  keep = keep & (o.det > small) & (o.det < huge) & (o.peak >= S(kCutoff)) & (o.peak < huge);
  const S level = S(kTwoLn2) * log_two(select(keep, o.peak * (S(1) / S(kCutoff)), S(1)));
  const S x = square_root(smax(level * o.cov.xx, zero)), y = square_root(smax(level * o.cov.yy, zero));
  keep = keep & (o.x + x >= zero) & (o.x - x <= width) & (o.y + y >= zero) & (o.y - y <= height);
  return {mask_or_zero(keep, smax(x, S(kLeastExtent))), mask_or_zero(keep, smax(y, S(kLeastExtent))), keep};
}

// ---- vector-Jacobian product ---------------------------------------------------------------------------------

template <class S>
struct ProjectedGrad {
  S x, y, depth, peak;
  Sym2<S> conic;  // with respect to the three stored numbers
};
template <class S>
struct ProjectGrad {
  Vec3<S> mean;
  Mat3<S> A;
  S amplitude;
  Mat3<S> W;
  Vec3<S> t;
  S fx, fy, cx, cy;
};

// Adds what the peak contributes, given its gradient times the peak, to the gradients of S, M and p.
template <class S>
SR_INLINE void peak_vjp(const Projected<S>& o, S g_log_peak, bool antialiased, Response response, Sym2<S>& gS,
                        Mat3<S>& gM, Vec3<S>& gp) {
  if (antialiased) {  // d ln comp = ½ tr(S0⁻¹ dS) - ½ tr(S⁻¹ dS) where the floor does not hold
    const auto above = o.det0 > S(kMinCompensation2) * o.det;
    const S k = mask_or_zero(above, S(0.5) * g_log_peak);
    const S inv0 = S(1) / select(above, o.det0, S(1));  // where the floor holds it may overflow
    const S xx0 = dot(o.B0, o.B0), xy0 = dot(o.B0, o.B1), yy0 = dot(o.B1, o.B1);
    const Sym2<S> K = o.conic;
    gS.xx += k * (yy0 * inv0 - K.xx);
    gS.xy += k * (-xy0 * inv0 - K.xy);
    gS.yy += k * (xx0 * inv0 - K.yy);
  }
  if (response == Response::beer_lambert) {  // ln length = ½ ln p·p - ½ ln q·q,  q = M⁻¹ p
    const Mat3<S> Mi = inverse(o.M);
    const Vec3<S> q = Mi * o.p;
    const Vec3<S> h = transposed_times(Mi, (-g_log_peak / dot(q, q)) * q);
    gp += (g_log_peak / dot(o.p, o.p)) * o.p + h;
    const Mat3<S> hq = outer(h, q);
    for (int i = 0; i < 3; ++i) gM.r[i] = S(-1) * hq.r[i];
  }
}

template <class S>
SR_INLINE ProjectGrad<S> project_vjp(const PinholeView<S>& view, Vec3<S> mean, const Projected<S>& o,
                                     const ProjectedGrad<S>& g, bool antialiased, Response response) {
  ProjectGrad<S> r;
  Vec3<S> gp{S(0), S(0), g.depth};
  Mat3<S> gM{{{S(0), S(0), S(0)}, {S(0), S(0), S(0)}, {S(0), S(0), S(0)}}};

  // conic = S⁻¹:  gS = -K G K with G the symmetric matrix of the gradient (its off-diagonal number counts twice)
  const Sym2<S> K = o.conic;
  const S half = S(0.5), gxx = g.conic.xx, gxy = half * g.conic.xy, gyy = g.conic.yy;
  const S a = K.xx * gxx + K.xy * gxy, b = K.xx * gxy + K.xy * gyy;  // rows of K G
  const S c = K.xy * gxx + K.yy * gxy, d = K.xy * gxy + K.yy * gyy;
  Sym2<S> gS = {-(a * K.xx + b * K.xy), -(a * K.xy + b * K.yy), -(c * K.xy + d * K.yy)};

  // peak
  r.amplitude = g.peak * o.comp * o.length;
  peak_vjp(o, g.peak * o.peak, antialiased, response, gS, gM, gp);

  // S0 = B Bᵀ
  const S two = S(2);
  const Vec3<S> gB0 = two * (gS.xx * o.B0 + gS.xy * o.B1);
  const Vec3<S> gB1 = two * (gS.xy * o.B0 + gS.yy * o.B1);
  // B0 = fx/z (M0 - u M2),  B1 = fy/z (M1 - v M2)
  const S jx = view.fx * o.inv_z, jy = view.fy * o.inv_z;
  gM.r[0] += jx * gB0;
  gM.r[1] += jy * gB1;
  gM.r[2] = gM.r[2] - (jx * o.u) * gB0 - (jy * o.v) * gB1;
  const S by_x = dot(gB0, o.B0), by_y = dot(gB1, o.B1);  // ∂/∂ ln(fx/z), ∂/∂ ln(fy/z)
  const S gu = -jx * dot(gB0, o.M.r[2]), gv = -jy * dot(gB1, o.M.r[2]);
  gp.z -= (by_x + by_y) * o.inv_z;
  r.fx = by_x / view.fx;
  r.fy = by_y / view.fy;
  const S xn = o.p.x * o.inv_z, yn = o.p.y * o.inv_z;
  const auto in_x = (xn >= view.lo_x) & (xn <= view.hi_x), in_y = (yn >= view.lo_y) & (yn <= view.hi_y);
  // a clamped u is a border of the field of view, (const - cx)/fx: it moves with the intrinsics only
  const S out_u = gu - mask_or_zero(in_x, gu), out_v = gv - mask_or_zero(in_y, gv);
  r.fx -= out_u * o.u / view.fx;
  r.fy -= out_v * o.v / view.fy;
  r.cx = g.x - out_u / view.fx;
  r.cy = g.y - out_v / view.fy;
  const S gxn = view.fx * g.x + mask_or_zero(in_x, gu), gyn = view.fy * g.y + mask_or_zero(in_y, gv);
  r.fx += g.x * xn;
  r.fy += g.y * yn;
  gp.x += gxn * o.inv_z;
  gp.y += gyn * o.inv_z;
  gp.z -= (gxn * xn + gyn * yn) * o.inv_z;

  // M = W A,  p = W mean + t
  const Mat3<S> Wt = transpose(view.W);
  r.A = Wt * gM;
  r.W = gM * transpose(o.A) + outer(gp, mean);
  r.mean = Wt * gp;
  r.t = gp;
  return r;
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
