// How a splat answers at a pixel: from a = peak · G to its opacity α, and back.
//
//   gaussian       α = min(a, 0.99)        (3DGS: a = opacity · G)
//   beer_lambert   α = 1 - exp(-a)         (a = optical depth)
//
// S̃ is the light from behind with the transmittance in front of it, S̃ = Σ_{j>i} w_j T_j + T_N background, and
// f = ⟨gradient of the pixel, colour⟩. With T in front of the splat:
//   gaussian       ∂L/∂α = T f - S̃/(1-α)             beer_lambert   ∂L/∂a = T (1-α) f - S̃     (no division)
#pragma once
#include "project.h"
#include "thresholds.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

constexpr double kLog2E = 1.4426950408889634;

// The part that passes, 1 - α, and the part that does not.
template <class S>
struct Opacity {
  S alpha, passes;
};
template <Response R, class S>
SR_INLINE Opacity<S> opacity_of(S a) {
  if constexpr (R == Response::gaussian) {
    const S alpha = smin(a, S(kAlphaMax));
    return {alpha, S(1) - alpha};
  } else {
    const PowerOfTwo<S> p = power_and_complement(S(-kLog2E) * a);
    return {p.complement, p.power};
  }
}

// ∂L/∂ ln a, with `inverse` = 1/(1-α)
template <Response R, class S>
SR_INLINE S log_response_vjp(S a, Opacity<S> o, S inverse, S T, S f, S behind) {
  if constexpr (R == Response::gaussian)
    return mask_or_zero(a <= S(kAlphaMax), o.alpha * (T * f - behind * inverse));
  else  // a beyond the floor of `passes`: a e^-a would grow with a where it vanishes
    return smin(a, S(-kLeastExponent<S> / kLog2E)) * (T * o.passes * f - behind);
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
