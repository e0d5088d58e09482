// The lanes of one warp, and the values that they exchange.
#pragma once
#include <algorithm>
#include <cstdint>

#include "simt.h"

namespace simt {

constexpr int kWarp = 32;

struct Rendezvous {  // of the lanes of one mask
  unsigned mask = 0, arrived = 0;
  Exchange kind = Exchange::none;
  Site site{};
  unsigned round = 0;
};
struct Warp {
  unsigned live = 0, runnable = 0, at_barrier = 0;
  uint64_t value[kWarp], result[kWarp];
  int source[kWarp];
  Rendezvous meeting[kWarp];
  unsigned open = 0;  // those meetings at which somebody waits

  // Groups of lanes may wait at the same time, each under its own mask: that of this one, or a free one, if possible
  // the place of its lowest lane.
  int slot_of(unsigned mask) const {
    const int lowest = __builtin_ctz(mask);
    for (unsigned rest = open; rest; rest &= rest - 1)
      if (meeting[__builtin_ctz(rest)].mask == mask) return __builtin_ctz(rest);
    return open >> lowest & 1 ? __builtin_ctz(~open) : lowest;
  }
  // All lanes have come: computes the result of each of them, and lets them continue.
  void complete(Rendezvous& at);

 private:
  template <class F>
  uint64_t fold(unsigned mask, const F& f) const {
    uint64_t sum = value[__builtin_ctz(mask)];
    for (unsigned rest = mask & (mask - 1); rest; rest &= rest - 1) sum = f(sum, value[__builtin_ctz(rest)]);
    return sum;
  }
};

inline void Warp::complete(Rendezvous& at) {
  using U = uint64_t;
  const unsigned mask = at.mask;
  const auto each = [&](const auto& f) {
    for (unsigned rest = mask; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      result[lane] = f(lane);
    }
  };
  const auto all = [&](U same) { each([=](int) { return same; }); };
  const auto lanes_with = [&](U wanted) {
    U found = 0;
    for (unsigned rest = mask; rest; rest &= rest - 1)
      if (value[__builtin_ctz(rest)] == wanted) found |= U(1) << __builtin_ctz(rest);
    return found;
  };
  switch (at.kind) {
    case Exchange::none: break;
    case Exchange::shuffle: each([&](int lane) { return value[source[lane] & 31]; }); break;
    case Exchange::ballot: all(lanes_with(1)); break;
    case Exchange::match: each([&](int lane) { return lanes_with(value[lane]); }); break;
    case Exchange::add:
    case Exchange::add_signed: all(fold(mask, [](U a, U b) { return a + b; })); break;
    case Exchange::min: all(fold(mask, [](U a, U b) { return std::min(a, b); })); break;
    case Exchange::max: all(fold(mask, [](U a, U b) { return std::max(a, b); })); break;
    case Exchange::min_signed: all(fold(mask, [](U a, U b) { return U(std::min(int64_t(a), int64_t(b))); })); break;
    case Exchange::max_signed: all(fold(mask, [](U a, U b) { return U(std::max(int64_t(a), int64_t(b))); })); break;
    case Exchange::all_of: all(fold(mask, [](U a, U b) { return a & b; })); break;
    case Exchange::one_of: all(fold(mask, [](U a, U b) { return a | b; })); break;
    case Exchange::odd: all(fold(mask, [](U a, U b) { return a ^ b; })); break;
  }
  at.arrived = 0;
  open &= ~(1u << (&at - meeting));
  ++at.round;
  runnable |= mask;
}

}  // namespace simt
