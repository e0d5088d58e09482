// Changes of the squared error by the removal of a splat and the insertion of a probe, at one pixel.
//
// Let T be the transmittance in front of an entry of the list, α its opacity, c its colour, S̃ the light from behind it
// with the transmittance in front of it, and r = radiance - photo. Then, exactly and for every response,
//
//   removal of a splat       ΔC = α/(1-α) (S̃ - T (1-α) c)
//   insertion of a probe     ΔC = α' (T c - S̃)
//   change of F = ½ Σ|r|²    ⟨r, ΔC⟩ + ½ |ΔC|²
//
// The change by a probe is a quadratic in its colour: with D = T c - S̃ and δ the difference to c it is
//   Σ α' ⟨r, D⟩ + ½ α'² |D|²  +  ⟨δ, Σ α' T r + α'² T D⟩  +  ½ |δ|² Σ α'² T².
#pragma once
#include "number.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {

constexpr int kPhotoChannels = 3;
constexpr int kQuadratic = 5;  // numbers of the quadratic: change, slopes (3), curvature

// The change of F by a removal, for one channel: odds = α/(1-α), after = T (1-α).
template <class S>
SR_INLINE S removal_change(S odds, S after, S color, S behind, S residual) {
  const S dC = odds * (behind - after * color);
  return dC * (residual + S(0.5) * dC);
}

// Terms of an insertion that are the same at every mass.
template <class S>
struct InsertionTerms {
  S rD, DD;                                        // ⟨r, D⟩, |D|²
  S slope[kPhotoChannels], bend[kPhotoChannels];  // T r, T D
};
template <class S>
SR_INLINE InsertionTerms<S> insertion_terms(S front, const S* color, const S* behind, const S* residual) {
  InsertionTerms<S> t;
  t.rD = t.DD = S(0);
  for (int c = 0; c < kPhotoChannels; ++c) {
    const S D = front * color[c] - behind[c];
    t.rD += residual[c] * D, t.DD += D * D;
    t.slope[c] = front * residual[c], t.bend[c] = front * D;
  }
  return t;
}
// Adds the pixel's share at opacity `alpha` to the quadratic.
template <class S>
SR_INLINE void add_insertion(const InsertionTerms<S>& t, S front, S alpha, S* sums) {
  const S square = alpha * alpha;
  sums[0] += alpha * t.rD + S(0.5) * square * t.DD;
  for (int c = 0; c < kPhotoChannels; ++c) sums[1 + c] += alpha * t.slope[c] + square * t.bend[c];
  sums[4] += square * front * front;
}

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
