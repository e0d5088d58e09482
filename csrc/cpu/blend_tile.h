// Common parts of forward and backward blending: the packed splat record, the pixels of a tile, and the walk over a
// tile's list that finds, for every splat, the 4x4 blocks of pixels it can reach.
//
// A tile is 16 blocks of 4x4 pixels. A block is one AVX-512 register of floats (or two AVX2, four SSE/NEON ones), so
// a small round splat wastes few lanes.
//
// The exponent of a splat, in units of log2, is a quadratic in the pixel's offset (lx, ly) from its block's centre:
//   log2 a = [xx lx² + xy lx ly + yy ly² + log2 peak]  +  e00 + lx e10 + ly e01
// The bracket is the same for all blocks; e00, e10, e01 are made for the 16 blocks at once. Two fused multiply-adds
// a pixel remain.
#pragma once
#include "../math/ellipse.h"
#include "../math/response.h"
#include "kernels.h"
#include "splat_lanes.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

constexpr int kBlock = 4;                                    // pixels along the side of a block
constexpr int kBlocks = (kTile / kBlock) * (kTile / kBlock);  // 16
constexpr int kPixels = kBlock * kBlock;                     // 16 lanes of a block

// One splat as the inner loops read it; for float and up to 4 channels it fills one cache line.
template <class T>
struct alignas(64) Record {
  T x, y;
  T xx, xy, yy;    // -½ log2(e) conic, the off-diagonal doubled: log2 G = xx dx² + xy dx dy + yy dy²
  T log2_peak;
  Ellipse<T> ellipse;  // where the response reaches the cut-off
  T color[4];
};
constexpr int kRecordNumbers = 16;
static_assert(sizeof(Record<float>) == 64 && sizeof(Record<double>) == 128, "a record is 16 numbers without gaps");

// Records of splats first..first+n-1, a pack at a time. Those of culled splats are never read.
template <class T>
inline void make_records(const BlendArgs<T>& a, int64_t first, int n, Record<T>* records) {
  using S = Pack<T, lanes_of<T>>;
  alignas(64) T fields[kRecordNumbers][lanes_of<T>];
  const Vec3<S> q = load_vec3<S>(a.conics, 3, first, n);
  const S log2_peak = log_two(load_column<S>(a.peaks, 1, first, n, 0));
  const Ellipse<S> e = make_ellipse(q.x, q.y, q.z, cutoff_level(log2_peak));
  const S k(T(-0.5 * kLog2E));
  const S numbers[12] = {
      load_column<S>(a.means2d, 2, first, n, 0),
      load_column<S>(a.means2d, 2, first, n, 1),
      k * q.x,
      k * (q.y + q.y),
      k * q.z,
      log2_peak,
      e.inverse_xx,
      e.xy_over_xx,
      e.scale,
      e.shrink,
      e.y_max,
      e.y_right};
  for (int f = 0; f < 12; ++f) numbers[f].store(fields[f]);
  const int channels = a.D <= 4 ? int(a.D) : 0;
  for (int lane = 0; lane < n; ++lane) {
    T* r = &records[first + lane].x;
    for (int f = 0; f < 12; ++f) r[f] = fields[f][lane];
    for (int c = 0; c < channels; ++c) r[12 + c] = a.emission[(first + lane) * a.D + c];
  }
}

template <class T>
Record<T>* make_records(const BlendArgs<T>& a, Scratch& scratch) {
  Record<T>* records = scratch.get<Record<T>>(a.C * a.N);
  constexpr int64_t kChunk = 4096;
  parallel_for((a.C * a.N + kChunk - 1) / kChunk, [&](int64_t chunk) {
    const int64_t end = (chunk + 1) * kChunk < a.C * a.N ? (chunk + 1) * kChunk : a.C * a.N;
    for (int64_t i = chunk * kChunk; i < end; i += lanes_of<T>)
      make_records(a, i, int(end - i < lanes_of<T> ? end - i : lanes_of<T>), records);
  });
  return records;
}

// The tiles of all cameras, those with the longest lists first, so that no thread is left with a heavy one at the end.
template <class T>
int32_t* tiles_by_weight(const BlendArgs<T>& a, int64_t tiles, Scratch& scratch) {
  constexpr int kClasses = 33;
  int32_t* order = scratch.get<int32_t>(tiles);
  int64_t start[kClasses + 1] = {};
  const auto weight = [&](int64_t t) {  // 32 - bit length: heavier comes first
    const uint32_t n = uint32_t(a.tile_offsets[t + 1] - a.tile_offsets[t]);
    return n ? __builtin_clz(n) : 32;
  };
  for (int64_t t = 0; t < tiles; ++t) ++start[weight(t) + 1];
  for (int k = 0; k < kClasses; ++k) start[k + 1] += start[k];
  for (int64_t t = 0; t < tiles; ++t) order[start[weight(t)]++] = int32_t(t);
  return order;
}

struct TilePlace {
  int64_t camera;
  int x0, y0;       // first pixel
  int64_t first_pixel;  // index of pixel (x0, y0) among all cameras' pixels
};
template <class T>
SR_INLINE TilePlace place_of(const BlendArgs<T>& a, int64_t tile) {
  const int columns = (a.width + kTile - 1) / kTile, rows = (a.height + kTile - 1) / kTile;
  const int64_t camera = tile / (int64_t(columns) * rows), t = tile % (int64_t(columns) * rows);
  const int x0 = int(t % columns) * kTile, y0 = int(t / columns) * kTile;
  return {camera, x0, y0, (camera * a.height + y0) * a.width + x0};
}

// Calls pixel(block * 16 + lane, offset of the pixel from first_pixel) for the pixels inside the image.
template <class T, class F>
SR_INLINE void for_pixels(const BlendArgs<T>& a, const TilePlace& p, const F& pixel) {
  const int w = a.width - p.x0 < kTile ? a.width - p.x0 : kTile, h = a.height - p.y0 < kTile ? a.height - p.y0 : kTile;
  for (int y = 0; y < h; ++y)
    for (int x = 0; x < w; ++x)
      pixel((y / kBlock * 4 + x / kBlock) * kPixels + y % kBlock * kBlock + x % kBlock, int64_t(y) * a.width + x);
}

// Offsets of a block's pixels from its centre, and of block centres from the tile's first pixel centre.
template <class T>
struct Lattice {
  alignas(64) T lx[kPixels], ly[kPixels];
  alignas(64) T bx[kBlocks], by[kBlocks];
};
template <class T>
SR_INLINE Lattice<T> make_lattice() {
  Lattice<T> l;
  for (int i = 0; i < 16; ++i) {
    l.lx[i] = T(i % 4) - T(1.5), l.ly[i] = T(i / 4) - T(1.5);
    l.bx[i] = T(4 * (i % 4)) + T(2), l.by[i] = T(4 * (i / 4)) + T(2);
  }
  return l;
}

// The expansion of one splat at the 16 blocks of a tile, and the set of blocks it can reach.
template <class T>
struct BlockExpansion {
  alignas(64) T e00[kBlocks], e10[kBlocks], e01[kBlocks];
};
template <class T>
SR_INLINE uint32_t expand(const Record<T>& r, const Lattice<T>& l, T x0, T y0, BlockExpansion<T>& out) {
  using S = Pack<T, lanes_of<T>>;
  const S ox(x0 - r.x), oy(y0 - r.y), xx(r.xx), xy(r.xy), yy(r.yy), half(T(1.5)), two(T(2));
  uint32_t reach = 0;
  for (int i = 0; i < kBlocks; i += lanes_of<T>) {
    const S dx = S::load(l.bx + i) + ox, dy = S::load(l.by + i) + oy;
    S lo, hi;
    const auto meets = ellipse_in_strip(r.ellipse, dy - half, dy + half, lo, hi);
    reach |= bits(meets & (lo <= dx + half) & (hi >= dx - half)) << i;
    const S ax = xx * dx, cy = yy * dy, bx = xy * dx, by = xy * dy;
    (ax * dx + (by * dx + cy * dy)).store(out.e00 + i);
    (two * ax + by).store(out.e10 + i);
    (two * cy + bx).store(out.e01 + i);
  }
  return reach;
}

// The entries j < n with bit `block` in reach[j], in order, into list; returns how many. reach and list are padded
// to a multiple of 16.
SR_INLINE int list_of_block(const uint32_t* reach, int n, int block, int32_t* list) {
  int count = 0;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  const __m512i bit = _mm512_set1_epi32(1 << block), sixteen = _mm512_set1_epi32(16);
  __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int j = 0; j < n; j += 16, index = _mm512_add_epi32(index, sixteen)) {
    const __mmask16 in = _mm512_test_epi32_mask(_mm512_loadu_si512(reach + j), bit);
    _mm512_storeu_si512(list + count, _mm512_maskz_compress_epi32(in, index));
    count += __builtin_popcount(in);
  }
#else
  for (int j = 0; j < n; ++j) {
    list[count] = j;
    count += int(reach[j] >> block & 1u);
  }
#endif
  return count;
}

// log2 of the response at the pixels (lx, ly) of block b. Forward and backward must agree to the last bit on which
// pixels are above the cut-off, hence the fixed order of operations.
template <class S, class T>
SR_INLINE S bracket_of(const Record<T>& r, S lx, S ly) {
  return multiply_add(multiply_add(S(r.xx), lx, S(r.xy) * ly), lx, multiply_add(S(r.yy) * ly, ly, S(r.log2_peak)));
}
template <class S, class T>
SR_INLINE S log2_response(const BlockExpansion<T>& e, int b, S bracket, S lx, S ly) {
  return multiply_add(ly, S(e.e01[b]), multiply_add(lx, S(e.e10[b]), bracket + S(e.e00[b])));
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
