// One step of Adam (Kingma & Ba 2015) for one number, with the bias corrections of a step count of its own:
//
//   m ← β1 m + (1-β1) g,   v ← β2 v + (1-β2) g²,   p ← p - lr m̂ / (√v̂ + ε),   m̂ = m/(1-β1ᵗ),  v̂ = v/(1-β2ᵗ)
#pragma once
#include "number.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

// The constants of a call; kept differences from 1, because 1 - 0.999f is off by 1e-5.
template <class S>
struct AdamConstants {
  S beta1, beta2, rest1, rest2;  // rest = 1 - beta
  S log1, log2;                  // ln beta
  S eps;
};

// 1 - eˣ for x <= 0, to a few units in the last place of float: by its series where the difference would cancel.
template <class S>
SR_INLINE S one_minus_exp(S x) {
  x = smax(x, S(-80.f));  // e^-80 is nothing beside 1; ln 0 of beta = 0 comes as -inf
  S series = S(1.f / 40320);
  series = series * x + S(1.f / 5040);
  series = series * x + S(1.f / 720);
  series = series * x + S(1.f / 120);
  series = series * x + S(1.f / 24);
  series = series * x + S(1.f / 6);
  series = series * x + S(1.f / 2);
  series = series * x + S(1.f);
  return select(x > S(-0.5f), -(series * x), S(1.f) - power_of_two(x * S(1.44269504f)));
}

// step = lr/(1-β1ᵗ), root = 1/√(1-β2ᵗ)
template <class S>
SR_INLINE void adam_update(const AdamConstants<S>& c, S step, S root, S g, S& p, S& m, S& v) {
  m = c.beta1 * m + c.rest1 * g;
  v = c.beta2 * v + c.rest2 * (g * g);
  p -= step * m / (square_root(v) * root + c.eps);
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
