// Common parts of all walks over the tile lists: a splat as the inner loops read it, the pixels of a thread, the
// exponent at a pixel, and the quadrants that a splat meets.
//
// A block of 128 threads blends one 16x16 tile. Each of its four warps owns a quadrant of 8x8 pixels and walks only the
// splats that meet it; a lane owns two pixels of one column, (x, y) and (x, y + 4): what depends on a splat alone, or
// on its column, is read and computed once for both. A quadrant is four of the sixteen 4x4 blocks whose bits
// make up `hits`.
#pragma once
#include "../math/ellipse.h"
#include "../math/response.h"
#include "../stages.h"
#include "runtime.h"
#include "warp.h"

namespace splatrender::cuda {

constexpr int kTileThreads = 128;
constexpr int kWarps = kTileThreads / kWarp;
constexpr int kQuadrant = 8;  // pixels along the side of a quadrant
constexpr int kQuadrantPixels = kQuadrant * kQuadrant;  // 64: two per lane
constexpr int kSlots = 2;  // pixels of a lane
constexpr int kMaxChannels = 4;  // that one pass carries in registers

// Four numbers that are read and written at once.
template <class T>
struct alignas(16) Quad {
  T x, y, z, w;
};

// A splat in units of log2: log2 a = xx dx² + xy dx dy + yy dy² + log2_peak. For float one 32-byte sector of memory.
template <class T>
struct alignas(32) Footprint {
  Quad<T> head;  // x, y, xx, xy
  Quad<T> tail;  // yy, log2_peak, unused, unused
};

// Place of a block, a warp and a lane.
template <class T>
struct Place {
  int64_t tile, camera;
  int x0, y0;  // first pixel of the tile
  int warp, lane;
  int x, y;  // first pixel of the lane; its second is four rows below
  T px, py;  // and the centre of the first
  int begin, end;  // the tile's list
  int64_t pixel[kSlots];
  bool inside[kSlots];

  __device__ __forceinline__ Place(const BlendArgs<T>& a, const int32_t* order) {
    const int columns = (a.width + kTile - 1) / kTile, rows = (a.height + kTile - 1) / kTile;
    tile = order[blockIdx.x];
    camera = tile / (int64_t(columns) * rows);
    const int within = int(tile - camera * columns * rows);
    x0 = within % columns * kTile, y0 = within / columns * kTile;
    warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    x = x0 + quadrant_x() + lane % kQuadrant, y = y0 + quadrant_y() + lane / kQuadrant;
    px = T(x) + T(0.5), py = T(y) + T(0.5);
    begin = min(max(a.tile_offsets[tile], 0), int(a.P));
    end = min(max(a.tile_offsets[tile + 1], begin), int(a.P));
    for (int s = 0; s < kSlots; ++s) {
      inside[s] = x < a.width && y + 4 * s < a.height;
      pixel[s] = (camera * a.height + y + 4 * s) * a.width + x;
    }
  }
  __device__ __forceinline__ int quadrant_x() const { return warp % 2 * kQuadrant; }
  __device__ __forceinline__ int quadrant_y() const { return warp / 2 * kQuadrant; }
  // Bits of this quadrant's four blocks in `hits`, bit 4·row + column of the tile's 4x4 blocks.
  __device__ __forceinline__ int hit_shift() const { return warp / 2 * 8 + warp % 2 * 2; }
};
constexpr unsigned kQuadrantHits = 0x33;  // blocks (0,0), (0,1), (1,0), (1,1) of a quadrant, unshifted

// Entries of the lists. They come from the caller unread: a wrong one gives a wrong image, but stays in bounds.
template <class T>
__device__ __forceinline__ int64_t id_at(const BlendArgs<T>& a, int k) {
  return min(unsigned(a.splat_ids[k]), unsigned(a.C * a.N) - 1u);
}
template <class T>
__device__ __forceinline__ int64_t slot_at(const BlendArgs<T>& a, int k) {
  return min(unsigned(a.slots[k]), unsigned(a.P) - 1u);
}

// Channels first .. first + D - 1 of a row, 0 beyond the last.
template <int D, class T>
__device__ __forceinline__ void load_channels(const T* row, int64_t channels, int first, T* out) {
#pragma unroll
  for (int c = 0; c < D; ++c) out[c] = first + c < channels ? row[first + c] : T(0);
}

// The exponent along a column of pixels. Forward and backward must agree to the last bit on which pixels are above the
// cut-off, hence the explicit order of operations.
template <class T>
struct Column {
  T at_centre, slope, yy, dy;
  __device__ __forceinline__ Column(const Quad<T>& head, T yy_, T log2_peak, T px, T py) {
    const T dx = px - head.x;
    at_centre = multiply_add(head.z * dx, dx, log2_peak);
    slope = head.w * dx;
    yy = yy_;
    dy = py - head.y;
  }
  // log2 of the response `rows` below the first pixel.
  __device__ __forceinline__ T log2_response(int rows) const {
    const T y = rows ? dy + T(rows) : dy;
    return multiply_add(multiply_add(yy, y, slope), y, at_centre);
  }
};

// The quadrants of the tile that the ellipse of the cut-off meets: bit 2·row + column.
template <class T>
__device__ __forceinline__ unsigned quadrants_met(const Footprint<T>& f, int x0, int y0) {
  // in units of log2, and with the sign turned: -xx dx² - xy dx dy - yy dy² <= level
  const T level = T(0.5 * kLog2E) * cutoff_level(f.tail.y);
  const Ellipse<T> e = make_ellipse(-f.head.z, T(-0.5) * f.head.w, -f.tail.x, level);
  constexpr T kSide = T(kQuadrant - 1);  // from the first pixel centre to the last
  const T left = T(x0) + T(0.5) - f.head.x, top = T(y0) + T(0.5) - f.head.y;
  unsigned met = 0;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const T y = top + T(row * kQuadrant);
    T lo, hi;
    const bool meets = ellipse_in_strip(e, y, y + kSide, lo, hi);
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const T x = left + T(column * kQuadrant);
      met |= unsigned(meets && lo <= x + kSide && hi >= x) << (2 * row + column);
    }
  }
  return met;
}

// Inputs of every walk over the lists.
template <class T>
struct Prepared {
  const Footprint<T>* footprints;
  const int32_t* order;
  int64_t tiles;
};
template <class T>
Status prepare(const BlendArgs<T>& a, Context& context, Prepared<T>& p);  // in prepare_cuda.cu

}  // namespace splatrender::cuda
