// Which splats touch which tiles, front to back.
//
//  1. radix sort of the visible splats by depth, once per camera;
//  2. count: for each splat in depth order and each row of tiles that its ellipse meets, the exact interval of tile
//     columns; pairs per splat and, for each chunk of splats, per tile;
//  3. a prefix sum over (tile, chunk) gives every chunk its place in every tile's list, so that
//  4. fill writes the lists in parallel and stably: the result never depends on the number of threads.
#include <limits>

#include "../math/ellipse.h"
#include "kernels.h"
#include "stage_table.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {
namespace {

// Depths are positive, so their bits, read as an integer, sort as they do.
SR_INLINE uint32_t depth_key(float z) {
  uint32_t k;
  std::memcpy(&k, &z, 4);
  return k;
}
SR_INLINE uint64_t depth_key(double z) {
  uint64_t k;
  std::memcpy(&k, &z, 8);
  return k;
}

template <class K>
struct KeyId {
  K key;
  int32_t id;
};

// Least-significant-digit radix sort, stable; digits on which all keys agree are skipped. Returns a or b.
template <class K>
KeyId<K>* radix_sort(KeyId<K>* a, KeyId<K>* b, int64_t n) {
  constexpr int kBits = 11, kBuckets = 1 << kBits;
  for (int shift = 0; shift < int(sizeof(K)) * 8; shift += kBits) {
    int64_t count[kBuckets] = {};
    for (int64_t i = 0; i < n; ++i) ++count[(a[i].key >> shift) & (kBuckets - 1)];
    if (n && count[(a[0].key >> shift) & (kBuckets - 1)] == n) continue;
    int64_t sum = 0;
    for (int k = 0; k < kBuckets; ++k) {
      const int64_t c = count[k];
      count[k] = sum;
      sum += c;
    }
    for (int64_t i = 0; i < n; ++i) b[count[(a[i].key >> shift) & (kBuckets - 1)]++] = a[i];
    KeyId<K>* t = a;
    a = b;
    b = t;
  }
  return a;
}

struct Row {  // tile columns [begin, end) of one row of tiles
  uint16_t begin, end;
};

struct Grid {
  int columns, rows;
  int64_t tiles() const { return int64_t(columns) * rows; }
};
template <class T>
Grid grid_of(const BinArgs<T>& a) {
  return {(a.width + kTile - 1) / kTile, (a.height + kTile - 1) / kTile};
}
// Rows of tiles whose pixel centres the bounding rectangle may hold.
template <class T>
SR_INLINE void row_range(const BinArgs<T>& a, const Grid& g, int64_t id, int& r0, int& r1) {
  const float y = float(a.means2d[2 * id + 1]), e = float(a.extents[2 * id + 1]) * 1.001f + 0.01f;
  const float lo = (y - e) / kTile, hi = (y + e) / kTile;
  r0 = lo <= 0 ? 0 : (lo >= g.rows ? g.rows : int(lo));
  r1 = hi < 0 ? 0 : (hi >= g.rows ? g.rows : int(hi) + 1);
}

constexpr int64_t kMaxChunks = 64;
SR_INLINE int64_t chunk_size(int64_t visible) {
  const int64_t s = (visible + kMaxChunks - 1) / kMaxChunks;
  return s < 2048 ? 2048 : s;
}
SR_INLINE int64_t chunks_of(int64_t visible) {
  const int64_t s = chunk_size(visible);
  return (visible + s - 1) / s;
}

// Tile columns of every row that splat `id` spans.
template <class T>
SR_INLINE void splat_rows(const BinArgs<T>& a, const Grid& g, int64_t id, Row* rows) {
  int r0, r1;
  row_range(a, g, id, r0, r1);
  const T* q = a.conics + 3 * id;
  const T level = T(2) * std::log(a.peaks[id] / T(kCutoff)) * T(1 + kLevelSlack) + T(kLevelSlack);
  const Ellipse<T> e = make_ellipse<T>(q[0], q[1], q[2], level);
  const T x = a.means2d[2 * id], y = a.means2d[2 * id + 1];
  for (int r = r0; r < r1; ++r) {
    T lo, hi;
    Row row{0, 0};
    if (ellipse_in_strip(e, T(kTile * r) + T(0.5) - y, T(kTile * r) + T(kTile - 0.5) - y, lo, hi)) {
      // first tile whose last pixel centre is not left of the interval, last whose first is not right of it
      const T first = std::ceil((x + lo - T(kTile - 0.5)) / kTile), last = std::floor((x + hi - T(0.5)) / kTile);
      if (first < g.columns && last >= 0) {
        const int begin = first <= 0 ? 0 : int(first), end = last >= g.columns - 1 ? g.columns : int(last) + 1;
        if (begin < end) row = {uint16_t(begin), uint16_t(end)};
      }
    }
    rows[r - r0] = row;
  }
}

template <class T>
int64_t bin_count(const BinArgs<T>& a, BinScratch& scratch) {
  using Key = decltype(depth_key(T(0)));
  using Pair = KeyId<Key>;
  const Grid g = grid_of(a);
  const int64_t tiles = g.tiles(), CN = a.C * a.N;
  int32_t* order = scratch.order.get<int32_t>(CN + a.C + 1);  // splats by depth, per camera; then visible counts
  int32_t* visible_of = order + CN;
  Pair* keys = scratch.keys.get<Pair>(2 * a.N);
  int64_t* row_offsets = scratch.row_offsets.get<int64_t>(CN + 1);  // by rank
  int64_t rows_total = 0;
  int64_t chunks_total = 0;
  for (int64_t c = 0; c < a.C; ++c) {
    int64_t n = 0;
    for (int64_t i = c * a.N; i < (c + 1) * a.N; ++i)
      if (a.extents[2 * i] > 0) keys[n++] = {depth_key(a.depths[i]), int32_t(i)};
    const Pair* sorted = radix_sort(keys, keys + a.N, n);
    visible_of[c] = int32_t(n);
    chunks_total += chunks_of(n);
    for (int64_t i = 0; i < n; ++i) {
      const int32_t id = sorted[i].id;
      order[c * a.N + i] = id;
      int r0, r1;
      row_range(a, g, id, r0, r1);
      row_offsets[c * a.N + i] = rows_total;
      rows_total += r1 > r0 ? r1 - r0 : 0;
    }
  }
  Row* rows = scratch.rows.get<Row>(rows_total + 1);
  int64_t* histogram = scratch.histogram.get<int64_t>(chunks_total * tiles + 1);
  int32_t* counts = a.splat_offsets;  // counts first, then their prefix sum in place
  std::memset(counts, 0, sizeof(int32_t) * (CN + 1));

  int64_t base = 0, pairs = 0;
  for (int64_t c = 0; c < a.C; ++c) {
    const int64_t n = visible_of[c], size = chunk_size(n), chunks = chunks_of(n);
    parallel_for(chunks, [&](int64_t chunk) {
      int64_t* h = histogram + (base + chunk) * tiles;
      std::memset(h, 0, sizeof(int64_t) * tiles);
      const int64_t end = (chunk + 1) * size < n ? (chunk + 1) * size : n;
      for (int64_t rank = chunk * size; rank < end; ++rank) {
        const int64_t id = order[c * a.N + rank];
        Row* row = rows + row_offsets[c * a.N + rank];
        splat_rows(a, g, id, row);
        int r0, r1;
        row_range(a, g, id, r0, r1);
        int32_t count = 0;
        for (int r = r0; r < r1; ++r, ++row) {
          for (int t = row->begin; t < row->end; ++t) ++h[int64_t(r) * g.columns + t];
          count += row->end - row->begin;
        }
        counts[id] = count;
      }
    });
    for (int64_t t = 0; t < tiles; ++t) {
      if (pairs <= std::numeric_limits<int32_t>::max()) a.tile_offsets[c * tiles + t] = int32_t(pairs);
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        int64_t& h = histogram[(base + chunk) * tiles + t];
        const int64_t count = h;
        h = pairs;
        pairs += count;
      }
    }
    base += chunks;
  }
  if (pairs > std::numeric_limits<int32_t>::max()) return pairs;  // the caller refuses
  a.tile_offsets[a.C * tiles] = int32_t(pairs);
  int32_t sum = 0;
  for (int64_t i = 0; i <= CN; ++i) {
    const int32_t count = counts[i];
    counts[i] = sum;
    sum += count;
  }
  return pairs;
}

template <class T>
void bin_fill(const BinArgs<T>& a, BinScratch& scratch) {
  const Grid g = grid_of(a);
  const int64_t tiles = g.tiles(), CN = a.C * a.N;
  const int32_t* order = scratch.order.get<int32_t>(0);
  const int32_t* visible_of = order + CN;
  const int64_t* row_offsets = scratch.row_offsets.get<int64_t>(0);
  const Row* rows = scratch.rows.get<Row>(0);
  int64_t* histogram = scratch.histogram.get<int64_t>(0);
  int64_t base = 0;
  for (int64_t c = 0; c < a.C; ++c) {
    const int64_t n = visible_of[c], size = chunk_size(n), chunks = chunks_of(n);
    parallel_for(chunks, [&](int64_t chunk) {
      int64_t* next = histogram + (base + chunk) * tiles;
      const int64_t end = (chunk + 1) * size < n ? (chunk + 1) * size : n;
      for (int64_t rank = chunk * size; rank < end; ++rank) {
        const int32_t id = order[c * a.N + rank];
        const Row* row = rows + row_offsets[c * a.N + rank];
        int r0, r1;
        row_range(a, g, id, r0, r1);
        int32_t slot = a.splat_offsets[id];
        for (int r = r0; r < r1; ++r, ++row)
          for (int t = row->begin; t < row->end; ++t) {
            const int64_t at = next[int64_t(r) * g.columns + t]++;
            a.splat_ids[at] = id;
            a.slots[at] = slot++;
          }
      }
    });
    base += chunks;
  }
}

}  // namespace

template <class T>
void fill_bin(Stages<T>& s) {
  s.bin_count = bin_count<T>;
  s.bin_fill = bin_fill<T>;
}
template void fill_bin<float>(Stages<float>&);
template void fill_bin<double>(Stages<double>&);

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
