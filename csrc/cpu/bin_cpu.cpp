// Which splats touch which tiles, front to back.
//
//  1. rows: for each splat and each row of tiles that its ellipse meets, the exact interval of tile columns;
//  2. radix sort of the visible splats by depth, once per camera;
//  3. count: the splats in depth order are cut into one run per thread; pairs per tile and run, and a prefix sum over
//     (tile, run), give every run its place in every tile's list;
//  4. fill: every run writes its pairs. The lists are in depth order whatever the number of runs.
#include <limits>

#include "../math/tile_interval.h"
#include "kernels.h"
#include "splat_lanes.h"
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
struct Span {     // the rows of tiles that a splat's bounding rectangle meets
  uint32_t rows;  // where its Rows begin
  uint16_t first, count;
};

struct Grid {
  int columns, rows;
  int64_t tiles() const { return int64_t(columns) * rows; }
};
template <class T>
Grid grid_of(const BinArgs<T>& a) {
  return {(a.width + kTile - 1) / kTile, (a.height + kTile - 1) / kTile};
}
template <class T>
SR_INLINE Span span_of(const BinArgs<T>& a, const Grid& g, int64_t id) {
  if (!(a.extents[2 * id] > 0)) return {0, 0, 0};
  const auto [first, last] = tile_rows(float(a.means2d[2 * id + 1]), float(a.extents[2 * id + 1]), g.rows);
  return {0, uint16_t(first), uint16_t(last > first ? last - first : 0)};
}

// Tile columns that splats first..first+n-1 meet in each of their rows, and how many tiles each meets in all.
template <class T>
SR_INLINE void find_rows(const BinArgs<T>& a, const Grid& g, int64_t first, int n, const Span* spans, Row* rows,
                         int32_t* counts) {
  using S = Pack<T, lanes_of<T>>;
  int most = 0;  // rows of the splat with the most
  S top(T(0));   // first pixel centre of each splat's first row
  for (int lane = 0; lane < n; ++lane) {
    const Span& s = spans[first + lane];
    most = s.count > most ? s.count : most;
    top.set(lane, T(kTile * s.first) + T(0.5));
  }
  if (!most) return;
  const Vec3<S> q = load_vec3<S>(a.conics, 3, first, n);
  const S level = cutoff_level(log_two(load_column<S>(a.peaks, 1, first, n, 0)));
  const Ellipse<S> e = make_ellipse(q.x, q.y, q.z, level);
  const S x = load_column<S>(a.means2d, 2, first, n, 0);
  const S columns(T(g.columns));
  top = top - load_column<S>(a.means2d, 2, first, n, 1);
  for (int j = 0; j < most; ++j) {  // each lane its own j-th row
    const auto met = tile_columns(e, x, top + S(T(kTile * j)), columns);
    alignas(64) T from_lane[lanes_of<T>], to_lane[lanes_of<T>];
    met.begin.store(from_lane), met.end.store(to_lane);
    for (int lane = 0; lane < n; ++lane) {
      const Span& s = spans[first + lane];
      if (j >= s.count) continue;
      const int b = int(from_lane[lane]), c = int(to_lane[lane]);
      rows[s.rows + j] = {uint16_t(b), uint16_t(c > b ? c : b)};
      counts[first + lane] += c > b ? c - b : 0;
    }
  }
}

// Depth order is no order in memory: prefetch for the splats to come.
constexpr int64_t kFarAhead = 24, kAhead = 12;
SR_INLINE void prefetch(const int32_t* order, int64_t k, int64_t end, const Span* spans, const Row* rows,
                        const int32_t* offsets) {
  if (k + kFarAhead < end) {
    __builtin_prefetch(spans + order[k + kFarAhead]);
    __builtin_prefetch(offsets + order[k + kFarAhead]);
  }
  if (k + kAhead < end) __builtin_prefetch(rows + spans[order[k + kAhead]].rows);
}

template <class F>
SR_INLINE void for_tiles_of(const Span& s, const Row* rows, const Grid& g, const F& body) {
  for (int r = 0; r < s.count; ++r) {
    const Row row = rows[s.rows + r];
    const int64_t base = int64_t(s.first + r) * g.columns;
    for (int t = row.begin; t < row.end; ++t) body(base + t);
  }
}

// The visible splats of one camera in depth order, cut into as many runs as there are threads.
struct Runs {
  int64_t visible, count;
  int64_t begin(int64_t run) const { return visible * run / count; }
};
SR_INLINE Runs runs_of(int64_t visible, int64_t most) {
  const int64_t useful = visible / 512 + 1;
  return {visible, useful < most ? useful : most};
}

// Results of bin_count for bin_fill; everything is in the scratch memory.
struct Found {
  Span* spans;          // [C*N]
  Row* rows;            // one stretch per splat, see Span
  int32_t* order;       // [C,N] ids of the visible splats in depth order
  int64_t* visible;     // [C] how many are visible
  int64_t* places;      // [C, runs_most, tiles] pairs of a run in a tile, then the place of its next pair
  int64_t runs_most;
};

// 1a. The rows of tiles that each splat may meet; returns how many there are in all.
template <class T>
int64_t find_spans(const BinArgs<T>& a, const Grid& g, Span* spans) {
  int64_t total = 0;
  for (int64_t i = 0; i < a.C * a.N; ++i) {
    spans[i] = span_of(a, g, i);
    spans[i].rows = uint32_t(total);
    total += spans[i].count;
  }
  return total;
}

// 1b. The columns of each row, and per splat the number of tiles it meets; returns the number of pairs.
template <class T>
int64_t find_all_rows(const BinArgs<T>& a, const Grid& g, const Found& found, int32_t* counts) {
  const int64_t CN = a.C * a.N;
  std::memset(counts, 0, sizeof(int32_t) * (CN + 1));
  constexpr int64_t kChunk = 2048;
  parallel_for((CN + kChunk - 1) / kChunk, [&](int64_t chunk) {
    const int64_t end = (chunk + 1) * kChunk < CN ? (chunk + 1) * kChunk : CN;
    for (int64_t i = chunk * kChunk; i < end; i += lanes_of<T>)
      find_rows(a, g, i, int(end - i < lanes_of<T> ? end - i : lanes_of<T>), found.spans, found.rows, counts);
  });
  int64_t pairs = 0;
  for (int64_t i = 0; i < CN; ++i) pairs += counts[i];
  return pairs;
}

// 2. Depth order of the splats of each camera that meet a tile.
template <class T>
void sort_by_depth(const BinArgs<T>& a, const int32_t* counts, const Found& found, Scratch& memory) {
  using Pair = KeyId<decltype(depth_key(T(0)))>;
  Pair* keys = memory.get<Pair>(2 * a.N + 1);
  for (int64_t c = 0; c < a.C; ++c) {
    int64_t n = 0;
    for (int64_t i = c * a.N; i < (c + 1) * a.N; ++i)
      if (counts[i]) keys[n++] = {depth_key(a.depths[i]), int32_t(i)};
    const Pair* sorted = radix_sort(keys, keys + a.N, n);
    for (int64_t i = 0; i < n; ++i) found.order[c * a.N + i] = sorted[i].id;
    found.visible[c] = n;
  }
}

// 3. The number of pairs per tile and run, then the place of each run in each tile's list.
template <class T>
void place_runs(const BinArgs<T>& a, const Grid& g, const int32_t* counts, const Found& found) {
  const int64_t tiles = g.tiles();
  int64_t pairs = 0;
  for (int64_t c = 0; c < a.C; ++c) {
    const Runs runs = runs_of(found.visible[c], found.runs_most);
    int64_t* table = found.places + c * found.runs_most * tiles;
    parallel_for(runs.count, [&](int64_t run) {
      int64_t* count = table + run * tiles;
      std::memset(count, 0, sizeof(int64_t) * tiles);
      const int32_t* ids = found.order + c * a.N;
      for (int64_t k = runs.begin(run), end = runs.begin(run + 1); k < end; ++k) {
        prefetch(ids, k, end, found.spans, found.rows, counts);
        for_tiles_of(found.spans[ids[k]], found.rows, g, [&](int64_t tile) { ++count[tile]; });
      }
    });
    for (int64_t t = 0; t < tiles; ++t) {
      a.tile_offsets[c * tiles + t] = int32_t(pairs);
      for (int64_t run = 0; run < runs.count; ++run) {
        const int64_t count = table[run * tiles + t];
        table[run * tiles + t] = pairs;
        pairs += count;
      }
    }
  }
  a.tile_offsets[a.C * tiles] = int32_t(pairs);
}

template <class T>
int64_t bin_count(const BinArgs<T>& a, BinScratch& scratch) {
  const Grid g = grid_of(a);
  const int64_t CN = a.C * a.N;
  Found found{};
  found.spans = scratch.spans.get<Span>(CN + 1);
  const int64_t rows = find_spans(a, g, found.spans);
  if (rows > std::numeric_limits<uint32_t>::max()) return rows;  // more pairs than that: the caller refuses
  found.rows = scratch.rows.get<Row>(rows + 1);
  int32_t* counts = a.splat_offsets;  // counts first, then their prefix sum in place
  const int64_t pairs = find_all_rows(a, g, found, counts);
  if (pairs > std::numeric_limits<int32_t>::max()) return pairs;  // the caller refuses, before it allocates the lists

  found.order = scratch.order.get<int32_t>(CN + 1);
  found.visible = scratch.visible.get<int64_t>(a.C + 1);
  sort_by_depth(a, counts, found, scratch.keys);
  scratch.runs_most = found.runs_most = worker_count();
  found.places = scratch.places.get<int64_t>(a.C * found.runs_most * g.tiles() + 1);
  place_runs(a, g, counts, found);
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
  const int64_t tiles = g.tiles();
  const Span* spans = scratch.spans.get<Span>(0);
  const Row* rows = scratch.rows.get<Row>(0);
  const int32_t* order = scratch.order.get<int32_t>(0);
  const int64_t* visible = scratch.visible.get<int64_t>(0);
  int64_t* places = scratch.places.get<int64_t>(0);
  for (int64_t c = 0; c < a.C; ++c) {
    const Runs runs = runs_of(visible[c], scratch.runs_most);
    parallel_for(runs.count, [&](int64_t run) {
      int64_t* next = places + (c * scratch.runs_most + run) * tiles;
      const int32_t* ids = order + c * a.N;
      for (int64_t k = runs.begin(run), end = runs.begin(run + 1); k < end; ++k) {
        prefetch(ids, k, end, spans, rows, a.splat_offsets);
        const int32_t id = ids[k];
        int32_t slot = a.splat_offsets[id];
        for_tiles_of(spans[id], rows, g, [&](int64_t tile) {
          const int64_t at = next[tile]++;
          a.splat_ids[at] = id;
          a.slots[at] = slot++;
        });
      }
    });
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
