// The tiles that a splat meets: the rows of tiles of its bounding rectangle, then the interval of columns in each row.
// The executors find the same tiles, and a kernel that is called twice finds them again.
#pragma once
#include "ellipse.h"
#include "thresholds.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

// Slack of the bounding rectangle, relative and in pixels: rounding must not lose a row that the ellipse touches.
constexpr float kRowSlack = 1.001f, kRowSlackPixels = 0.01f;

// Rows [first, last) of tiles; none where last <= first.
struct TileRows {
  int first, last;
};
SR_INLINE TileRows tile_rows(float y, float half_height, int rows) {
  const float e = half_height * kRowSlack + kRowSlackPixels;
  const float low = (y - e) / kTile, high = (y + e) / kTile;
  return {low <= 0 ? 0 : low >= rows ? rows : int(low), high < 0 ? 0 : high >= rows ? rows : int(high) + 1};
}

// Columns [begin, end) of tiles in one row, to be rounded down; none where end <= begin.
template <class S>
struct TileColumns {
  S begin, end;
};
// `top` is the centre of the row's first pixels relative to the splat, `columns` the number of columns of the image.
template <class S>
SR_INLINE TileColumns<S> tile_columns(const Ellipse<S>& ellipse, S x, S top, S columns) {
  const S per_tile = S(1.0 / kTile), half = S(0.5), zero(0);
  S lo, hi;
  const auto meets = ellipse_in_strip(ellipse, top, top + S(kTile - 1), lo, hi);
  // the first tile whose last pixel centre is not left of the interval, and the one after the last tile whose first
  // pixel centre is not right of it
  return {clamp((x + lo + half) * per_tile, zero, columns),
          mask_or_zero(meets, clamp((x + hi - half) * per_tile + S(1), zero, columns))};
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
