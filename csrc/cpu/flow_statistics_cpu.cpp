// Changes of the error by births and deaths: a walk over the tile lists that hold splats and probes in one depth order.
// The formulas are in math/flow_statistics.h.
//
// A tile is blended front to back first, for the residual, and then walked back to front as blend_backward does. A
// pixel is finished here once it would be opaque without any one of its splats: a removal shows what is behind it.
#include "../math/flow_statistics.h"
#include "blend_tile.h"
#include "stage_table.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {
namespace {

constexpr int64_t kPlane = kBlocks * kPixels;
// Size of the state of a tile, in planes of 256: transmittance, reach of a pixel in the list, light from behind,
// residual, and in the walk forward only the smallest 1 - α of a pixel.
constexpr int64_t kState = (2 + 2 * kPhotoChannels + 1) * kPlane;

template <class T>
struct FlowScratch {
  Scratch records, removals, insertions, written, order;
};
template <class T>
FlowScratch<T>& flow_scratch() {
  static thread_local FlowScratch<T> s;
  return s;
}

// Places of the sums of a pair: one number for a splat, `stride` for a probe.
template <class T>
struct FlowSlots {
  T *removals, *insertions;
  uint8_t* written;
  int64_t stride;
};

template <class T>
struct FlowTile {
  const FlowArgs<T>& f;
  const Record<T>* records;
  TilePlace place;
  int64_t begin, end, first_probe;  // first_probe: row of the camera's first probe
  uint16_t* hits;  // [end-begin] blocks that an entry changes, or would
  T *Ts, *last, *behind, *residual, *least;

  FlowTile(const FlowArgs<T>& f_, const Record<T>* records_, int64_t tile, T* state, uint16_t* hits_)
      : f(f_),
        records(records_),
        place(place_of(f_.list, tile)),
        begin(f_.list.tile_offsets[tile]),
        end(f_.list.tile_offsets[tile + 1]),
        first_probe((place.camera + 1) * f_.list.N - f_.probes),
        hits(hits_),
        Ts(state),
        last(state + kPlane),
        behind(state + 2 * kPlane),
        residual(behind + kPhotoChannels * kPlane),
        least(residual + kPhotoChannels * kPlane) {}

  bool is_probe(int64_t id) const { return id >= first_probe; }
  T photo_at(int64_t pixel, int c) const {
    return f.photos ? f.photos[3 * pixel + c] : T(f.photo_bytes[3 * pixel + c]) * T(1.0 / 255);
  }
  bool keeps(int64_t pixel) const { return !f.masks || f.masks[pixel]; }
};

// Fills everything but `residual`; `behind` is the radiance without background until `turn`.
template <Response R, class T>
void walk_forward(FlowTile<T>& t, const Lattice<T>& lattice) {
  using S = Pack<T, lanes_of<T>>;
  constexpr int L = lanes_of<T>;
  const auto& a = t.f.list;
  for (int64_t i = 0; i < kState; ++i) t.Ts[i] = 0;
  uint32_t alive = 0;
  for_pixels(a, t.place, [&](int p, int64_t offset) {
    if (!t.keeps(t.place.first_pixel + offset)) return;
    t.Ts[p] = t.least[p] = 1, t.last[p] = T(t.end - t.begin), alive |= 1u << (p / kPixels);
  });
  const S cutoff{T(kLog2Cutoff)}, opaque{T(kTransmittanceMin)};
  BlockExpansion<T> block;
  int64_t k = t.begin;
  for (; k < t.end && alive; ++k) {
    if (k + 8 < t.end) __builtin_prefetch(t.records + a.splat_ids[k + 8]);
    const int64_t id = a.splat_ids[k];
    const Record<T>& r = t.records[id];
    const uint32_t reach = expand(r, lattice, T(t.place.x0), T(t.place.y0), block) & alive;
    if (t.is_probe(id)) {
      t.hits[k - t.begin] = uint16_t(reach);
      continue;
    }
    uint32_t hit = 0, done = 0;
    for (int v = 0; v < kPixels; v += L) {
      const S lx = S::load(lattice.lx + v), ly = S::load(lattice.ly + v), bracket = bracket_of(r, lx, ly);
      for (uint32_t todo = reach; todo; todo &= todo - 1) {
        const int b = __builtin_ctz(todo), at = b * kPixels + v;
        const S e = log2_response(block, b, bracket, lx, ly), front = S::load(t.Ts + at), least = S::load(t.least + at);
        const auto ok = (front > opaque * least) & (e >= cutoff);
        if (!any(ok)) continue;
        hit |= 1u << b;
        const Opacity<S> o = opacity_of<R>(power_of_two(e));
        const S w = mask_or_zero(ok, o.alpha * front), Tr = select(ok, o.passes * front, front);
        const S lower = select(ok, smin(o.passes, least), least);
        Tr.store(t.Ts + at), lower.store(t.least + at);
        for (int c = 0; c < kPhotoChannels; ++c)
          (S::load(t.behind + c * kPlane + at) + w * S(r.color[c])).store(t.behind + c * kPlane + at);
        const auto full = ok & (Tr <= opaque * lower);
        if (!any(full)) continue;
        select(full, S(T(k + 1 - t.begin)), S::load(t.last + at)).store(t.last + at);
        done |= 1u << b;
      }
    }
    t.hits[k - t.begin] = uint16_t(hit);
    for (; done; done &= done - 1) {  // whether anything of these blocks still lives
      const int b = __builtin_ctz(done);
      bool lives = false;
      for (int p = b * kPixels; p < (b + 1) * kPixels; ++p) lives |= t.Ts[p] > T(kTransmittanceMin) * t.least[p];
      if (!lives) alive &= ~(1u << b);
    }
  }
  for (; k < t.end; ++k) t.hits[k - t.begin] = 0;
}

// From the radiance to the residual, and to the light behind the last entry. Returns ½ Σ|r|².
template <class T>
double turn(FlowTile<T>& t) {
  const T* background = t.f.list.backgrounds + t.place.camera * kPhotoChannels;
  double sum = 0;
  for_pixels(t.f.list, t.place, [&](int p, int64_t offset) {
    const int64_t pixel = t.place.first_pixel + offset;
    if (!t.keeps(pixel)) return;
    for (int c = 0; c < kPhotoChannels; ++c) {
      const T photo = t.photo_at(pixel, c), beyond = t.Ts[p] * background[c];
      const T r = t.behind[c * kPlane + p] + beyond - photo;
      t.residual[c * kPlane + p] = r, t.behind[c * kPlane + p] = beyond;
      sum += double(r) * double(r);
    }
  });
  return 0.5 * sum;
}

// One splat: the cost of its removal; moves the state of the pixels in front of it.
template <Response R, class T>
SR_INLINE T remove(FlowTile<T>& t, int64_t k, const Record<T>& r, const BlockExpansion<T>& block,
                   const Lattice<T>& lattice) {
  using S = Pack<T, lanes_of<T>>;
  constexpr int L = lanes_of<T>;
  const S cutoff{T(kLog2Cutoff)}, before{T(k - t.begin)};
  S total(T(0));
  for (int v = 0; v < kPixels; v += L) {
    const S lx = S::load(lattice.lx + v), ly = S::load(lattice.ly + v), bracket = bracket_of(r, lx, ly);
    for (uint32_t todo = t.hits[k - t.begin]; todo; todo &= todo - 1) {
      const int b = __builtin_ctz(todo), at = b * kPixels + v;
      const S e = log2_response(block, b, bracket, lx, ly);
      const auto ok = (S::load(t.last + at) > before) & (e >= cutoff);
      if (kPixels != L && !any(ok)) continue;
      const Opacity<S> o = opacity_of<R>(power_of_two(e));
      const S inverse = reciprocal(o.passes), after = S::load(t.Ts + at), Tr = after * inverse;
      const S odds = o.alpha * inverse, w = mask_or_zero(ok, o.alpha * Tr);
      S change(T(0));
      for (int c = 0; c < kPhotoChannels; ++c) {
        const S color(r.color[c]), rest = S::load(t.behind + c * kPlane + at);
        change += removal_change(odds, after, color, rest, S::load(t.residual + c * kPlane + at));
        (rest + w * color).store(t.behind + c * kPlane + at);
      }
      total += mask_or_zero(ok, change);
      select(ok, Tr, after).store(t.Ts + at);
    }
  }
  return horizontal_sum(total);
}

// One probe: what its insertion changes, at each mass.
template <Response R, class T>
SR_INLINE void insert(const FlowTile<T>& t, int64_t k, const Record<T>& r, const BlockExpansion<T>& block,
                      const Lattice<T>& lattice, T* slot) {
  using S = Pack<T, lanes_of<T>>;
  constexpr int L = lanes_of<T>;
  const S before{T(k - t.begin)}, cutoff{T(kLog2Cutoff)};
  const int masses = t.f.masses;
  S totals[kMassesMost * kQuadratic], levels[kMassesMost];
  S cutoffs[kMassesMost];  // a fainter probe ends nearer to its centre
  for (int m = 0; m < masses; ++m) {
    levels[m] = S(t.f.levels[m]), cutoffs[m] = cutoff - log_two(levels[m]);
    for (int q = 0; q < kQuadratic; ++q) totals[m * kQuadratic + q] = S(T(0));
  }
  const S color[kPhotoChannels] = {S(r.color[0]), S(r.color[1]), S(r.color[2])};
  for (int v = 0; v < kPixels; v += L) {
    const S lx = S::load(lattice.lx + v), ly = S::load(lattice.ly + v), bracket = bracket_of(r, lx, ly);
    for (uint32_t todo = t.hits[k - t.begin]; todo; todo &= todo - 1) {
      const int b = __builtin_ctz(todo), at = b * kPixels + v;
      const S e = log2_response(block, b, bracket, lx, ly);
      const auto ok = (S::load(t.last + at) > before) & (e >= cutoff);
      if (!any(ok)) continue;
      const S response = power_of_two(e), front = S::load(t.Ts + at);
      S behind[kPhotoChannels], residual[kPhotoChannels];
      for (int c = 0; c < kPhotoChannels; ++c) {
        behind[c] = S::load(t.behind + c * kPlane + at);
        residual[c] = S::load(t.residual + c * kPlane + at);
      }
      const InsertionTerms<S> terms = insertion_terms(front, color, behind, residual);
      for (int m = 0; m < masses; ++m) {
        const S alpha = mask_or_zero(ok & (e >= cutoffs[m]), opacity_of<R>(levels[m] * response).alpha);
        add_insertion(terms, front, alpha, totals + m * kQuadratic);
      }
    }
  }
  horizontal_sums(totals, masses * kQuadratic, slot);
}

template <Response R, class T>
void walk_backward(FlowTile<T>& t, const Lattice<T>& lattice, const FlowSlots<T>& slots) {
  const auto& a = t.f.list;
  BlockExpansion<T> block;
  for (int64_t k = t.end - 1; k >= t.begin; --k) {
    if (!t.hits[k - t.begin]) continue;
    const int64_t id = a.splat_ids[k], slot = a.slots[k];
    const Record<T>& r = t.records[id];
    expand(r, lattice, T(t.place.x0), T(t.place.y0), block);
    slots.written[slot] = 1;
    if (t.is_probe(id))
      insert<R>(t, k, r, block, lattice, slots.insertions + slot * slots.stride);
    else
      slots.removals[slot] = remove<R>(t, k, r, block, lattice);
  }
}

// Row i of camera c: adds up its pairs, which are side by side.
template <class T>
void gather(const FlowArgs<T>& f, const FlowSlots<T>& slots, int64_t i) {
  const auto& a = f.list;
  const int64_t splats = a.N - f.probes, camera = i / a.N, n = i % a.N;
  const int32_t first = a.splat_offsets[i], last = a.splat_offsets[i + 1];
  if (n < splats) {
    T sum = 0;
    for (int32_t s = first; s < last; ++s)
      if (slots.written[s]) sum += slots.removals[s];
    f.removal[camera * splats + n] = sum;
    return;
  }
  T* insertion = f.insertion + (camera * f.probes + n - splats) * slots.stride;
  for (int64_t q = 0; q < slots.stride; ++q) insertion[q] = 0;
  for (int32_t s = first; s < last; ++s) {
    if (!slots.written[s]) continue;
    const T* slot = slots.insertions + s * slots.stride;
    for (int64_t q = 0; q < slots.stride; ++q) insertion[q] += slot[q];
  }
}

template <Response R, class T>
void flow_statistics_response(const FlowArgs<T>& f) {
  const auto& a = f.list;
  FlowScratch<T>& scratch = flow_scratch<T>();
  const Record<T>* records = make_records(a, scratch.records);
  // both arrays have a place for every pair; of the pages that no pair of theirs needs nothing is ever touched
  FlowSlots<T> slots{};
  slots.stride = f.masses * kQuadratic;
  slots.removals = scratch.removals.template get<T>(a.P + 1);
  slots.insertions = scratch.insertions.template get<T>((f.probes ? a.P * slots.stride : 0) + 1);
  slots.written = scratch.written.template get<uint8_t>(a.P + 1);
  std::memset(slots.written, 0, a.P);
  const int64_t tiles_of_view = ((a.width + kTile - 1) / kTile) * ((a.height + kTile - 1) / kTile);
  const int64_t tiles = a.C * tiles_of_view;
  const int32_t* order = tiles_by_weight(a, tiles, scratch.order);
  parallel_for(tiles, [&](int64_t i) {
    static thread_local Scratch memory, hits;
    const int64_t tile = order[i], entries = a.tile_offsets[tile + 1] - a.tile_offsets[tile];
    FlowTile<T> t(f, records, tile, memory.template get<T>(kState), hits.template get<uint16_t>(entries + 1));
    const Lattice<T> lattice = make_lattice<T>();
    walk_forward<R>(t, lattice);
    f.partial[tile] = turn(t);
    walk_backward<R>(t, lattice, slots);
  });
  for (int64_t c = 0; c < a.C; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < tiles_of_view; ++i) sum += f.partial[c * tiles_of_view + i];
    f.error[c] = T(sum);
  }
  constexpr int64_t kChunk = 1024;
  const int64_t CN = a.C * a.N;
  parallel_for((CN + kChunk - 1) / kChunk, [&](int64_t chunk) {
    const int64_t end = (chunk + 1) * kChunk < CN ? (chunk + 1) * kChunk : CN;
    for (int64_t i = chunk * kChunk; i < end; ++i) gather(f, slots, i);
  });
}

template <class T>
void flow_statistics_loop(const FlowArgs<T>& f) {
  if (Response(f.list.response) == Response::gaussian) return flow_statistics_response<Response::gaussian>(f);
  flow_statistics_response<Response::beer_lambert>(f);
}

}  // namespace

template <class T>
void fill_flow_statistics(Stages<T>& s) {
  s.flow_statistics = flow_statistics_loop<T>;
}
template void fill_flow_statistics<float>(Stages<float>&);
template void fill_flow_statistics<double>(Stages<double>&);

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
