// Which splats touch which tiles, front to back.
//
//  1. count_kernel: how many tiles each splat's ellipse meets, and its depth as a sortable key;
//  2. a prefix sum numbers the pairs by splat: these are the slots;
//  3. one sort of the splats by depth, over all cameras at once, stable, so that equal depths keep their numbers'
//  order;
//  4. a second prefix sum, in depth order, gives the place where each splat writes its pairs;
//  5. emit_kernel: the pairs in depth order, keyed by tile alone (cameras count on); a stable sort by the few bits of a
//     tile's number then leaves every tile's list in depth order;
//  6. list_kernel: unpacks the lists, and finds where each tile's begins.
//
// Sorting splats by depth once and pairs by tile only moves 12 bytes a pair two or three times; sorting pairs by tile
// and depth at once would move them six times. The host reads the number of pairs back between 4 and 5, to size the
// lists: the one hidden synchronisation of the library.
//
// A thread goes through the tiles of its own splat; where these are many, as those of a splat that fills the image,
// the whole warp does: with rows of tiles side by side to count, and with the tiles of a row to emit. The pairs and
// their order are the same.
//
// count_kernel and emit_kernel must find the same tiles, so this file is compiled without contraction of a·b + c.
#include <type_traits>

#include "../math/tile_interval.h"
#include "prims.h"
#include "runtime.h"
#include "stages_cuda.h"
#include "warp.h"

namespace splatrender::cuda {

constexpr int kRowsOfThread = 8, kTilesOfThread = 64;  // at most that one thread counts, and emits

template <class T>
using DepthKey = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// Depths are positive, so their bits, read as an integer, sort as they do.
__device__ __forceinline__ uint32_t depth_key(float z) { return __float_as_uint(z); }
__device__ __forceinline__ uint64_t depth_key(double z) { return uint64_t(__double_as_longlong(z)); }

struct Grid {
  int columns, rows;
  int64_t tiles;  // of one camera
};
template <class T>
__device__ __forceinline__ Grid grid_of(const BinArgs<T>& a) {
  const int columns = (a.width + kTile - 1) / kTile, rows = (a.height + kTile - 1) / kTile;
  return {columns, rows, int64_t(columns) * rows};
}

// The tiles that one splat meets: row by row, by the exact x-interval of its ellipse in each.
template <class T>
struct SplatTiles {
  int first = 0, last = 0;  // rows of tiles of its bounding rectangle
  Ellipse<T> ellipse{};
  T x = 0, y = 0, columns = 0;

  SplatTiles() = default;
  __device__ __forceinline__ SplatTiles(const BinArgs<T>& a, const Grid& grid, int64_t id) {
    if (!(a.extents[2 * id] > T(0))) return;
    x = a.means2d[2 * id], y = a.means2d[2 * id + 1], columns = T(grid.columns);
    const TileRows rows = tile_rows(float(y), float(a.extents[2 * id + 1]), grid.rows);
    first = rows.first, last = rows.last;
    const T* q = a.conics + 3 * id;
    ellipse = make_ellipse(q[0], q[1], q[2], cutoff_level(log_two(a.peaks[id])));
  }
  struct Columns {
    int from, to;
    __device__ __forceinline__ int count() const { return to > from ? to - from : 0; }
  };
  __device__ __forceinline__ Columns of_row(int row) const {
    const TileColumns<T> met = tile_columns(ellipse, x, T(kTile * row) + T(0.5) - y, columns);
    return {int(met.begin), int(met.end)};
  }
};

// One thread per splat and camera, and one more.
template <class T>
__global__ void __launch_bounds__(256) count_kernel(BinArgs<T> a, int32_t* counts, DepthKey<T>* keys, int32_t* ids) {
  const int64_t i = item(), splats = a.C * a.N;
  const int lane = threadIdx.x % kWarp;
  const Grid grid = grid_of(a);
  int32_t count = 0;
  bool many = false;
  if (i < splats) {
    const SplatTiles<T> tiles(a, grid, i);
    many = tiles.last - tiles.first > kRowsOfThread;
    if (!many)
      for (int row = tiles.first; row < tiles.last; ++row) count += tiles.of_row(row).count();
  }
  for (unsigned todo = __ballot_sync(kAllLanes, many); todo; todo &= todo - 1) {
    const int owner = __ffs(int(todo)) - 1;
    const SplatTiles<T> tiles(a, grid, __shfl_sync(kAllLanes, i, owner));
    int32_t part = 0;
    for (int row = tiles.first + lane; row < tiles.last; row += kWarp) part += tiles.of_row(row).count();
    part = warp_sum(part);
    if (lane == owner) count = part;
  }
  if (i > splats) return;
  counts[i] = count;  // 0 for the one more: the prefix sum's last entry is the number of pairs
  if (i == splats) return;
  keys[i] = count ? depth_key(a.depths[i]) : ~DepthKey<T>(0);  // the others last
  ids[i] = int32_t(i);
}

// One thread per splat and camera, and one more.
template <class T>
__global__ void __launch_bounds__(256)
    order_kernel(BinArgs<T> a, const int64_t* offsets, const int32_t* counts, const int32_t* order, int32_t* by_depth) {
  const int64_t i = item();
  if (i > a.C * a.N) return;
  a.splat_offsets[i] = int32_t(offsets[i]);  // meaningless if the sum is too large, which the host then refuses
  if (i < a.C * a.N) by_depth[i] = counts[order[i]];
}

// One splat as emit_kernel has it: the place of its pairs, and their slots.
struct Emission {
  int64_t place = 0;
  int32_t id = 0, slot = 0, end = 0;

  // Writes the k-th pair. The slots suffice as long as both kernels find the same tiles.
  __device__ __forceinline__ void write(int k, int64_t tile, uint32_t* tiles, uint64_t* pairs) const {
    if (slot + k >= end) return;
    tiles[place + k] = uint32_t(tile);
    pairs[place + k] = uint64_t(uint32_t(id)) << 32 | uint32_t(slot + k);
  }
  __device__ __forceinline__ Emission of_lane(int lane) const {
    return {__shfl_sync(kAllLanes, place, lane), __shfl_sync(kAllLanes, id, lane), __shfl_sync(kAllLanes, slot, lane),
            __shfl_sync(kAllLanes, end, lane)};
  }
};

// The warp emits one splat: its lanes find 32 rows of tiles, then write the tiles of one row after the other.
template <class T>
__device__ __forceinline__ void emit_by_warp(const BinArgs<T>& a, const Grid& grid, const Emission& splat,
                                             uint32_t* tiles, uint64_t* pairs) {
  const int lane = threadIdx.x % kWarp;
  const SplatTiles<T> met(a, grid, splat.id);
  const int64_t base = splat.id / a.N * grid.tiles;
  int done = 0;
  for (int top = met.first; top < met.last; top += kWarp) {
    const int row = top + lane;
    const auto columns = row < met.last ? met.of_row(row) : typename SplatTiles<T>::Columns{0, 0};
    const int upto = done + warp_prefix_sum(columns.count()), rows = min(kWarp, met.last - top);
    for (int k = 0; k < rows; ++k) {
      const int from = __shfl_sync(kAllLanes, columns.from, k), count = __shfl_sync(kAllLanes, columns.count(), k);
      const int begin = __shfl_sync(kAllLanes, upto, k) - count;
      const int64_t tile = base + int64_t(top + k) * grid.columns + from;
      for (int j = lane; j < count; j += kWarp) splat.write(begin + j, tile + j, tiles, pairs);
    }
    done = __shfl_sync(kAllLanes, upto, kWarp - 1);
  }
}

// One thread per splat and camera, in depth order.
template <class T>
__global__ void __launch_bounds__(256)
    emit_kernel(BinArgs<T> a, const int32_t* order, const int64_t* places, uint32_t* tiles, uint64_t* pairs) {
  const int64_t r = item();
  const Grid grid = grid_of(a);
  Emission splat;
  if (r < a.C * a.N) {
    const int32_t id = order[r];
    splat = {places[r], id, a.splat_offsets[id], a.splat_offsets[id + 1]};
  }
  const bool many = splat.end - splat.slot > kTilesOfThread;
  if (splat.end > splat.slot && !many) {
    const SplatTiles<T> met(a, grid, splat.id);
    int64_t tile = splat.id / a.N * grid.tiles + int64_t(met.first) * grid.columns;
    int k = 0;
    for (int row = met.first; row < met.last; ++row, tile += grid.columns) {
      const auto columns = met.of_row(row);
      for (int column = columns.from; column < columns.to; ++column) splat.write(k++, tile + column, tiles, pairs);
    }
  }
  for (unsigned todo = __ballot_sync(kAllLanes, many); todo; todo &= todo - 1)
    emit_by_warp(a, grid, splat.of_lane(__ffs(int(todo)) - 1), tiles, pairs);
}

// One thread per pair, in the order of the lists.
template <class T>
__global__ void __launch_bounds__(256)
    list_kernel(BinArgs<T> a, int64_t count, const uint32_t* tiles, const uint64_t* pairs) {
  const int64_t k = item();
  if (k >= count) return;
  a.splat_ids[k] = int32_t(pairs[k] >> 32);
  a.slots[k] = int32_t(uint32_t(pairs[k]));
  // The lists of the tiles after the previous pair's, up to this pair's, begin here; those after the last one's end.
  const int64_t from = k == 0 ? 0 : int64_t(tiles[k - 1]) + 1, to = tiles[k];
  for (int64_t t = from; t <= to; ++t) a.tile_offsets[t] = int32_t(k);
  if (k == count - 1)
    for (int64_t t = to + 1; t <= a.C * grid_of(a).tiles; ++t) a.tile_offsets[t] = int32_t(count);
}

template <class T>
Status bin_count(const BinArgs<T>& a, Context& context, BinState& state) {
  const int64_t CN = a.C * a.N;
  int32_t* counts = context.scratch<int32_t>(CN + 1);
  int64_t* offsets = context.scratch<int64_t>(CN + 1);
  DepthKey<T>* keys = context.scratch<DepthKey<T>>(CN);
  DepthKey<T>* sorted = context.scratch<DepthKey<T>>(CN);
  int32_t* ids = context.scratch<int32_t>(CN);
  int32_t* order = context.scratch<int32_t>(CN);
  int32_t* by_depth = context.scratch<int32_t>(CN);
  int64_t* places = context.scratch<int64_t>(CN);
  SR_TRY(launch_over("count_kernel", count_kernel<T>, CN + 1, context.stream, a, counts, keys, ids));
  SR_TRY(exclusive_sum(counts, offsets, CN + 1, context));
  if (CN > 0) SR_TRY(sort_pairs(keys, sorted, ids, order, CN, int(8 * sizeof(T)), context));
  SR_TRY(launch_over("order_kernel", order_kernel<T>, CN + 1, context.stream, a, static_cast<const int64_t*>(offsets),
                     static_cast<const int32_t*>(counts), static_cast<const int32_t*>(order), by_depth));
  if (CN > 0) SR_TRY(exclusive_sum(by_depth, places, CN, context));
  state.order = order, state.places = places;
  return read_back(&state.pairs, offsets + CN, sizeof(int64_t), context.stream);
}

template <class T>
Status bin_fill(const BinArgs<T>& a, Context& context, const BinState& state) {
  const int64_t tiles = a.C * divide_up(a.width, kTile) * divide_up(a.height, kTile);
  if (state.pairs == 0) return fill_zero(a.tile_offsets, (tiles + 1) * int64_t(sizeof(int32_t)), context.stream);
  uint32_t* keys = context.scratch<uint32_t>(state.pairs);
  uint32_t* sorted_keys = context.scratch<uint32_t>(state.pairs);
  uint64_t* pairs = context.scratch<uint64_t>(state.pairs);
  uint64_t* sorted_pairs = context.scratch<uint64_t>(state.pairs);
  SR_TRY(
      launch_over("emit_kernel", emit_kernel<T>, a.C * a.N, context.stream, a, state.order, state.places, keys, pairs));
  int bits = 1;
  while (int64_t(1) << bits < tiles) ++bits;
  SR_TRY(sort_pairs(keys, sorted_keys, pairs, sorted_pairs, state.pairs, bits, context));
  return launch_over("list_kernel", list_kernel<T>, state.pairs, context.stream, a, state.pairs,
                     static_cast<const uint32_t*>(sorted_keys), static_cast<const uint64_t*>(sorted_pairs));
}

template Status bin_count(const BinArgs<float>&, Context&, BinState&);
template Status bin_count(const BinArgs<double>&, Context&, BinState&);
template Status bin_fill(const BinArgs<float>&, Context&, const BinState&);
template Status bin_fill(const BinArgs<double>&, Context&, const BinState&);

}  // namespace splatrender::cuda
