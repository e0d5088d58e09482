// The ellipse on which a splat's response falls to the cut-off, and how it meets a horizontal strip of pixels.
//
//   q(d) = xx dx² + 2 xy dx dy + yy dy² <= level,     d = pixel - mean2d
//
// For a strip y0 <= dy <= y1 the x-extent of the ellipse is exact: its rightmost point is the ellipse's own
// rightmost point when that lies in the strip, otherwise it lies on the strip's nearer edge (the set is convex).
// One test serves tiles (binning) and the 4x4 blocks of a tile (blending).
#pragma once
#include "pack.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

constexpr float kCutoff = 1.f / 255.f;  // a response below half a grey level of 8-bit output does not show
constexpr float kLevelSlack = 1e-3f;    // the test must not lose a pixel that rounding lets through

template <class T>
struct Ellipse {
  T inverse_xx;  // 1 / xx
  T xy_over_xx;  // xy / xx
  T scale;       // level / xx: squared half-width at the height of the centre
  T shrink;      // det / xx²: how fast the squared half-width falls with dy²
  T y_max;       // half-height
  T y_right;     // dy of the rightmost point (the leftmost is at -y_right)
};

// conic (xx, xy, yy) and level -> ellipse. The determinant is formed in double: for needles it cancels.
template <class T>
SR_INLINE Ellipse<T> make_ellipse(T xx, T xy, T yy, T level) {
  const double det = double(xx) * double(yy) - double(xy) * double(xy);
  Ellipse<T> e;
  const T inv = T(1) / xx;
  e.inverse_xx = inv;
  e.xy_over_xx = xy * inv;
  e.scale = level * inv;
  if (det > 0) {
    const double per_det = double(level) / det;
    e.shrink = T(det) * inv * inv;
    e.y_max = T(std::sqrt(double(xx) * per_det));
    e.y_right = -xy / yy * T(std::sqrt(double(yy) * per_det));
  } else {  // rounded to a degenerate form: an infinite strip, never culled
    e.shrink = 0;
    e.y_max = T(1e9);
    e.y_right = 0;
  }
  return e;
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
