// The ellipse on which a splat's response falls to the cut-off, and how it meets a horizontal strip of pixels.
//
//   q(d) = xx dx² + 2 xy dx dy + yy dy² <= level,     d = pixel - mean2d
//
// For a strip y0 <= dy <= y1 the x-extent of the ellipse is exact: its rightmost point is the ellipse's own
// rightmost point when that is in the strip, otherwise it is on the strip's nearer edge (the set is convex).
// One test serves tiles (binning) and the 4x4 blocks of a tile (blending).
#pragma once
#include "number.h"
#include "thresholds.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

constexpr double kLog2Cutoff = -7.994353436858858;  // log2 of kCutoff
constexpr double kLevelSlack = 1e-3;  // the test must not lose a pixel that rounding lets through

template <class T>
struct Ellipse {
  T inverse_xx;  // 1 / xx
  T xy_over_xx;  // xy / xx
  T scale;       // level / xx: squared half-width at the height of the centre
  T shrink;      // det / xx²: how fast the squared half-width falls with dy²
  T y_max;       // half-height
  T y_right;     // dy of the rightmost point (the leftmost is at -y_right)
};

// Level of q at which a response with this peak has fallen to the cut-off, 2 ln(255 peak), with slack; for
// peak >= 1/255.
template <class S>
SR_INLINE S cutoff_level(S log2_peak) {
  return S(kTwoLn2 * (1 + kLevelSlack)) * (log2_peak + S(-kLog2Cutoff)) + S(kLevelSlack);
}

// conic (xx, xy, yy) and level -> ellipse.
template <class S>
SR_INLINE Ellipse<S> make_ellipse(S xx, S xy, S yy, S level) {
  const S zero(0), one(1);
  const S det = difference_of_products(xx, yy, xy, xy);
  const auto proper = det > zero;  // a needle may round to a degenerate form: an infinite strip, never culled
  const S per_det = level / select(proper, det, one), inv = one / xx;
  return {inv,
          xy * inv,
          level * inv,
          mask_or_zero(proper, det * inv * inv),
          select(proper, square_root(xx * per_det), S(1e9f)),
          mask_or_zero(proper, -xy / yy * square_root(yy * per_det))};
}

// The x-interval [lo, hi] of ellipse ∩ strip, relative to the centre. False (per lane) where they do not meet.
template <class T, class S>
SR_INLINE auto ellipse_in_strip(const Ellipse<T>& e, S y0, S y1, S& lo, S& hi) {
  const S bottom = smax(y0, S(-e.y_max)), top = smin(y1, S(e.y_max));
  const S at_right = clamp(S(e.y_right), bottom, top), at_left = clamp(S(-e.y_right), bottom, top);
  hi = square_root(smax(S(e.scale) - S(e.shrink) * at_right * at_right, S(0))) - S(e.xy_over_xx) * at_right;
  lo = -square_root(smax(S(e.scale) - S(e.shrink) * at_left * at_left, S(0))) - S(e.xy_over_xx) * at_left;
  return bottom <= top;
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
